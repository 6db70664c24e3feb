"""What strata hold, as tables with pictures: from the manifest and the files' footers alone."""

from collections.abc import Callable, Iterable, Mapping
from functools import partial

from protclip.data.cards import (
    QUANTILES,
    WITHIN,
    Card,
    columns_card,
    files_card,
    histogram_of,
    label,
    lengths_card,
    quantiles,
)
from protclip.data.charts import draw_bars, draw_lengths, draw_years
from protclip.data.footers import Footers
from protclip.data.manifest import TAXA_NAME, StrataManifest
from protclip.data.picture import draw
from protclip.data.summary import (
    REVIEWED,
    UNREVIEWED,
    GroupSummary,
    Histogram,
    Summary,
    combined,
    quantile,
)
from protclip.page import percent
from protclip.records import NUM_PROPERTIES, PROPERTIES

SECTIONS = {REVIEWED: "Swiss-Prot", UNREVIEWED: "TrEMBL"}
TOP_TAXA = 20

ORGANISMS: Mapping[int, str] = {
    287: "Pseudomonas aeruginosa",
    562: "Escherichia coli",
    1280: "Staphylococcus aureus",
    2246: "Haloferax volcanii",
    3702: "Arabidopsis thaliana",
    4577: "Zea mays",
    4896: "Schizosaccharomyces pombe",
    4932: "Saccharomyces cerevisiae",
    5141: "Neurospora crassa",
    6239: "Caenorhabditis elegans",
    7227: "Drosophila melanogaster",
    7955: "Danio rerio",
    8355: "Xenopus laevis",
    8364: "Xenopus tropicalis",
    9031: "Gallus gallus",
    9598: "Pan troglodytes",
    9601: "Pongo abelii",
    9606: "Homo sapiens",
    9615: "Canis lupus familiaris",
    9823: "Sus scrofa",
    9913: "Bos taurus",
    9940: "Ovis aries",
    9986: "Oryctolagus cuniculus",
    10090: "Mus musculus",
    10116: "Rattus norvegicus",
    36329: "Plasmodium falciparum (3D7)",
    39947: "Oryza sativa subsp. japonica",
    44689: "Dictyostelium discoideum",
    71421: "Haemophilus influenzae (Rd)",
    77133: "uncultured bacterium",
    83332: "Mycobacterium tuberculosis (H37Rv)",
    83333: "Escherichia coli (K12)",
    83334: "Escherichia coli O157:H7",
    99287: "Salmonella typhimurium (LT2)",
    155892: "Caulobacter vibrioides",
    208964: "Pseudomonas aeruginosa (PAO1)",
    224308: "Bacillus subtilis (168)",
    243232: "Methanocaldococcus jannaschii",
    284812: "Schizosaccharomyces pombe (972)",
    559292: "Saccharomyces cerevisiae (S288c)",
}
"""Names of the organisms that lead most samples of UniProtKB; the data hold identifiers alone."""


def strata_cards(manifest: StrataManifest, whole: Footers) -> list[Card]:
    """The cards of strata; those that need the manifest's summary are there when it is."""
    summary = manifest.summary
    cards = [_strata(manifest)]
    if summary is None:
        cards.append(_present(whole))
    else:
        cards += [
            lengths_card(summary, SECTIONS, whole, "sequences"),
            _texts(summary),
            _organisms(summary, manifest.rows, whole),
            _releases(summary, manifest.rows),
            _years(summary, manifest.rows, whole),
        ]
    return [*cards, _rejected(manifest), files_card({"strata": (manifest.files, whole)}), columns_card(whole)]


def _strata(manifest: StrataManifest) -> Card:
    """Entries per (C, R)."""
    lengths: dict[tuple[int, int], list[Histogram]] = {}
    for group in manifest.summary.groups if manifest.summary else ():
        lengths.setdefault((group.confidence, group.coverage), []).append(group.lengths)
    rows = [
        (
            str(s.confidence),
            f"{s.coverage}/{NUM_PROPERTIES}",
            f"{s.total:,}",
            percent(s.total, manifest.rows),
            f"{s.reviewed:,}",
            f"{s.unreviewed:,}",
            f"{quantile(combined(found), 0.5):,}"
            if (found := lengths.get((s.confidence, s.coverage)))
            else "–",
        )
        for s in manifest.strata
    ]
    panels = [
        (name, [s.model_copy(update={other: 0}) for s in manifest.strata])
        for name, section, other in (
            (SECTIONS[REVIEWED], REVIEWED, UNREVIEWED),
            (SECTIONS[UNREVIEWED], UNREVIEWED, REVIEWED),
        )
        if any(getattr(s, section) for s in manifest.strata)
    ]
    title = "Entries by confidence C and coverage R"
    headings = ("C", "R", "entries", "share", "Swiss-Prot", "TrEMBL", "median length")
    notes = []
    if manifest.missing_confidence:
        notes.append(f"{manifest.missing_confidence:,} entries state no level; one was assumed.")
    return Card(title, headings, rows, notes, "strata.png", partial(draw, title, panels or [("entries", [])]))


def _present(whole: Footers) -> Card:
    """What is known of the entries without a summary."""
    rows = [(label(p), f"{whole.values[p]:,}", percent(whole.values[p], whole.rows)) for p in PROPERTIES]
    notes = [f"{name} from {low} to {high}" for name, (low, high) in sorted(whole.ranges.items())]
    return Card("Properties", ("property", "entries with it", "share"), rows, notes)


def _texts(summary: Summary) -> Card:
    """Lengths of the properties of strata."""
    rows, panels = [], {}
    for prop in PROPERTIES:
        panel = {}
        for section, name in SECTIONS.items():
            total = sum(histogram_of(summary, lambda group: group.lengths, section).values())
            histogram = histogram_of(summary, lambda group, p=prop: group.texts.get(p, {}), section)
            if not histogram:
                continue
            count = sum(histogram.values())
            rows.append((label(prop), name, f"{count:,}", percent(count, total), *quantiles(histogram)))
            panel[name] = histogram
        if panel:
            panels[label(prop)] = panel
    return Card(
        "Properties and the length of their texts in characters",
        ("property", "section", "entries with it", "share", *QUANTILES),
        rows,
        [WITHIN],
        "texts.png" if panels else "",
        partial(draw_lengths, "Length of property texts", "characters", panels) if panels else None,
    )


def _organisms(summary: Summary, total: int, whole: Footers) -> Card:
    """The most frequent organisms."""
    top = summary.top_taxa[:TOP_TAXA]
    rows = [
        (
            ORGANISMS.get(taxon.taxon_id, "–"),
            str(taxon.taxon_id),
            f"{taxon.total:,}",
            percent(taxon.total, total),
            f"{taxon.reviewed:,}",
            f"{taxon.unreviewed:,}",
        )
        for taxon in top
    ]
    bars = [
        (
            f"{name} ({t.taxon_id})" if (name := ORGANISMS.get(t.taxon_id)) else f"taxon {t.taxon_id}",
            {SECTIONS[REVIEWED]: t.reviewed, SECTIONS[UNREVIEWED]: t.unreviewed},
        )
        for t in top
    ]
    unstated = whole.rows - whole.values["taxon_id"]
    notes = [
        f"{summary.num_taxa:,} organisms, all of them counted in {TAXA_NAME}; the {len(top)} most frequent "
        f"have {percent(sum(t.total for t in top), total)} of the entries.",
        f"{unstated:,} entries state none.",
    ]
    title = "Most frequent organisms"
    paint = partial(draw_bars, title, bars, total) if bars else None
    headings = ("organism", "taxon", "entries", "share", "Swiss-Prot", "TrEMBL")
    return Card(title, headings, rows, notes, "taxa.png" if paint else "", paint)


def _by_section(
    summary: Summary, pick: Callable[[GroupSummary], Mapping[int, int] | Mapping[str, int]]
) -> dict[str, dict[int | str, int]]:
    """Counts by value and section."""
    counts: dict[str, dict[int | str, int]] = {section: {} for section in SECTIONS}
    for group in summary.groups:
        for value, count in pick(group).items():
            counts[group.section][value] = counts[group.section].get(value, 0) + count
    return counts


def _value_rows(
    counts: Mapping[str, Mapping[int | str, int]], values: Iterable[int | str], total: int
) -> list[tuple[str, ...]]:
    """Value, entries, share, and entries of each section."""
    rows = []
    for value in values:
        parts = [counts[section].get(value, 0) for section in SECTIONS]
        rows.append((str(value), f"{sum(parts):,}", percent(sum(parts), total), *(f"{n:,}" for n in parts)))
    return rows


def _releases(summary: Summary, total: int) -> Card:
    """Entries per release."""
    counts = _by_section(summary, lambda group: group.releases)
    values = sorted({str(value) for found in counts.values() for value in found})
    headings = ("release", "entries", "share", *SECTIONS.values())
    return Card("Releases", headings, _value_rows(counts, values, total))


def _years(summary: Summary, total: int, whole: Footers) -> Card:
    """Entries by year of the last annotation, newest first."""
    counts = _by_section(summary, lambda group: group.years)
    panel = {
        SECTIONS[section]: histogram_of(summary, lambda group: group.years, section) for section in SECTIONS
    }
    values = sorted({int(value) for found in counts.values() for value in found}, reverse=True)
    notes = [f"{whole.rows - whole.values['annotation_date']:,} entries have no date."]
    if "annotation_date" in whole.ranges:
        first, last = whole.ranges["annotation_date"]
        notes.insert(0, f"The oldest is of {first}, the newest of {last}.")
    title = "Last annotation by year"
    paint = partial(draw_years, title, panel) if values else None
    headings = ("year", "entries", "share", *SECTIONS.values())
    return Card(
        title, headings, _value_rows(counts, values, total), notes, "years.png" if paint else "", paint
    )


def _rejected(manifest: StrataManifest) -> Card:
    """Rejected entries by reason."""
    total = manifest.rows + sum(manifest.rejected.values())
    counts = sorted(manifest.rejected.items(), key=lambda item: (-item[1], item[0]))
    counts = [(reason, count) for reason, count in counts if count]
    title = "Rejected entries by reason"
    bars = [(reason, {"rejected": count}) for reason, count in counts]
    return Card(
        title,
        ("reason", "entries", "share of all read"),
        [(reason, f"{count:,}", percent(count, total)) for reason, count in counts],
        [f"{total - manifest.rows:,} of {total:,} entries read."],
        "rejected.png" if bars else "",
        partial(draw_bars, title, bars, total) if bars else None,
    )
