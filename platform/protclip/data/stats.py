"""`protclip stats`: what a data set holds, without reading a row of it."""

import base64
import logging
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from html import escape
from pathlib import Path

from protclip import storage
from protclip.config.data import StatsConfig
from protclip.data.cards import Card, histogram_of
from protclip.data.footers import Footers, add_footers, read_footers
from protclip.data.manifest import PairsManifest, StrataManifest, load_manifest
from protclip.data.pairs_cards import pairs_cards
from protclip.data.picture import render
from protclip.data.strata import stratum_of
from protclip.data.strata_cards import TOP_TAXA, strata_cards
from protclip.data.summary import Histogram, Summary, quantile
from protclip.errors import DataError
from protclip.page import html_facts, html_list, html_page, html_table, markdown_table, size
from protclip.provenance import git_sha
from protclip.records import PROPERTIES

log = logging.getLogger(__name__)

STYLE = """
main { max-width: 66rem } td, th { padding: .35rem .55rem }
img { display: block; width: 100%; max-width: 54rem; margin: 0 auto 1rem; border-radius: 6px;
  background: #fff }
.tiles { display: grid; grid-template-columns: repeat(4, 1fr); gap: .8rem 1.5rem }
.tiles b { display: block; font-size: 1.45rem; font-variant-numeric: tabular-nums }
.tiles span { color: var(--dim) }
"""


@dataclass(frozen=True, slots=True)
class Report:
    """What is shown of a data set.

    Attributes:
        title: Heading.
        tiles: The most important numbers by label.
        facts: Where they come from.
        cards: Tables with pictures.
    """

    title: str
    tiles: Mapping[str, str]
    facts: Mapping[str, str]
    cards: Sequence[Card]


def stats(config: StatsConfig) -> dict[str, object]:
    """Describes strata or pairs: tables in the log, `report.html`, `report.md` and pictures.

    Everything comes from the manifest and from the footers of the Parquet files, which are held against
    each other.

    Returns:
        The same numbers in short, and where the report is.

    Raises:
        DataError: There is no such data set, its files are not what the manifest says, or nothing can
            be written.
    """
    manifest = load_manifest(config.source)
    _check_counts(manifest, config.source)
    output = config.output or storage.absolute(f"outputs/stats/{storage.basename(config.source)}")
    if isinstance(manifest, StrataManifest):
        footers = read_footers(config.source, manifest.files)
        own = whole = add_footers(footers)
        cards, numbers, job = strata_cards(manifest, whole), _strata_numbers(manifest, whole), "prepare"
    else:
        splits = manifest.all_splits
        found = iter(read_footers(config.source, [file for s in splits.values() for file in s.files]))
        sums = {name: add_footers(next(found) for _ in split.files) for name, split in splits.items()}
        whole, own = add_footers(sums.values()), add_footers(sums[name] for name in manifest.splits)
        cards, numbers, job = pairs_cards(manifest, sums), _pairs_numbers(manifest, own), "sample"
    if manifest.summary is None:
        log.warning(
            "%s was written before data sets kept a summary: for lengths, texts%s run `protclip %s` again, "
            "with overwrite=true",
            config.source,
            ", organisms, releases and years" if job == "prepare" else "",
            job,
        )
    facts = {
        "Data": config.source,
        "Manifest": manifest.digest(config.source),
        **_origin(manifest),
        "Made": datetime.now(UTC).isoformat(timespec="seconds"),
        "Code": git_sha() or "unknown commit",
    }
    tiles = _tiles(manifest, own) | {"files": f"{whole.files:,}", "size": size(whole.num_bytes)}
    title = f"{manifest.kind.capitalize()}: {'/'.join(config.source.rstrip('/').split('/')[-2:])}"
    _publish(Report(title, tiles, facts, cards), output)
    return {
        "source": config.source,
        "kind": manifest.kind,
        **numbers,
        "files": {"count": whole.files, "bytes": whole.num_bytes, "row_groups": whole.row_groups},
        "complete": manifest.summary is not None,
        "report": storage.join(output, "report.html"),
    }


def _check_counts(manifest: StrataManifest | PairsManifest, uri: str) -> None:
    """Holds the manifest's counts against its list of files."""
    if isinstance(manifest, StrataManifest):
        stated = {(s.confidence, s.coverage): s.total for s in manifest.strata if s.total}
        listed = Counter[object]()
        for file in manifest.files:
            listed[stratum_of(file.path)] += file.rows
    else:
        stated = {name: split.rows for name, split in manifest.all_splits.items() if split.rows}
        listed = {
            name: rows
            for name, split in manifest.all_splits.items()
            if (rows := sum(file.rows for file in split.files))
        }
    if stated != dict(listed):
        wrong = sorted(str(k) for k in {*stated, *listed} if stated.get(k) != listed.get(k))
        raise DataError(
            f"{storage.join(uri, 'manifest.json')}: its counts are not those of the files it lists, in "
            f"{', '.join(wrong)}; make the data set again"
        )


def _origin(manifest: StrataManifest | PairsManifest) -> dict[str, str]:
    """What a data set was made from."""
    if isinstance(manifest, StrataManifest):
        more = len(manifest.inputs) - 3
        inputs = ", ".join(manifest.inputs[:3]) + (f" and {more:,} more" if more > 0 else "")
        return {"Release": manifest.release or "not stated", "Inputs": inputs}
    tokenizer = manifest.tokenizer
    return {
        "Strata": manifest.source,
        "Seed": str(manifest.seed),
        "Tokenizer": f"{tokenizer.source}, {tokenizer.vocab_size:,} pieces",
        "Evidence": manifest.evidence,
    }


def _tiles(manifest: StrataManifest | PairsManifest, own: Footers) -> dict[str, str]:
    """The most important numbers."""
    summary = manifest.summary
    residues = {"residues": f"{sum(g.residues for g in summary.groups):,}"} if summary else {}
    if isinstance(manifest, StrataManifest):
        return {
            "entries": f"{manifest.rows:,}",
            "Swiss-Prot": f"{sum(s.reviewed for s in manifest.strata):,}",
            "TrEMBL": f"{sum(s.unreviewed for s in manifest.strata):,}",
            **residues,
            **({"organisms": f"{summary.num_taxa:,}"} if summary else {}),
            "rejected": f"{sum(manifest.rejected.values()):,}",
        }
    return {
        "pairs": f"{manifest.rows:,}",
        **{name: f"{split.rows:,}" for name, split in manifest.splits.items()},
        **residues,
        "text tokens": f"{sum(own.values[p] for p in PROPERTIES):,}",
    }


def _strata_numbers(manifest: StrataManifest, whole: Footers) -> dict[str, object]:
    """What the job prints of strata."""
    summary = manifest.summary
    numbers: dict[str, object] = {
        "release": manifest.release,
        "rows": manifest.rows,
        "reviewed": sum(s.reviewed for s in manifest.strata),
        "unreviewed": sum(s.unreviewed for s in manifest.strata),
        "strata": [s.model_dump() for s in manifest.strata if s.total],
        "rejected": manifest.rejected,
        "missing_confidence": manifest.missing_confidence,
        "with_property": {str(p): whole.values[p] for p in PROPERTIES},
        "length_range": list(whole.ranges.get("length", ())),
        "annotation_dates": [str(day) for day in whole.ranges.get("annotation_date", ())],
    }
    if summary is None:
        return numbers
    releases = sum((Counter(group.releases) for group in summary.groups), Counter[str]())
    return numbers | {
        **_spreads(summary),
        "organisms": summary.num_taxa,
        "top_organisms": {str(taxon.taxon_id): taxon.total for taxon in summary.top_taxa[:TOP_TAXA]},
        "releases": dict(sorted(releases.items())),
        "years": histogram_of(summary, lambda group: group.years),
    }


def _pairs_numbers(manifest: PairsManifest, own: Footers) -> dict[str, object]:
    """What the job prints of pairs."""
    return {
        "rows": manifest.rows,
        "splits": {name: split.rows for name, split in manifest.all_splits.items()},
        "strata": [
            {
                "confidence": s.confidence,
                "coverage": s.coverage,
                "rate": s.rate,
                "reviewed_rate": s.reviewed_rate,
            }
            | {"before": s.before.total, "after": s.after.total}
            for s in manifest.strata
            if s.before.total
        ],
        "excluded": manifest.excluded.model_dump(),
        "tokens": {str(p): own.values[p] for p in PROPERTIES},
        "length_range": list(own.ranges.get("length", ())),
        **(_spreads(manifest.summary) if manifest.summary else {}),
    }


def _spreads(summary: Summary) -> dict[str, object]:
    """Residues, and the quantiles of lengths and texts."""
    return {
        "residues": sum(group.residues for group in summary.groups),
        "lengths": _spread(histogram_of(summary, lambda group: group.lengths)),
        "texts": {
            str(p): _spread(histogram_of(summary, lambda group, p=p: group.texts.get(p, {})))
            for p in PROPERTIES
        },
    }


def _spread(histogram: Histogram) -> dict[str, int]:
    """Median and what lies around it, nothing of nothing."""
    if not histogram:
        return {}
    return {f"p{round(100 * share)}": quantile(histogram, share) for share in (0.05, 0.5, 0.95)}


def _publish(report: Report, output: str) -> None:
    """Shows the tables, and writes report and pictures."""
    for card in report.cards:
        text = render(card.title, card.headings, card.rows)[0] if card.rows else f"{card.title}\n\n"
        log.info("%s%s", text, "".join(f"  {note}\n" for note in card.notes))
    with tempfile.TemporaryDirectory(prefix="protclip-") as name:
        folder = Path(name)
        for card in report.cards:
            if card.paint is not None:
                card.paint(folder / card.picture)
                storage.copy_to(folder / card.picture, storage.join(output, card.picture))
        storage.write_bytes(storage.join(output, "report.html"), _html(report, folder).encode())
    storage.write_bytes(storage.join(output, "report.md"), _markdown(report).encode())


def _html(report: Report, pictures: Path) -> str:
    """One page that needs nothing from outside."""
    tiles = "".join(
        f"<div><b>{escape(value)}</b><span>{escape(name)}</span></div>"
        for name, value in report.tiles.items()
    )
    cards = [f'<div class="tiles">{tiles}</div>{html_facts(report.facts)}']
    for card in report.cards:
        picture = ""
        if card.picture:
            data = base64.b64encode((pictures / card.picture).read_bytes()).decode()
            picture = f'<img alt="{escape(card.title)}" src="data:image/png;base64,{data}">'
        table = html_table(card.headings, card.rows) if card.rows else ""
        notes = html_list(card.notes) if card.notes else ""
        cards.append(f"<h2>{escape(card.title)}</h2>{picture}{table}{notes}")
    return html_page(report.title, cards, STYLE)


def _markdown(report: Report) -> str:
    """The same for a terminal or a repository; pictures lie beside it."""
    lines = [f"# {report.title}", ""]
    lines += [f"- {name}: {value}" for name, value in {**report.tiles, **report.facts}.items()]
    for card in report.cards:
        lines += ["", f"## {card.title}", ""]
        lines += [f"![{card.title}]({card.picture})", ""] if card.picture else []
        lines += [*markdown_table(card.headings, card.rows), ""] if card.rows else []
        lines += [f"- {note}" for note in card.notes]
    return "\n".join(lines) + "\n"
