"""UniProtKB files to strata, on Ray Data.

Phase 1: one task per input file cuts it into blocks of whole entries, one task per block parses it and
writes a run sorted by sampling key. Phase 2: one task per range of sampling keys merges the runs, drops
repeated accessions and writes a part of each stratum. The strata depend on the entries and
`rows_per_file` alone, not on how the entries come in files and blocks, nor on the number of workers.
"""

import logging
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import pyarrow as pa

from protclip import storage
from protclip.cluster.output import Output, progress, publish, tracked
from protclip.cluster.session import connect
from protclip.cluster.shuffle import MAX_CELLS, KeyRange, ranges_for, read_range, write_run
from protclip.cluster.tasks import Stage, run_stages
from protclip.config.data import PrepareConfig
from protclip.data.manifest import MANIFEST_NAME, FileEntry, StrataManifest, StratumCount
from protclip.data.strata import (
    DUPLICATE,
    PARSED_SCHEMA,
    REFUSED_SCHEMA,
    Origin,
    tables,
    totals,
    without_duplicates,
    write_parts,
)
from protclip.data.uniprot import HEAD_BYTES, Block, detect_format, parse_block, read_blocks
from protclip.errors import DataError
from protclip.records import CONFIDENCE_LEVELS, NUM_PROPERTIES, REJECTED_SCHEMA
from protclip.tracking.base import Tracker

log = logging.getLogger(__name__)

REJECTED_NAME = "rejected.parquet"
TABLE_NAME = "strata"
OWNED = (
    *(f"confidence={c}" for c in CONFIDENCE_LEVELS),
    REJECTED_NAME,
    f"{TABLE_NAME}.md",
    f"{TABLE_NAME}.png",
)


@dataclass(frozen=True, slots=True)
class Input:
    """A file to read."""

    origin: Origin
    format: str
    num_bytes: int


@dataclass(frozen=True, slots=True)
class ParsedBlock:
    """What became of a block; its run and its rejections are in the staging folder.

    Attributes:
        input: Index of the file.
        offset: Where the block begins.
        num_bytes: Its size.
        records: Entries that became records.
        rejected: The others, per reason.
        run: URI of the run, empty when there is none.
        refused: URI of the rejections, empty when there are none.
    """

    input: int
    offset: int
    num_bytes: int
    records: int
    rejected: Counter[str]
    run: str
    refused: str


@dataclass(frozen=True, slots=True)
class MergedRange:
    """What one range of keys gave.

    Attributes:
        files: Parts written, with the counts of their stratum.
        levels_assumed: Entries kept whose confidence the source does not state.
        duplicates: Entries dropped.
        refused: URI of these, empty when there are none.
    """

    files: tuple[tuple[FileEntry, StratumCount], ...]
    levels_assumed: int
    duplicates: int
    refused: str


def prepare(config: PrepareConfig) -> dict[str, object]:
    """Reads UniProtKB files and writes strata: parts, rejected entries, a table, a picture, a manifest.

    Every entry ends in a stratum or in `rejected.parquet`.

    Returns:
        URI of strata and manifest, counts, and the MLflow run id.

    Raises:
        DataError: Inputs or output cannot be used, nothing is in the inputs, or more entries than
            allowed are unreadable.
    """
    inputs = find_inputs(config)
    output = Output(config.output, StrataManifest, OWNED, overwrite=config.overwrite)
    with output.staging() as staging, tracked(config, "prepare") as tracker:
        connect()
        cells = min(MAX_CELLS, 1 + sum(i.num_bytes for i in inputs) // (config.block_mb * 2**20))
        blocks = _parse_all(inputs, config, staging, cells)
        records = sum(b.records for b in blocks)
        rejected = sum((b.rejected for b in blocks), Counter())
        if not records + rejected.total():
            raise DataError(f"no entries in {', '.join(config.inputs)}; check that these are UniProtKB files")
        output.clear()
        sources = [i.origin.uri for i in inputs]
        rejected_uri = storage.join(config.output, REJECTED_NAME)
        if rejected.total() > config.max_rejected_share * (records + rejected.total()):
            _write_rejected(rejected_uri, blocks, ())
            raise DataError(_too_many(rejected, records, config.max_rejected_share, rejected_uri))
        merged = _merge_all(blocks, sources, config, staging, records)
        _write_rejected(rejected_uri, blocks, [m.refused for m in merged if m.refused])
        rejected += Counter({DUPLICATE: sum(m.duplicates for m in merged)})
        manifest = StrataManifest(
            release=config.release,
            inputs=tuple(sources),
            strata=totals(count for m in merged for _, count in m.files),
            files=tuple(sorted((file for m in merged for file, _ in m.files), key=lambda f: f.path)),
            rejected=dict(sorted(rejected.items())),
            missing_confidence=sum(m.levels_assumed for m in merged),
        )
        assert manifest.rows + rejected.total() == sum(b.records + b.rejected.total() for b in blocks)
        _publish(manifest, config.output, tracker)
        tracker.log_metrics({"data/entries": manifest.rows, "data/rejected": rejected.total()})
        manifest.save(config.output)
        tracker.log_text(manifest.model_dump_json(indent=2), f"data/{MANIFEST_NAME}")
        tracker.set_tags({"data_manifest": StrataManifest.digest(config.output), "data": config.output})
    return {
        "strata": config.output,
        "manifest": storage.join(config.output, MANIFEST_NAME),
        "rows": manifest.rows,
        "rejected": manifest.rejected,
        "missing_confidence": manifest.missing_confidence,
        "run_id": tracker.run_id,
    }


def find_inputs(config: PrepareConfig) -> list[Input]:
    """The files to read, directories listed, with their formats.

    Raises:
        DataError: A file is missing, empty, or of no known format.
    """
    files = [file for uri in config.inputs for file in storage.list_files(uri)]
    if not files:
        raise DataError(f"no files in {', '.join(config.inputs)}; give UniProtKB files or their folder")
    inputs: list[Input] = []
    for index, file in enumerate(files):
        if not file.num_bytes:
            raise DataError(f"{file.uri}: the file is empty; fetch it again or leave it out")
        name = config.format
        if name == "auto":
            with storage.open_input(file.uri) as source:
                name = detect_format(file.uri, source.read(HEAD_BYTES))
        inputs.append(Input(Origin(index, file.uri), name, file.num_bytes))
    return inputs


def _parse_all(inputs: Sequence[Input], config: PrepareConfig, staging: str, cells: int) -> list[ParsedBlock]:
    """Phase 1; the blocks in the order of the inputs."""
    parse = partial(
        _parse,
        staging=staging,
        release=config.release,
        missing_confidence=config.missing_confidence,
        cells=cells,
    )
    read = partial(_read, block_bytes=config.block_mb * 2**20)
    blocks: list[ParsedBlock] = []
    num_bytes = num_rejected = 0
    with progress("parsing", " entries") as bar:
        for block in run_stages(inputs, Stage(read, num_cpus=0), Stage(parse)):
            blocks.append(block)
            num_bytes += block.num_bytes
            num_rejected += block.rejected.total()
            bar.set_postfix_str(f"{num_bytes / 2**20:,.0f} MB, {num_rejected:,} rejected", refresh=False)
            bar.update(block.records + block.rejected.total())
    return sorted(blocks, key=lambda b: (b.input, b.offset))


def _read(file: Input, block_bytes: int) -> Iterator[tuple[Origin, Block]]:
    """Task: the blocks of a file, one by one."""
    for block in read_blocks(file.origin.uri, file.format, block_bytes):
        yield file.origin, block


def _parse(
    given: tuple[Origin, Block],
    *,
    staging: str,
    release: str | None,
    missing_confidence: int | None,
    cells: int,
) -> Iterable[ParsedBlock]:
    """Task: one block becomes a run and a file of rejections."""
    origin, block = given
    records, refused = tables(list(parse_block(block)), origin, release, missing_confidence)
    name = storage.join(staging, f"{origin.index:06d}-{block.offset:016d}")
    run = f"{name}.arrow" if len(records) else ""
    if run:
        write_run(run, records, "sampling_key", cells)
    yield ParsedBlock(
        input=origin.index,
        offset=block.offset,
        num_bytes=len(block.data),
        records=len(records),
        rejected=Counter(refused["reason"].to_pylist()),
        run=run,
        refused=_keep_refused(refused, f"{name}.refused.parquet"),
    )


def _keep_refused(refused: pa.Table, uri: str) -> str:
    """Stores rejections, if there are any, and returns where."""
    if not len(refused):
        return ""
    return storage.write_parquet(uri, refused, len(refused)).uri


def _merge_all(
    blocks: Sequence[ParsedBlock], sources: Sequence[str], config: PrepareConfig, staging: str, records: int
) -> list[MergedRange]:
    """Phase 2."""
    ranges = ranges_for(records, config.rows_per_file)
    merge = partial(
        _merge, runs=[b.run for b in blocks if b.run], sources=sources, output=config.output, staging=staging
    )
    with progress("writing strata", " ranges", len(ranges)) as bar:
        merged: list[MergedRange] = []
        for result in run_stages(ranges, Stage(merge)):
            merged.append(result)
            bar.update()
    return merged


def _merge(
    keys: KeyRange, *, runs: Sequence[str], sources: Sequence[str], output: str, staging: str
) -> Iterable[MergedRange]:
    """Task: one range of sampling keys becomes a part of each stratum."""
    entries = read_range(runs, keys, "sampling_key", PARSED_SCHEMA)
    rows, duplicates = without_duplicates(entries, sources)
    yield MergedRange(
        files=tuple(write_parts(entries, rows, output, keys.index)),
        levels_assumed=int(entries["level_assumed"].to_numpy()[rows].sum()),
        duplicates=len(duplicates),
        refused=_keep_refused(duplicates, storage.join(staging, f"duplicates-{keys.index:06d}.parquet")),
    )


def _write_rejected(uri: str, blocks: Sequence[ParsedBlock], duplicates: Sequence[str]) -> None:
    """Writes all rejections in the order of the inputs; holds the duplicates and one block in memory."""
    repeated = pa.concat_tables([REFUSED_SCHEMA.empty_table(), *map(_read_refused, duplicates)])
    repeated = repeated.sort_by([("input", "ascending"), ("offset", "ascending")])
    places = list(zip(repeated["input"].to_pylist(), repeated["offset"].to_pylist(), strict=True))
    ends = [bisect_left(places, (b.input, b.offset)) for b in blocks[1:]] + [len(places)]
    with storage.parquet_writer(uri, REJECTED_SCHEMA) as (writer, _):
        start = 0
        for block, end in zip(blocks, ends, strict=True):
            own = [_read_refused(block.refused)] if block.refused else []
            if own or end > start:
                both = pa.concat_tables([*own, repeated.slice(start, end - start)]).sort_by("offset")
                writer.write_table(both.select(REJECTED_SCHEMA.names).combine_chunks())
            start = end


def _read_refused(uri: str) -> pa.Table:
    """The rejections of a block or of a range."""
    with storage.parquet_file(uri) as file:
        return file.read()


def _too_many(rejected: Counter[str], records: int, limit: float, uri: str) -> str:
    """Why the job stops, with the counts."""
    total = records + rejected.total()
    reasons = ", ".join(f"{count:,} × {reason}" for reason, count in rejected.most_common())
    return (
        f"{rejected.total():,} of {total:,} entries ({rejected.total() / total:.1%}) cannot be used, more "
        f"than max_rejected_share={limit:g} allows: {reasons}; they are kept in {uri}; "
        "mend the inputs or raise max_rejected_share"
    )


def _publish(manifest: StrataManifest, output: str, tracker: Tracker) -> None:
    """Shows and keeps how many entries each stratum has."""
    for reason, count in manifest.rejected.items():
        log.info("rejected: %s × %s", f"{count:,}", reason)
    if manifest.missing_confidence:
        log.info("no protein existence level stated, one assumed: %s", f"{manifest.missing_confidence:,}")
    publish(
        TABLE_NAME,
        output,
        tracker,
        title="Entries by confidence C and coverage R",
        columns=("C", "R", "entries", "share", "Swiss-Prot", "TrEMBL"),
        rows=[
            (
                str(s.confidence),
                f"{s.coverage}/{NUM_PROPERTIES}",
                f"{s.total:,}",
                f"{s.total / max(1, manifest.rows):.2%}",
                f"{s.reviewed:,}",
                f"{s.unreviewed:,}",
            )
            for s in manifest.strata
        ],
        panels=[("entries", manifest.strata)],
    )
