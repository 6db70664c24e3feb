"""Strata to pairs by property-driven sampling, on Ray Data.

First, where it is asked for: tables are joined and the strata surveyed (`join`, `survey`). Then one task per
part of the strata decides, tokenises, and writes one run per split, sorted by the order hash (`draw`), and
one task per shard merges the runs (`shards`). The pairs depend on the entries, the seed and the configuration
alone, not on the parts' files nor on the number of workers.
"""

import functools
import hashlib
import logging
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import ray

from protclip import storage
from protclip.cluster.draw import Draw, draw_all, split_samples
from protclip.cluster.join import find_files, join
from protclip.cluster.journal import Journal
from protclip.cluster.output import Output, publish, tracked
from protclip.cluster.session import connect
from protclip.cluster.shards import write_shards
from protclip.cluster.shuffle import MAX_CELLS
from protclip.cluster.survey import EPOCH, Judge, Part, find_facts, find_population, packed
from protclip.config.data import SampleConfig
from protclip.data.families import content_ids
from protclip.data.law import Law, StratumRate, solved_scale, stratum_population, stratum_rates
from protclip.data.manifest import (
    FURTHER_TRAIN,
    MANIFEST_NAME,
    TOKENIZER_NAME,
    Drawing,
    Excluded,
    PairsManifest,
    SampledStratum,
    StrataManifest,
    StratumCount,
    TokenizerEntry,
)
from protclip.data.sampling import FACTORS, SPLITS, active
from protclip.data.strata import stratum_of
from protclip.data.summary import add_stored, summarise
from protclip.data.tokenizer import TextTokenizer
from protclip.errors import DataError
from protclip.records import NUM_PROPERTIES
from protclip.tracking.base import Tracker

log = logging.getLogger(__name__)

TABLE_NAME = "sampling"
SYMBOLS = {"confidence": "C", "coverage": "R"}
PAIRS_PER_TASK = 65_536
ROWS_PER_TASK = 2_000_000
CELLS_PER_SHARD = 4


def sample(config: SampleConfig, conf_dir: Path = Path("conf")) -> dict[str, object]:
    """Draws pairs: shards per split, the tokenizer, a table, a picture, a manifest.

    Run again after an interruption it goes on: what is finished is kept, and the data set has the bytes it
    would have had.

    Args:
        config: What to draw.
        conf_dir: Directory with `benchmarks/*.yaml`, for what is to be excluded.

    Returns:
        URI of pairs and manifest, rows per split, and the MLflow run id.

    Raises:
        BenchmarkError: A benchmark's file or data is wrong.
        ConfigError: The target cannot be met, or the tokenizer or a table cannot be had.
        DataError: The strata or a table are missing or damaged, the output cannot be used, or nothing is
            left to train on.
    """
    source = StrataManifest.load(config.source)
    judge = Judge(config.source, Law.of(config), active(config.sampling.exponents))
    if not judge.exponents:
        # Refuses a target out of reach before any work; with entries' own factors only a survey can tell.
        solved_scale(source.strata, stratum_population(source.strata, judge.law), config)
    tokenizer = TextTokenizer.load(config.tokenizer)
    tables = _tables(config)
    excluded = _excluded(config, conf_dir)
    output = Output(config.output, PairsManifest, _owned(config), overwrite=config.overwrite)
    settings = _settings(config, tokenizer, tables, excluded)
    with output.staging(settings) as journal, tracked(config, "sample", journal) as tracker:
        connect()
        judge = replace(judge, tables={kind: join(kind, uri, journal) for kind, uri in tables.items()})
        judge, rates, drawing = _solved(judge, source, config, journal)
        expected = sum(rate.expected for rate in rates)
        cells = min(MAX_CELLS, 1 + CELLS_PER_SHARD * int(expected) // config.rows_per_shard)
        draw = Draw(judge, config, tokenizer.to_json(), excluded, cells, journal.folder)
        drawn, runs = draw_all(_parts(source, judge, rates, config), draw, journal)
        if not runs["train"].rows:
            raise DataError(
                f"{config.source}: no training pairs are left of {source.rows} entries; raise target_pairs, "
                "or widen sampling.max_confidence and sampling.min_coverage"
            )
        output.clear(journal)
        splits, counts = write_shards(runs, config, journal)
        storage.write_bytes(storage.join(config.output, TOKENIZER_NAME), tokenizer.to_json().encode())
        manifest = PairsManifest(
            source=config.source,
            source_manifest_sha256=StrataManifest.digest(config.source),
            seed=config.seed,
            evidence=config.evidence,
            max_text_tokens=config.max_text_tokens,
            tokenizer=TokenizerEntry(
                source=config.tokenizer, fingerprint=tokenizer.fingerprint, vocab_size=tokenizer.vocab_size
            ),
            strata=_sampled_strata(rates, drawn.kept),
            splits={split: splits[split] for split in SPLITS},
            resamples=tuple(found for split, found in splits.items() if split not in SPLITS),
            drawing=drawing.model_copy(update={"corrupted": drawn.corrupted, "ungrouped": drawn.ungrouped}),
            excluded=Excluded(total=drawn.num_excluded, benchmarks=dict(drawn.excluded)),
            summary=summarise(add_stored(counts)),
        )
        assert manifest.rows == sum(s.after.total for s in manifest.strata)
        _publish(manifest, config.output, tracker)
        tracker.log_metrics({f"data/{name}": split.rows for name, split in splits.items()})
        output.check()
        manifest.save(config.output)
        tracker.log_text(manifest.model_dump_json(indent=2), f"data/{MANIFEST_NAME}")
        tracker.set_tags({"data_manifest": PairsManifest.digest(config.output), "data": config.output})
    return {
        "pairs": config.output,
        "manifest": storage.join(config.output, MANIFEST_NAME),
        "rows": {name: split.rows for name, split in splits.items()},
        "expected": round(expected, 1),
        "excluded": drawn.num_excluded,
        "run_id": tracker.run_id,
    }


def _tables(config: SampleConfig) -> dict[str, str]:
    """The tables that are needed, by kind."""
    exponents = config.sampling.exponents
    tables = {}
    if config.clusters is not None and (config.splits.by == "cluster" or exponents.family):
        tables["clusters"] = config.clusters
    if config.consistency is not None and exponents.consistency:
        tables["consistency"] = config.consistency
    return tables


def _excluded(config: SampleConfig, conf_dir: Path) -> dict[str, np.ndarray]:
    """Identities of the test sequences of the benchmarks, sorted."""
    if not (config.exclude.enabled and config.exclude.benchmarks):
        return {}
    # Workers import this module, but have no use for torch.
    from protclip.evaluation.leaks import held_out_sequences

    found = held_out_sequences(config.exclude.benchmarks, config.exclude.data_root, conf_dir)
    return {name: np.unique(content_ids(pa.array(texts, pa.string()))) for name, texts in found.items()}


def _owned(config: SampleConfig) -> list[str]:
    """What may lie beside the manifest, further samples of an earlier data set included."""
    names = [*split_samples(config.sampling.epochs), TOKENIZER_NAME, f"{TABLE_NAME}.md", f"{TABLE_NAME}.png"]
    if storage.exists(config.output):
        prefix = config.output.rstrip("/") + "/"
        found = {
            file.uri.removeprefix(prefix).partition("/")[0] for file in storage.list_files(config.output)
        }
        names += sorted(name for name in found if name.startswith(FURTHER_TRAIN))
    return [*dict.fromkeys(names)]


def _settings(
    config: SampleConfig,
    tokenizer: TextTokenizer,
    tables: dict[str, str],
    excluded: dict[str, np.ndarray],
) -> dict[str, object]:
    """What decides what the intermediate files hold."""
    files = {kind: [(f, storage.version(f)) for f in find_files(kind, uri)] for kind, uri in tables.items()}
    return {
        **config.model_dump(mode="json", exclude={"output", "overwrite", "tracking"}),
        "strata": StrataManifest.digest(config.source),
        "tokenizer": tokenizer.fingerprint,
        "tables": files,
        "excluded": {name: hashlib.sha256(ids.tobytes()).hexdigest() for name, ids in excluded.items()},
    }


def _solved(
    judge: Judge, source: StrataManifest, config: SampleConfig, journal: Journal
) -> tuple[Judge, tuple[StratumRate, ...], Drawing]:
    """The judge with its scale and facts, the rates of the strata, and how it all came about."""
    sampling, missing = config.sampling, {}
    if judge.exponents:
        facts, missing = find_facts(judge, source, sampling.dated, journal)
        if "date" in judge.exponents:
            sampling = sampling.model_copy(
                update={"dated": EPOCH.fromordinal(EPOCH.toordinal() + facts.dated)}
            )
        judge = replace(judge, facts=ray.put(facts))
        population = find_population(judge, source, journal)
    else:
        population = stratum_population(source.strata, judge.law)
    scale = solved_scale(source.strata, population, config)
    drawing = Drawing(
        sampling=sampling,
        scale=scale,
        missing=missing,
        splits=config.splits,
        tables={kind: table.entry for kind, table in judge.tables.items()},
    )
    judge = replace(judge, law=replace(judge.law, scale=scale))
    return judge, stratum_rates(source.strata, population, scale, config), drawing


def _parts(
    source: StrataManifest, judge: Judge, rates: Iterable[StratumRate], config: SampleConfig
) -> list[Part]:
    """The files that can give pairs, in parts of about as many pairs as a task holds."""
    shares = {
        (rate.before.confidence, rate.before.coverage): rate.expected / max(1, rate.before.total)
        for rate in rates
    }
    files = [file for file in source.files if any(judge.wanted(file).values())]
    sizes = [
        max(
            file.rows * min(1.0, config.sampling.epochs * shares[stratum_of(file.path)]) / PAIRS_PER_TASK,
            file.rows / ROWS_PER_TASK,
        )
        for file in files
    ]
    return packed(files, sizes, 1.0)


def _sampled_strata(rates: Sequence[StratumRate], kept: Iterable[StratumCount]) -> tuple[SampledStratum, ...]:
    """Counts before and after, per stratum."""
    after = {(count.confidence, count.coverage): count for count in kept}
    return tuple(
        SampledStratum(
            confidence=rate.before.confidence,
            coverage=rate.before.coverage,
            rate=rate.unreviewed,
            reviewed_rate=rate.reviewed,
            before=rate.before,
            after=after[rate.before.confidence, rate.before.coverage],
        )
        for rate in rates
    )


def _publish(manifest: PairsManifest, output: str, tracker: Tracker) -> None:
    """Shows and keeps the entries before and after, and what else there is to know of the draw."""
    # Workers import this module, but have no use for matplotlib.
    from protclip.data.picture import draw

    title = f"Property-driven sampling by confidence C and coverage R: {_formula(manifest.drawing)}"
    panels = [
        ("before", [s.before for s in manifest.strata]),
        ("expected", [_rounded(s) for s in manifest.strata]),
        ("after", [s.after for s in manifest.strata]),
    ]
    columns = ("C", "R", "entries", "Swiss-Prot", "rate", "expected", "pairs", "Swiss-Prot pairs", "share")
    publish(
        TABLE_NAME,
        output,
        tracker,
        title=title,
        columns=columns,
        rows=[
            (
                str(s.confidence),
                f"{s.coverage}/{NUM_PROPERTIES}",
                f"{s.before.total:,}",
                f"{s.before.reviewed:,}",
                f"{s.rate:.4g}" if s.before.unreviewed else "–",
                f"{s.expected:,.1f}",
                f"{s.after.total:,}",
                f"{s.after.reviewed:,}",
                f"{s.after.total / manifest.rows:.2%}",
            )
            for s in manifest.strata
        ],
        draw=functools.partial(draw, title, panels),
        notes=_notes(manifest),
    )


def _formula(drawing: Drawing) -> str:
    """The weight of an entry in a line."""
    factors = active(drawing.sampling.exponents, tuple(FACTORS))
    powers = [f"{SYMBOLS.get(name, name)}^{exponent:g}" for name, exponent in factors.items()]
    scale = [f"{drawing.scale:.4g}"] if drawing.scale != 1 else []
    return " · ".join([*scale, *powers]) or "1"


def _rounded(stratum: SampledStratum) -> StratumCount:
    """What a stratum was expected to give, for the picture."""
    before = stratum.before
    return before.model_copy(
        update={
            "reviewed": round(before.reviewed * stratum.reviewed_rate),
            "unreviewed": round(before.unreviewed * stratum.rate),
        }
    )


def _notes(manifest: PairsManifest) -> list[str]:
    """What the table of strata does not tell."""
    drawing, excluded = manifest.drawing, manifest.excluded
    splits = ", ".join(f"{name} {split.rows:,}" for name, split in manifest.splits.items())
    notes = [f"pairs: {splits}, split by {drawing.splits.by}"]
    if manifest.resamples:
        rows = ", ".join(f"{split.rows:,}" for split in manifest.resamples)
        notes.append(f"further training samples of the same law: {rows}")
    notes += [
        f"{count:,} entries state nothing for {name} and count as the median"
        for name, count in drawing.missing.items()
        if count
    ]
    if drawing.ungrouped:
        notes.append(f"{drawing.ungrouped:,} pairs without {drawing.splits.by}: split by their sequence")
    if drawing.sampling.corrupt_confidence:
        share = drawing.sampling.corrupt_confidence
        notes.append(
            f"{drawing.corrupted:,} entries drawn by a false confidence (corrupt_confidence={share:g})"
        )
    notes += [
        f"{kind} from {table.uri}: {table.rows:,} accessions, {table.unreadable:,} unreadable rows, "
        f"{table.repeated:,} repeated"
        for kind, table in drawing.tables.items()
    ]
    if excluded.benchmarks:
        parts = ", ".join(f"{name} {count:,}" for name, count in excluded.benchmarks.items())
        notes.append(f"{excluded.total:,} entries left out because their sequence is tested on: {parts}")
    return notes
