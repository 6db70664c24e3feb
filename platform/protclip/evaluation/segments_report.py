"""`protclip segments`: what the segments of a checkpoint look at, as table and picture."""

import logging
import tempfile
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from protclip import checkpoint, storage
from protclip.config.report import SegmentsConfig
from protclip.data.sites import Site, read_annotated
from protclip.errors import DataError
from protclip.evaluation.embed import Embedder
from protclip.evaluation.segments import SITE_KINDS, Aligned, Cell, align, evidence_of, table
from protclip.page import markdown_table
from protclip.progress import progress
from protclip.records import PROPERTIES, ProteinRecord

log = logging.getLogger(__name__)

TRACK_COLOURS = ("#2f6fde", "#c0392b", "#7a8699", "#d99a2b", "#2e9e6b")
EXAMPLES = 3
DRAWN_LENGTH = 200
PICTURE, REPORT = "segments.png", "segments.md"


def segments(config: SegmentsConfig) -> dict[str, object]:
    """Measures on annotated entries how well each property's segment finds each kind of site.

    Returns:
        URIs of table and picture, number of proteins, and the measures of every cell.

    Raises:
        CheckpointError: The checkpoint cannot be used.
        DataError: The entries cannot be read, or none of them has a site.
    """
    loaded = checkpoint.load(config.checkpoint)
    embedder = Embedder(loaded)
    evidence = evidence_of(loaded, config.evidence)
    thetas = loaded.config.loss.pda.thetas
    entries = (entry for entry in read_annotated(config.entries) if _useful(*entry))
    bar = progress("segments", " proteins", config.limit)
    aligned = []
    with bar:
        for one in align(embedder, islice(entries, config.limit), evidence):
            aligned.append(one)
            bar.update()
    if not aligned:
        raise DataError(f"{config.entries}: no entry has an annotated site; give one with FT lines")
    cells = table(aligned, thetas)
    text = _markdown(loaded.uri, config, cells, len(aligned))
    log.info("\n%s", text)
    storage.write_bytes(report := storage.join(config.output, REPORT), text.encode())
    with tempfile.TemporaryDirectory(prefix="protclip-") as directory:
        _draw(cells, _examples(aligned, config.accessions), local := Path(directory, PICTURE))
        storage.copy_to(local, picture := storage.join(config.output, PICTURE))
    measures = {
        f"{prop}/{kind.name}": cell._asdict()
        for prop, row in zip(PROPERTIES, cells, strict=True)
        for kind, cell in zip(SITE_KINDS, row, strict=True)
        if cell
    }
    return {"report": report, "picture": picture, "proteins": len(aligned), "measures": measures}


def _useful(record: ProteinRecord, sites: Sequence[Site]) -> bool:
    """Whether an entry says where something lies, and has two properties to tell apart."""
    return bool(sites) and sum(bool(getattr(record, p)) for p in PROPERTIES) > 1


def _examples(aligned: Sequence[Aligned], accessions: Sequence[str]) -> list[Aligned]:
    """The proteins asked for; else those with the most kinds of sites, of a length that can be drawn.

    Raises:
        DataError: One that is asked for is not among them.
    """
    if not accessions:
        by_kinds = sorted(
            aligned, key=lambda a: (-int(a.sites_SL.any(1).sum()), abs(a.sites_SL.shape[1] - DRAWN_LENGTH))
        )
        return by_kinds[:EXAMPLES]
    by_accession = {a.record.accession: a for a in aligned}
    if missing := [a for a in accessions if a not in by_accession]:
        raise DataError(
            f"accessions: {', '.join(missing)} not among the {len(aligned)} proteins measured; raise limit"
        )
    return [by_accession[a] for a in accessions]


def _markdown(uri: str, config: SegmentsConfig, cells: Sequence[Sequence[Cell | None]], count: int) -> str:
    """The table for people."""
    rows = [
        [
            prop.label.capitalize(),
            *("–" if c is None else f"{c.auroc:.3f} ± {c.error:.3f}, {c.enrichment:.1f}×" for c in row),
        ]
        for prop, row in zip(PROPERTIES, cells, strict=True)
    ]
    lines = [
        "# What the segments look at",
        "",
        f"Checkpoint {uri}, {count:,} proteins of {config.entries}. Each cell: AUROC of the property's "
        "similarity for residues of such a site (0.5 is chance), its standard error, and the weight of the "
        "thresholded segment on them over their share of the residues (1× is chance).",
        "",
        *markdown_table(["property", *(kind.name for kind in SITE_KINDS)], rows),
    ]
    return "\n".join(lines) + "\n"


def _draw(cells: Sequence[Sequence[Cell | None]], examples: Sequence[Aligned], path: Path) -> None:
    """The table as a heat map, and below it each example: similarities along the sequence, sites under it."""
    figure = Figure(figsize=(11, 3.4 + 2.3 * len(examples)), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    top, *below = figure.subplots(
        1 + len(examples), 1, height_ratios=[1.5] + [1] * len(examples), squeeze=False
    )[:, 0]
    _draw_table(top, cells)
    for axis, example in zip(below, examples, strict=True):
        _draw_protein(axis, example)
    used = np.any([e.sites_SL.any(1) for e in examples], axis=0)
    handles = [
        Patch(color=colour, label=kind.name)
        for kind, colour, shown in zip(SITE_KINDS, TRACK_COLOURS, used, strict=True)
        if shown
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False, fontsize=9)
    figure.savefig(path)


def _draw_table(axis: Axes, cells: Sequence[Sequence[Cell | None]]) -> None:
    """AUROC per property and kind of site."""
    kinds = [s for s in range(len(SITE_KINDS)) if any(row[s] for row in cells)]
    values = np.array([[np.nan if (c := row[s]) is None else c.auroc for s in kinds] for row in cells])
    image = axis.imshow(values, cmap="RdBu_r", vmin=0, vmax=1, aspect="auto")
    for (row, column), value in np.ndenumerate(values):
        colour = "white" if abs(value - 0.5) > 0.33 else "black"
        axis.text(
            column, row, "–" if np.isnan(value) else f"{value:.2f}", ha="center", va="center", color=colour
        )
    axis.set_xticks(range(len(kinds)), [SITE_KINDS[s].name for s in kinds])
    axis.set_yticks(range(len(PROPERTIES)), [prop.label.capitalize() for prop in PROPERTIES])
    axis.set_title("AUROC: how well each property's similarity finds annotated residues", fontsize=11)
    axis.figure.colorbar(image, ax=axis, fraction=0.03, pad=0.01)


def _draw_protein(axis: Axes, example: Aligned) -> None:
    """Similarity of every residue to every property, annotated sites as bars below."""
    length = example.similarity_KL.shape[1]
    axis.imshow(
        np.ma.masked_invalid(example.similarity_KL),
        aspect="auto", cmap="magma", vmin=0, vmax=1, interpolation="nearest",
        extent=(0.5, length + 0.5, len(PROPERTIES), 0),
    )  # fmt: skip
    for mask_L, colour in zip(example.sites_SL, TRACK_COLOURS, strict=True):
        edges = np.flatnonzero(np.diff(np.concatenate(([0], mask_L.astype(np.int8), [0]))))
        for start, stop in edges.reshape(-1, 2):
            axis.barh(len(PROPERTIES) + 0.4, max(stop - start, 1), 0.5, start + 0.5, color=colour)
    axis.set_ylim(len(PROPERTIES) + 0.8, 0)
    axis.set_yticks(np.arange(len(PROPERTIES)) + 0.5, [p.label.capitalize() for p in PROPERTIES], fontsize=8)
    name = example.record.protein_name.partition(" (")[0]
    axis.set_title(f"{example.record.accession}  {name}", fontsize=9, loc="left")
