"""Strata or pairs to embeddings and protein-text consistency, on Ray Data.

Workers load the checkpoint once and take file after file of the source. Of each they write one file with
the same path and the same order of rows, so that whoever joins them reads the two side by side. What is
computed of an entry does not depend on its neighbours in a batch up to rounding: with the same settings
the bytes are equal whatever the number of workers, with other batches or devices a float32 cosine moves by
less than 1e-4 (bf16: 1e-2).
"""

import logging
from functools import partial
from itertools import chain

from protclip import checkpoint, storage
from protclip.checkpoint import Meta
from protclip.cluster.embed_file import STAGE, EmbeddedFile, FileEmbedder, Source, journal_name, schema_of
from protclip.cluster.journal import Journal
from protclip.cluster.output import Output, publish, tracked
from protclip.cluster.room import Need, await_room, places
from protclip.cluster.session import connect, has_gpu
from protclip.cluster.tasks import Workers, run_stages
from protclip.config.schema import EmbedConfig, PretrainConfig
from protclip.data import consistency
from protclip.data.biotext import Evidence
from protclip.data.manifest import (
    MANIFEST_NAME,
    EmbeddingsManifest,
    FileEntry,
    PairsManifest,
    load_manifest,
)
from protclip.data.sampling import SPLITS
from protclip.data.strata import stratum_of
from protclip.data.tokenizer import TextTokenizer
from protclip.errors import ConfigError, DataError
from protclip.progress import progress
from protclip.records import CONFIDENCE_LEVELS
from protclip.tracking.base import Tracker

log = logging.getLogger(__name__)

TABLE_NAME = "consistency"
TITLE = "Protein-text cosine by confidence C and coverage R"
OWNED = (
    *(f"confidence={c}" for c in CONFIDENCE_LEVELS),
    *SPLITS,
    f"{TABLE_NAME}.md",
    f"{TABLE_NAME}.png",
)


def embed(config: EmbedConfig) -> dict[str, object]:
    """Writes a file of embeddings or scores per file of the source, a manifest, and of scores a summary.

    Run again after an interruption it goes on: files that are finished are kept.

    Returns:
        URI of embeddings and manifest, entries, mean cosine by C, and the MLflow run id.

    Raises:
        CheckpointError: The checkpoint cannot be used.
        ConfigError: How the texts of training were made is unknown, or the cluster has no room for a worker.
        DataError: The source is missing, damaged, or tokenised for another checkpoint; nothing in it is
            wanted; or the output cannot be used.
    """
    uri = checkpoint.resolve(config.checkpoint)
    meta, trained = checkpoint.peek(uri)
    source = find_source(config, uri, meta, trained)
    output = Output(config.output, EmbeddingsManifest, OWNED, overwrite=config.overwrite)
    digest = storage.sha256(storage.join(uri, checkpoint.META))
    settings = _settings(config, source, digest)
    with output.staging(settings) as journal, tracked(config, "embed", journal) as tracker:
        connect()
        output.clear(journal)
        embedded = _embed_all(config, source, uri, journal)
        manifest = EmbeddingsManifest(
            source=config.source,
            source_manifest_sha256=source.sha256,
            checkpoint=uri,
            checkpoint_sha256=digest,
            step=meta.step,
            evidence=source.evidence,
            columns=tuple(schema_of(config, trained.model.projection_dim).names),
            dim=trained.model.projection_dim,
            consistency=consistency.by_stratum(chain.from_iterable(e.counts for e in embedded)),
            files=tuple(e.file for e in embedded),
        )
        if not manifest.rows:
            raise DataError(_nothing(config))
        levels = consistency.by_confidence(manifest.consistency)
        if levels:
            _publish(manifest, config.output, tracker)
        tracker.log_metrics({"data/entries": manifest.rows})
        output.check()
        manifest.save(config.output)
        tracker.log_text(manifest.model_dump_json(indent=2), f"data/{MANIFEST_NAME}")
        tags = {"data": config.output, "checkpoint": uri}
        tracker.set_tags({**tags, "data_manifest": EmbeddingsManifest.digest(config.output)})
    return {
        "embeddings": config.output,
        "manifest": storage.join(config.output, MANIFEST_NAME),
        "rows": manifest.rows,
        "consistency": {f"C={level.confidence}": round(level.mean, 6) for level in levels},
        "run_id": tracker.run_id,
    }


def find_source(config: EmbedConfig, uri: str, meta: Meta, trained: PretrainConfig) -> Source:
    """Looks at strata or pairs, and at how the checkpoint's training texts were made.

    Args:
        config: What is wanted.
        uri: The checkpoint.
        meta: What it says of itself.
        trained: The configuration it was trained with.

    Raises:
        ConfigError: That is unknown.
        DataError: There is no such source, nothing in it is wanted, or another tokenizer made it.
    """
    source = load_manifest(config.source)
    if isinstance(source, PairsManifest):
        tokenizer = checkpoint.read_text(uri, meta, checkpoint.TOKENIZER)
        fingerprint = TextTokenizer.from_json(tokenizer).fingerprint
        if source.tokenizer.fingerprint != fingerprint:
            raise DataError(
                f"{config.source}: tokenised with {source.tokenizer.source!r} "
                f"({source.tokenizer.fingerprint[:12]}), but the checkpoint reads {fingerprint[:12]}; sample "
                "with the checkpoint's tokenizer, or embed the strata"
            )
        files = [file for split in SPLITS for file in source.splits[split].files]
        evidence, max_text_tokens = source.evidence, source.max_text_tokens
    else:
        files = [file for file in source.files if _is_wanted(file, config)]
        evidence, max_text_tokens = _text_rules(config, uri, meta, trained)
    if not any(file.rows for file in files):
        raise DataError(_nothing(config))
    tokenised = isinstance(source, PairsManifest)
    return Source(source.digest(config.source), tuple(files), tokenised, evidence, max_text_tokens)


def _is_wanted(file: FileEntry, config: EmbedConfig) -> bool:
    """Whether a file's stratum is."""
    confidence, coverage = stratum_of(file.path)
    return confidence <= config.max_confidence and coverage >= config.min_coverage


def _nothing(config: EmbedConfig) -> str:
    """Why there is nothing to do."""
    return (
        f"{config.source}: no entries with C <= {config.max_confidence} and at least "
        f"{config.min_coverage} properties; widen max_confidence and min_coverage"
    )


def _text_rules(config: EmbedConfig, uri: str, meta: Meta, trained: PretrainConfig) -> tuple[Evidence, int]:
    """Evidence and most tokens of a property, as in the pairs the checkpoint was trained on."""
    try:
        pairs = PairsManifest.load(trained.data)
        if PairsManifest.digest(trained.data) != meta.data_manifest:
            raise DataError(f"{trained.data}: other pairs than those of the training")
    except DataError as error:
        if config.evidence is None:
            raise ConfigError(
                f"{uri}: how its training texts were made is unknown, for its pairs are gone ({error}); "
                "give evidence=strip or evidence=keep"
            ) from error
        return config.evidence, trained.model.text.max_tokens
    return config.evidence or pairs.evidence, pairs.max_text_tokens


def _settings(config: EmbedConfig, source: Source, checkpoint_sha256: str) -> dict[str, object]:
    """What decides what the files hold."""
    names = {"what", "embedding_type", "max_confidence", "min_coverage"}
    names |= {"batch_size", "batch_tokens", "precision"}
    return {
        **config.model_dump(mode="json", include=names),
        "source": source.sha256,
        "evidence": source.evidence,
        "max_text_tokens": source.max_text_tokens,
        "checkpoint": checkpoint_sha256,
    }


def _embed_all(config: EmbedConfig, source: Source, uri: str, journal: Journal) -> list[EmbeddedFile]:
    """The files in the order of the source."""
    done = journal.done(STAGE, EmbeddedFile)
    items = [(i, file) for i, file in enumerate(source.files) if journal_name(i) not in done]
    # The longest work first, so that no worker is left alone with it at the end.
    items.sort(key=lambda item: -item[1].rows)
    embedded = {int(name): result for name, result in done.items()}
    with progress("embedding", " entries", sum(file.rows for file in source.files)) as bar:
        bar.n = bar.initial = sum(e.source_rows for e in embedded.values())
        prepare = partial(FileEmbedder, config, source, uri, journal.folder)
        for result in run_stages(items, _workers(config, prepare, len(items))):
            if isinstance(result, int):
                bar.update(result)
            else:
                index, embedded[index] = result
    return [embedded[index] for index in range(len(source.files))]


def _workers(config: EmbedConfig, prepare: "partial[FileEmbedder]", most: int) -> Workers:
    """As many workers as are wanted, have room, and find work.

    Raises:
        ConfigError: There is room for none.
    """
    gpus = config.gpus_per_worker
    if gpus is None:
        gpus = float(has_gpu())
    each = {"CPU": config.cpus_per_worker, "GPU": gpus}
    await_room(Need(1, each, "lower cpus_per_worker or gpus_per_worker"))
    count = min(most, config.num_workers or places(each))
    return Workers(prepare, count, config.cpus_per_worker, gpus)


def _publish(manifest: EmbeddingsManifest, output: str, tracker: Tracker) -> None:
    """Shows and keeps the cosines by stratum, and whether they fall as C rises."""
    counts = manifest.consistency
    publish(
        TABLE_NAME,
        output,
        tracker,
        title=TITLE,
        columns=consistency.COLUMNS,
        rows=consistency.table_rows(counts),
        draw=partial(consistency.draw, TITLE, counts),
    )
    metrics = {f"consistency/C{level.confidence}": level.mean for level in consistency.by_confidence(counts)}
    correlation = consistency.correlation(counts)
    if correlation is not None:
        metrics["consistency/correlation_with_C"] = correlation
        word = "falls" if correlation < 0 else "does not fall"
        log.info("the cosine of protein and text %s as C rises: correlation %.3f", word, correlation)
    tracker.log_metrics(metrics)
