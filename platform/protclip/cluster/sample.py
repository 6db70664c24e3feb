"""Strata to pairs by property-driven sampling, on Ray Data.

Phase 1: one task per part of a stratum that can give pairs decides, tokenises, and writes one run per
split, sorted by the order hash. Phase 2: one task per range of order hashes and split merges the runs
into a shard. The pairs depend on the entries, the seed and the configuration alone, not on the parts'
files nor on the number of workers.
"""

import functools
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from protclip import storage
from protclip.cluster.output import Output, progress, publish, tracked
from protclip.cluster.session import connect
from protclip.cluster.shuffle import MAX_CELLS, KeyRange, ranges_for, read_range, write_run
from protclip.cluster.tasks import Stage, run_stages
from protclip.config.data import SampleConfig
from protclip.data.manifest import (
    MANIFEST_NAME,
    TOKENIZER_NAME,
    FileEntry,
    PairsManifest,
    SampledStratum,
    Split,
    StrataManifest,
    StratumCount,
    TokenizerEntry,
)
from protclip.data.pairs import TAKEN_COLUMNS, pairs_table
from protclip.data.sampling import SPLITS, StratumRate, keep, order_keys, split_indices, stratum_rates
from protclip.data.strata import read_entries, stratum_of, totals
from protclip.data.tokenizer import TextTokenizer
from protclip.errors import DataError
from protclip.records import NUM_PROPERTIES, PAIRS_SCHEMA, PROPERTIES
from protclip.tracking.base import Tracker

log = logging.getLogger(__name__)

TABLE_NAME = "sampling"
OWNED = (*SPLITS, TOKENIZER_NAME, f"{TABLE_NAME}.md", f"{TABLE_NAME}.png")
ORDER = "order"
RUN_SCHEMA = PAIRS_SCHEMA.append(pa.field(ORDER, pa.uint64(), nullable=False))
READ_COLUMNS = (*TAKEN_COLUMNS, *map(str, PROPERTIES), "reviewed")


@dataclass(frozen=True, slots=True)
class Part:
    """A file of strata that is not pruned."""

    index: int
    file: FileEntry
    rate: StratumRate


@dataclass(frozen=True, slots=True)
class SampledPart:
    """What a part gave.

    Attributes:
        index: Which part.
        rows: Its entries.
        kept: Pairs of the part's stratum.
        runs: URI and rows of the run of each split that got any.
    """

    index: int
    rows: int
    kept: StratumCount
    runs: Mapping[str, tuple[str, int]]


def sample(config: SampleConfig) -> dict[str, object]:
    """Draws pairs: shards per split, the tokenizer, a table, a picture, a manifest.

    Returns:
        URI of pairs and manifest, rows per split, and the MLflow run id.

    Raises:
        ConfigError: The target cannot be met, or the tokenizer cannot be had.
        DataError: The strata are missing or damaged, the output cannot be used, or nothing is left to
            train on.
    """
    source = StrataManifest.load(config.source)
    rates = {(r.before.confidence, r.before.coverage): r for r in stratum_rates(source.strata, config)}
    tokenizer = TextTokenizer.load(config.tokenizer)
    output = Output(config.output, PairsManifest, OWNED, overwrite=config.overwrite)
    with output.staging() as staging, tracked(config, "sample") as tracker:
        connect()
        parts = _parts(source, rates)
        expected = sum(r.expected for r in rates.values())
        cells = min(MAX_CELLS, 1 + int(expected) // config.rows_per_shard)
        sampled = _sample_all(parts, config, tokenizer.to_json(), staging, cells)
        runs = {split: [s.runs[split] for s in sampled if split in s.runs] for split in SPLITS}
        if not runs["train"]:
            raise DataError(
                f"{config.source}: no training pairs are left of {source.rows} entries; raise target_pairs, "
                "or widen max_confidence and min_coverage"
            )
        output.clear()
        splits = _merge_all(runs, config)
        storage.write_bytes(storage.join(config.output, TOKENIZER_NAME), tokenizer.to_json().encode())
        manifest = PairsManifest(
            source=config.source,
            source_manifest_sha256=StrataManifest.digest(config.source),
            seed=config.seed,
            evidence=config.evidence,
            tokenizer=TokenizerEntry(
                source=config.tokenizer, fingerprint=tokenizer.fingerprint, vocab_size=tokenizer.vocab_size
            ),
            strata=_sampled_strata(rates.values(), [s.kept for s in sampled]),
            splits=splits,
        )
        assert manifest.rows == sum(s.after.total for s in manifest.strata)
        _publish(manifest, rates.values(), config.output, tracker)
        tracker.log_metrics({f"data/{name}": split.rows for name, split in splits.items()})
        manifest.save(config.output)
        tracker.log_text(manifest.model_dump_json(indent=2), f"data/{MANIFEST_NAME}")
        tracker.set_tags({"data_manifest": PairsManifest.digest(config.output), "data": config.output})
    return {
        "pairs": config.output,
        "manifest": storage.join(config.output, MANIFEST_NAME),
        "rows": {name: split.rows for name, split in splits.items()},
        "expected": round(expected, 1),
        "run_id": tracker.run_id,
    }


def _parts(source: StrataManifest, rates: Mapping[tuple[int, int], StratumRate]) -> list[Part]:
    """The files that can give pairs."""
    return [
        Part(index, file, rate)
        for index, file in enumerate(source.files)
        if (rate := rates[stratum_of(file.path)]).expected > 0
    ]


def _sample_all(
    parts: Sequence[Part], config: SampleConfig, tokenizer_json: str, staging: str, cells: int
) -> list[SampledPart]:
    """Phase 1; the results in the order of the parts."""
    run = functools.partial(
        _sample_part, config=config, tokenizer_json=tokenizer_json, staging=staging, cells=cells
    )
    results: list[SampledPart] = []
    num_pairs = 0
    with progress("sampling", " entries", sum(part.file.rows for part in parts)) as bar:
        for result in run_stages(parts, Stage(run)):
            results.append(result)
            num_pairs += result.kept.total
            bar.set_postfix_str(f"{num_pairs:,} pairs", refresh=False)
            bar.update(result.rows)
    return sorted(results, key=lambda result: result.index)


def _sample_part(
    part: Part, *, config: SampleConfig, tokenizer_json: str, staging: str, cells: int
) -> Iterable[SampledPart]:
    """Task: one part of a stratum becomes a run per split."""
    encode = _tokenizer(tokenizer_json).encode
    rate = part.rate
    pieces = [PAIRS_SCHEMA.empty_table()]
    reviewed = unreviewed = 0
    wanted = {"reviewed": rate.reviewed > 0, "unreviewed": rate.unreviewed > 0}
    for entries in read_entries(config.source, part.file, READ_COLUMNS, **wanted):
        is_reviewed = entries["reviewed"].to_numpy()
        rates = np.where(is_reviewed, rate.reviewed, rate.unreviewed)
        chosen = keep(entries["sampling_key"].to_numpy(), rates, config.seed)
        reviewed += int((chosen & is_reviewed).sum())
        unreviewed += int((chosen & ~is_reviewed).sum())
        pieces.append(
            pairs_table(entries.filter(pa.array(chosen)), encode, config.evidence, config.max_text_tokens)
        )
    pairs = pa.concat_tables(pieces)
    keys = pairs["sampling_key"].to_numpy()
    pairs = pairs.append_column(RUN_SCHEMA.field(ORDER), pa.array(order_keys(keys, config.seed)))
    indices = split_indices(keys, config.seed, config.valid_share, config.test_share)
    runs: dict[str, tuple[str, int]] = {}
    for index, split in enumerate(SPLITS):
        rows = np.flatnonzero(indices == index)
        if rows.size:
            uri = storage.join(staging, split, f"{part.index:06d}.arrow")
            write_run(uri, pairs.take(pa.array(rows)), ORDER, cells)
            runs[split] = uri, len(rows)
    before = rate.before
    kept = StratumCount(
        confidence=before.confidence, coverage=before.coverage, reviewed=reviewed, unreviewed=unreviewed
    )
    yield SampledPart(part.index, part.file.rows, kept, runs)


@functools.lru_cache(maxsize=1)
def _tokenizer(text: str) -> TextTokenizer:
    """The tokenizer of a worker process, built once."""
    return TextTokenizer.from_json(text)


def _merge_all(runs: Mapping[str, Sequence[tuple[str, int]]], config: SampleConfig) -> dict[str, Split]:
    """Phase 2; every split is there, an empty one without files."""
    items = [
        (split, keys)
        for split in SPLITS
        for keys in ranges_for(sum(rows for _, rows in runs[split]), config.rows_per_shard)
    ]
    merge = functools.partial(
        _merge,
        runs={split: [uri for uri, _ in runs[split]] for split in SPLITS},
        output=config.output,
        row_group_rows=config.row_group_rows,
    )
    files: dict[str, list[FileEntry]] = {split: [] for split in SPLITS}
    with progress("writing pairs", " shards", len(items)) as bar:
        for split, file in run_stages(items, Stage(merge)):
            if file is not None:
                files[split].append(file)
            bar.update()
    return {
        split: Split(rows=sum(f.rows for f in found), files=tuple(sorted(found, key=lambda f: f.path)))
        for split, found in files.items()
    }


def _merge(
    item: tuple[str, KeyRange], *, runs: Mapping[str, Sequence[str]], output: str, row_group_rows: int
) -> Iterable[tuple[str, FileEntry | None]]:
    """Task: one range of the order becomes a shard."""
    split, keys = item
    pairs = read_range(runs[split], keys, ORDER, RUN_SCHEMA)
    if not len(pairs):
        yield split, None
        return
    pairs = pairs.sort_by([(ORDER, "ascending"), ("accession", "ascending")]).drop_columns(ORDER)
    path = f"{split}/shard-{keys.index:05d}.parquet"
    stored = storage.write_parquet(storage.join(output, path), pairs, row_group_rows)
    yield split, FileEntry.of(path, stored, len(pairs), row_group_rows)


def _sampled_strata(rates: Iterable[StratumRate], kept: Iterable[StratumCount]) -> tuple[SampledStratum, ...]:
    """Counts before and after, per stratum."""
    after = {(count.confidence, count.coverage): count for count in totals(kept)}
    return tuple(
        SampledStratum(
            confidence=rate.before.confidence,
            coverage=rate.before.coverage,
            rate=rate.unreviewed,
            before=rate.before,
            after=after[rate.before.confidence, rate.before.coverage],
        )
        for rate in rates
    )


def _publish(manifest: PairsManifest, rates: Iterable[StratumRate], output: str, tracker: Tracker) -> None:
    """Shows and keeps the entries before and after."""
    columns = ("C", "R", "entries", "Swiss-Prot", "rate", "expected", "pairs", "Swiss-Prot pairs", "share")
    publish(
        TABLE_NAME,
        output,
        tracker,
        title="Property-driven sampling by confidence C and coverage R",
        columns=columns,
        rows=[
            (
                str(s.confidence),
                f"{s.coverage}/{NUM_PROPERTIES}",
                f"{s.before.total:,}",
                f"{s.before.reviewed:,}",
                f"{s.rate:.4g}",
                f"{rate.expected:,.1f}",
                f"{s.after.total:,}",
                f"{s.after.reviewed:,}",
                f"{s.after.total / manifest.rows:.2%}",
            )
            for s, rate in zip(manifest.strata, rates, strict=True)
        ],
        panels=[
            ("before", [s.before for s in manifest.strata]),
            ("after", [s.after for s in manifest.strata]),
        ],
    )
