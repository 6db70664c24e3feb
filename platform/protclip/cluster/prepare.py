"""UniProtKB files to strata, on Ray Data.

Phase 1: one task per input file cuts it into blocks of whole entries, one task per block parses it and
writes a run sorted by sampling key. Phase 2: one task per range of sampling keys merges the runs, drops
repeated accessions and writes a part of each stratum. The strata depend on the entries and
`rows_per_file` alone, not on how the entries come in files and blocks, nor on the number of workers.
"""

import logging
from bisect import bisect_left
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain

import pyarrow as pa

from protclip import storage
from protclip.cluster.journal import Journal, keep
from protclip.cluster.output import Output, publish, tracked
from protclip.cluster.session import connect
from protclip.cluster.shuffle import MAX_CELLS, KeyRange, ranges_for, read_range, write_run
from protclip.cluster.tasks import Stage, run_stages
from protclip.config.data import PrepareConfig
from protclip.data.inputs import Input, find_inputs, release_of_all
from protclip.data.manifest import MANIFEST_NAME, TAXA_NAME, FileEntry, StrataManifest, StratumCount
from protclip.data.strata import (
    DUPLICATE,
    PARSED_SCHEMA,
    REFUSED_SCHEMA,
    Origin,
    parse_tables,
    totals,
    without_duplicates,
    write_parts,
)
from protclip.data.summary import add_stored, count_entries, summarise, taxa
from protclip.data.uniprot import Block, read_blocks
from protclip.errors import DataError
from protclip.progress import progress
from protclip.records import CONFIDENCE_LEVELS, NUM_PROPERTIES, REJECTED_SCHEMA
from protclip.tracking.base import Tracker

log = logging.getLogger(__name__)

REJECTED_NAME = "rejected.parquet"
TABLE_NAME = "strata"
BYTES_PER_CELL = 64 * 2**20
GZIP_RATIO = 5
RUNS = 2000
"""Every range is merged from all runs, so that many small runs mean many small reads."""
OWNED = (
    *(f"confidence={c}" for c in CONFIDENCE_LEVELS),
    REJECTED_NAME,
    TAXA_NAME,
    f"{TABLE_NAME}.md",
    f"{TABLE_NAME}.png",
)


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
class ReadFile:
    """A file that was read to its end; `offsets` are where its blocks begin."""

    offsets: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class MergedRange:
    """What one range of keys gave.

    Attributes:
        files: Parts written, with the counts of their stratum.
        levels_assumed: Entries kept whose confidence the source does not state.
        duplicates: Entries dropped.
        refused: URI of these, empty when there are none.
        counts: URI of what the entries kept are like, see `data.summary`.
    """

    files: tuple[tuple[FileEntry, StratumCount], ...]
    levels_assumed: int
    duplicates: int
    refused: str
    counts: str


def prepare(config: PrepareConfig) -> dict[str, object]:
    """Reads UniProtKB files and writes strata: parts, rejected entries, a table, a picture, a manifest.

    Every entry ends in a stratum or in `rejected.parquet`. Run again after an interruption it goes on:
    what is finished is kept, and the data set has the bytes it would have had.

    Returns:
        URI of strata and manifest, counts, and the MLflow run id.

    Raises:
        DataError: Inputs or output cannot be used, nothing is in the inputs, or more entries than
            allowed are unreadable.
    """
    inputs = find_inputs(config.inputs, config.format)
    release = release_of_all(inputs, config.release)
    output = Output(config.output, StrataManifest, OWNED, overwrite=config.overwrite)
    with (
        output.staging(_settings(config, inputs, release)) as journal,
        tracked(config, "prepare", journal) as tracker,
    ):
        connect()
        cells = min(MAX_CELLS, 1 + sum(i.num_bytes for i in inputs) // BYTES_PER_CELL)
        blocks = _parse_all(inputs, config, release, journal, cells)
        records = sum(b.records for b in blocks)
        rejected = sum((b.rejected for b in blocks), Counter())
        if not records + rejected.total():
            raise DataError(f"no entries in {', '.join(config.inputs)}; check that these are UniProtKB files")
        output.clear(journal)
        sources = [i.origin.uri for i in inputs]
        rejected_uri = storage.join(config.output, REJECTED_NAME)
        if rejected.total() > config.max_rejected_share * (records + rejected.total()):
            _write_rejected(rejected_uri, blocks, ())
            raise DataError(_too_many(rejected, records, config.max_rejected_share, rejected_uri))
        merged = _merge_all(blocks, sources, config, journal, records)
        _write_rejected(rejected_uri, blocks, [m.refused for m in merged if m.refused])
        rejected += Counter({DUPLICATE: sum(m.duplicates for m in merged)})
        counts = add_stored([m.counts for m in merged])
        organisms = taxa(counts)
        storage.write_parquet(storage.join(config.output, TAXA_NAME), organisms, max(1, len(organisms)))
        manifest = StrataManifest(
            release=release,
            inputs=tuple(sources),
            strata=totals(count for m in merged for _, count in m.files),
            files=tuple(sorted((file for m in merged for file, _ in m.files), key=lambda f: f.path)),
            rejected=dict(sorted(rejected.items())),
            missing_confidence=sum(m.levels_assumed for m in merged),
            summary=summarise(counts),
        )
        assert manifest.rows + rejected.total() == sum(b.records + b.rejected.total() for b in blocks)
        _publish(manifest, config.output, tracker)
        tracker.log_metrics({"data/entries": manifest.rows, "data/rejected": rejected.total()})
        output.check()
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


def _settings(config: PrepareConfig, inputs: Sequence[Input], release: str | None) -> dict[str, object]:
    """What decides what the intermediate files hold."""
    names = {"missing_confidence", "block_mb", "rows_per_file"}
    files = [(i.origin.uri, i.format, storage.version(i.origin.uri)) for i in inputs]
    return {**config.model_dump(mode="json", include=names), "release": release, "inputs": files}


def block_bytes(config: PrepareConfig, inputs: Sequence[Input]) -> int:
    """Size of a block: as configured, else such that there are some thousand runs to merge at most."""
    if config.block_mb is not None:
        return config.block_mb * 2**20
    text = GZIP_RATIO * sum(i.num_bytes for i in inputs)
    return min(max(text // RUNS, 64 * 2**20), 512 * 2**20)


def _parse_all(
    inputs: Sequence[Input], config: PrepareConfig, release: str | None, journal: Journal, cells: int
) -> list[ParsedBlock]:
    """Phase 1; the blocks in the order of the inputs."""
    done = {(b.input, b.offset): b for b in journal.done("parse", ParsedBlock).values()}
    read_files = journal.done("read", ReadFile)
    parse = partial(
        _parse,
        staging=journal.folder,
        release=release,
        missing_confidence=config.missing_confidence,
        cells=cells,
    )
    read = partial(
        _read, block_bytes=block_bytes(config, inputs), staging=journal.folder, done=frozenset(done)
    )
    blocks: list[ParsedBlock] = []
    num_bytes = num_rejected = 0
    with progress("parsing", " entries") as bar:
        fresh = run_stages(
            [i for i in inputs if not _is_done(i.origin.index, read_files, done)],
            Stage(read, num_cpus=0),
            Stage(parse),
            bytes_per_result=block_bytes(config, inputs),
        )
        for block in chain(done.values(), fresh):
            blocks.append(block)
            num_bytes += block.num_bytes
            num_rejected += block.rejected.total()
            bar.set_postfix_str(f"{num_bytes / 2**20:,.0f} MB, {num_rejected:,} rejected", refresh=False)
            bar.update(block.records + block.rejected.total())
    return sorted(blocks, key=lambda b: (b.input, b.offset))


def _is_done(index: int, read_files: Mapping[str, ReadFile], done: Container[tuple[int, int]]) -> bool:
    """Whether nothing is left to do of an input."""
    read = read_files.get(f"{index:06d}")
    return read is not None and all((index, offset) in done for offset in read.offsets)


def _read(
    file: Input, block_bytes: int, staging: str, done: frozenset[tuple[int, int]]
) -> Iterator[tuple[Origin, Block]]:
    """Task: the blocks of a file, one by one, without those that are parsed already."""
    offsets: list[int] = []
    for block in read_blocks(file.origin.uri, file.format, block_bytes):
        offsets.append(block.offset)
        if (file.origin.index, block.offset) not in done:
            yield file.origin, block
    keep(staging, "read", f"{file.origin.index:06d}", ReadFile(tuple(offsets)))


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
    records, refused = parse_tables(block, origin, release, missing_confidence)
    name = f"{origin.index:06d}-{block.offset:016d}"
    run = storage.join(staging, f"{name}.arrow") if len(records) else ""
    if run:
        write_run(run, records, "sampling_key", cells)
    result = ParsedBlock(
        input=origin.index,
        offset=block.offset,
        num_bytes=len(block.data),
        records=len(records),
        rejected=Counter(refused["reason"].to_pylist()),
        run=run,
        refused=_keep_refused(refused, storage.join(staging, f"{name}.refused.parquet")),
    )
    yield keep(staging, "parse", name, result)


def _keep_refused(refused: pa.Table, uri: str) -> str:
    """Stores rejections, if there are any, and returns where."""
    if not len(refused):
        return ""
    return storage.write_parquet(uri, refused, len(refused)).uri


def _merge_all(
    blocks: Sequence[ParsedBlock],
    sources: Sequence[str],
    config: PrepareConfig,
    journal: Journal,
    records: int,
) -> list[MergedRange]:
    """Phase 2."""
    ranges = ranges_for(records, config.rows_per_file)
    done = journal.done("merge", MergedRange)
    merge = partial(
        _merge,
        runs=[b.run for b in blocks if b.run],
        sources=sources,
        output=config.output,
        staging=journal.folder,
    )
    left = [keys for keys in ranges if f"{keys.index:06d}" not in done]
    with progress("writing strata", " ranges", len(ranges)) as bar:
        merged: list[MergedRange] = []
        for result in chain(done.values(), run_stages(left, Stage(merge))):
            merged.append(result)
            bar.update()
    return merged


def _merge(
    keys: KeyRange, *, runs: Sequence[str], sources: Sequence[str], output: str, staging: str
) -> Iterable[MergedRange]:
    """Task: one range of sampling keys becomes a part of each stratum."""
    entries = read_range(runs, keys, "sampling_key", PARSED_SCHEMA)
    rows, duplicates = without_duplicates(entries, sources)
    counts = count_entries(entries, rows)
    counts_uri = storage.join(staging, f"counts-{keys.index:06d}.parquet")
    result = MergedRange(
        files=tuple(write_parts(entries, rows, output, keys.index)),
        levels_assumed=int(entries["level_assumed"].to_numpy()[rows].sum()),
        duplicates=len(duplicates),
        refused=_keep_refused(duplicates, storage.join(staging, f"duplicates-{keys.index:06d}.parquet")),
        counts=storage.write_parquet(counts_uri, counts, max(1, len(counts))).uri,
    )
    yield keep(staging, "merge", f"{keys.index:06d}", result)


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
    # Workers import this module, but have no use for matplotlib.
    from protclip.data.picture import draw

    for reason, count in manifest.rejected.items():
        log.info("rejected: %s × %s", f"{count:,}", reason)
    if manifest.missing_confidence:
        log.info("no protein existence level stated, one assumed: %s", f"{manifest.missing_confidence:,}")
    title = "Entries by confidence C and coverage R"
    publish(
        TABLE_NAME,
        output,
        tracker,
        title=title,
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
        draw=partial(draw, title, [("entries", manifest.strata)]),
    )
