"""What pairs hold, as tables with pictures: from the manifest and the files' footers alone."""

from collections.abc import Mapping
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
from protclip.data.charts import draw_lengths
from protclip.data.footers import Footers, add_footers
from protclip.data.manifest import PairsManifest, StratumCount
from protclip.data.picture import draw
from protclip.data.summary import Summary
from protclip.page import percent
from protclip.records import NUM_PROPERTIES, PROPERTIES


def pairs_cards(manifest: PairsManifest, sums: Mapping[str, Footers]) -> list[Card]:
    """The cards of pairs.

    Args:
        manifest: Their manifest.
        sums: What the footers of each split say, further samples too.
    """
    own = add_footers(sums[name] for name in manifest.splits)
    cards = [_sampled(manifest), _drawing(manifest), *_excluded(manifest), _splits(manifest, sums)]
    if manifest.summary is not None:
        splits = {name: name for name in manifest.splits}
        cards += [lengths_card(manifest.summary, splits, own, "pairs"), _tokens(manifest.summary, own)]
    listed = {name: split.files for name, split in manifest.all_splits.items()}
    files = files_card({name: (listed[name], found) for name, found in sums.items() if found.files})
    return [*cards, files, columns_card(add_footers(sums.values()))]


def _sampled(manifest: PairsManifest) -> Card:
    """Rates and counts per (C, R)."""
    rows = [
        (
            str(s.confidence),
            f"{s.coverage}/{NUM_PROPERTIES}",
            f"{s.before.reviewed:,}",
            f"{s.before.unreviewed:,}",
            f"{s.reviewed_rate:.4g}",
            f"{s.rate:.4g}",
            f"{s.expected:,.1f}",
            f"{s.after.reviewed:,}",
            f"{s.after.unreviewed:,}",
            percent(s.after.total, s.before.total),
            percent(s.after.total, manifest.rows),
        )
        for s in manifest.strata
    ]
    title = "Property-driven sampling by confidence C and coverage R"
    before, after = (_counts(manifest, which) for which in ("before", "after"))
    return Card(
        title,
        (
            *("C", "R", "Swiss-Prot", "TrEMBL", "rate Swiss-Prot", "rate TrEMBL", "expected"),
            *("Swiss-Prot pairs", "TrEMBL pairs", "kept", "share of pairs"),
        ),
        rows,
        [f"{sum(s.total for s in before):,} entries before, {sum(s.total for s in after):,} pairs after."],
        "sampling.png",
        partial(draw, title, [("before", before), ("after", after)]),
    )


def _drawing(manifest: PairsManifest) -> Card:
    """What decided which entries became pairs."""
    drawing = manifest.drawing
    settings = drawing.sampling.model_dump(mode="json", exclude={"exponents"})
    exponents = {f"exponent of {name}": value for name, value in drawing.sampling.exponents}
    splits = {f"splits {name}": value for name, value in drawing.splits}
    named = {**exponents, **settings, **splits, "scale of the weights": f"{drawing.scale:.6g}"}
    rows = [(name.replace("_", " "), "–" if value is None else str(value)) for name, value in named.items()]
    notes = [
        f"{count:,} entries without {name} counted as the median." for name, count in drawing.missing.items()
    ]
    notes += [
        f"Table {name}: {table.rows:,} accessions, {table.unreadable:,} unreadable rows, {table.repeated:,} "
        f"repeated ones, from {table.uri}"
        for name, table in drawing.tables.items()
    ]
    if drawing.corrupted:
        notes.append(f"The confidence of {drawing.corrupted:,} entries was replaced before it decided.")
    if drawing.ungrouped:
        notes.append(f"{drawing.ungrouped:,} pairs have no {drawing.splits.by}; they went by their sequence.")
    return Card("How the pairs were drawn", ("setting", "value"), rows, notes)


def _excluded(manifest: PairsManifest) -> list[Card]:
    """Entries left out for the sake of benchmarks, if any were given."""
    excluded = manifest.excluded
    if not excluded.benchmarks:
        return []
    rows = [(name, f"{count:,}") for name, count in sorted(excluded.benchmarks.items())]
    notes = [f"{excluded.total:,} entries in all; one can stand in several test sets."]
    return [Card("Left out because a test set has the sequence", ("benchmark", "entries"), rows, notes)]


def _counts(manifest: PairsManifest, which: str) -> list[StratumCount]:
    """The counts before or after."""
    return [getattr(stratum, which) for stratum in manifest.strata]


def _splits(manifest: PairsManifest, sums: Mapping[str, Footers]) -> Card:
    """Pairs and tokens per split."""
    rows = []
    for name, found in sums.items():
        tokens = sum(found.values[p] for p in PROPERTIES)
        rows.append(
            (
                name,
                f"{found.rows:,}",
                percent(found.rows, manifest.rows) if name in manifest.splits else "–",
                f"{tokens:,}",
                f"{tokens / max(1, found.rows):,.1f}",
            )
        )
    return Card("Splits", ("split", "pairs", "share", "text tokens", "tokens per pair"), rows)


def _tokens(summary: Summary, own: Footers) -> Card:
    """Tokens of the properties of pairs."""
    rows, panels = [], {}
    for prop in PROPERTIES:
        histogram = histogram_of(summary, lambda group, p=prop: group.texts.get(p, {}))
        if histogram:
            count, tokens = sum(histogram.values()), own.values[prop]
            shares = (f"{count:,}", percent(count, own.rows), f"{tokens:,}", f"{tokens / count:,.1f}")
            rows.append((label(prop), *shares, *quantiles(histogram)))
            panels[label(prop)] = {"pairs": histogram}
    return Card(
        "Properties and the length of their texts in tokens",
        ("property", "pairs with it", "share", "tokens", "mean", *QUANTILES),
        rows,
        [WITHIN],
        "tokens.png",
        partial(draw_lengths, "Length of property texts", "tokens", panels),
    )
