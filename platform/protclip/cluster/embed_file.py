"""One file of strata or pairs to one file of embeddings or scores: what a worker of `embed` does."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pyarrow as pa
import torch

from protclip import storage
from protclip.cluster.journal import keep
from protclip.config.schema import EmbedConfig
from protclip.data import consistency
from protclip.data.biotext import Evidence
from protclip.data.lookahead import LookAhead
from protclip.data.manifest import ConsistencyCount, FileEntry
from protclip.data.pairs import TAKEN_COLUMNS, biotext_tokens, pairs_table
from protclip.errors import ConfigError
from protclip.evaluation.embed import Embedder
from protclip.records import PROPERTIES

STAGE = "embed"
CHUNK_ROWS = 8192
"""Rows sorted by length together: enough for little padding, and the bound of a worker's memory."""


@dataclass(frozen=True, slots=True)
class Source:
    """What is embedded.

    Attributes:
        sha256: Digest of its manifest.
        files: The files that can hold entries that are wanted, in the manifest's order.
        tokenised: Whether it holds token lists (pairs), not texts (strata).
        evidence: How the texts are made.
        max_text_tokens: Most tokens of one property.
    """

    sha256: str
    files: tuple[FileEntry, ...]
    tokenised: bool
    evidence: Evidence
    max_text_tokens: int


@dataclass(frozen=True, slots=True)
class EmbeddedFile:
    """What a file of the source gave.

    Attributes:
        source_rows: Its rows.
        file: The file written.
        counts: Cosines per stratum, when they were asked for.
    """

    source_rows: int
    file: FileEntry
    counts: tuple[ConsistencyCount, ...]


def schema_of(config: EmbedConfig, dim: int) -> pa.Schema:
    """Columns of the files, as they were asked for; embeddings of `dim` numbers."""
    embedding = pa.list_(pa.float16() if config.embedding_type == "float16" else pa.float32(), dim)
    optional = {
        "consistency": pa.field("consistency", pa.float32(), nullable=False),
        "protein": pa.field("protein_embedding", embedding, nullable=False),
        "text": pa.field("text_embedding", embedding, nullable=False),
    }
    return pa.schema(
        [
            pa.field("accession", pa.string(), nullable=False),
            pa.field("sampling_key", pa.uint64(), nullable=False),
            *(field for name, field in optional.items() if name in config.what),
        ]
    )


def journal_name(index: int) -> str:
    """What the journal calls the index-th file of the source."""
    return f"{index:06d}"


class FileEmbedder:
    """Embeds file after file with one model.

    Args:
        config: What to do.
        source: What to embed.
        checkpoint: URI of the checkpoint.
        journal: Folder for the results.

    Raises:
        CheckpointError: The checkpoint is damaged.
    """

    def __init__(self, config: EmbedConfig, source: Source, checkpoint: str, journal: str) -> None:
        self._config = config
        self._source = source
        self._journal = journal
        # The order of a sum, and so its last bit, is that of the threads.
        torch.set_num_threads(config.cpus_per_worker)
        self._embedder = Embedder.from_checkpoint(
            checkpoint,
            batch_size=config.batch_size,
            batch_tokens=config.batch_tokens,
            precision=config.precision,
        )
        self._schema = schema_of(config, self._embedder.dim)
        self._needs_protein = not {"protein", "consistency"}.isdisjoint(config.what)
        self._needs_text = not {"text", "consistency"}.isdisjoint(config.what)

    def __call__(self, item: tuple[int, FileEntry]) -> Iterator[int | tuple[int, EmbeddedFile]]:
        """Yields how many more rows are done, again and again, and at the end the result.

        Args:
            item: The file and which one of the source it is.

        Raises:
            ConfigError: A batch does not fit into the device's memory.
            DataError: The file is damaged, or the new one cannot be written.
        """
        index, file = item
        groups = storage.RowGroups(
            storage.join(self._config.source, file.path), file.num_bytes, file.row_groups
        )
        chunks = _chunks(file.row_groups)
        counts: list[ConsistencyCount] = []
        rows: list[int] = []
        # The next rows are read and put into tokens while these are computed.
        ahead = LookAhead(iter(chunks), partial(self._read, groups), len, 2, len(file.row_groups))
        uri = storage.join(self._config.output, file.path)
        with ahead, storage.parquet_writer(uri, self._schema) as (writer, sink):
            for chunk in chunks:
                pairs = ahead.get(chunk)
                if len(pairs):
                    columns = self._embed(pairs)
                    writer.write_table(pa.table(columns, self._schema), len(pairs))
                    rows.append(len(pairs))
                    if "consistency" in columns:
                        confidence, coverage = (pairs[n].to_numpy() for n in ("confidence", "coverage"))
                        cosines = columns["consistency"].to_numpy()
                        counts.extend(consistency.count(confidence, coverage, cosines))
                yield sum(file.row_groups[i] for i in chunk)
        stored = sink.stored
        assert stored is not None
        entry = FileEntry(
            path=file.path,
            rows=sum(rows),
            row_groups=tuple(rows),
            num_bytes=stored.num_bytes,
            sha256=stored.sha256,
        )
        result = EmbeddedFile(file.rows, entry, consistency.by_stratum(counts))
        yield index, keep(self._journal, STAGE, journal_name(index), result)

    def _read(self, groups: storage.RowGroups, chunk: range) -> pa.Table:
        """The wanted rows of some row groups, as pairs; without texts when none are needed."""
        columns = [*TAKEN_COLUMNS, *(map(str, PROPERTIES) if self._needs_text else ())]
        rows = pa.concat_tables([groups.read(index, columns) for index in chunk])
        wanted = rows["confidence"].to_numpy() <= self._config.max_confidence
        wanted &= rows["coverage"].to_numpy() >= self._config.min_coverage
        rows = rows.filter(pa.array(wanted))
        if self._source.tokenised or not self._needs_text:
            return rows
        encode = self._embedder.tokenizer.encode
        return pairs_table(rows, encode, self._source.evidence, self._source.max_text_tokens)

    def _embed(self, pairs: pa.Table) -> dict[str, pa.Array]:
        """The columns that were asked for, of the same rows."""
        columns = {name: pairs[name].combine_chunks() for name in ("accession", "sampling_key")}
        vectors: dict[str, np.ndarray] = {}
        try:
            if self._needs_protein:
                vectors["protein_embedding"] = self._embedder.embed_proteins(pairs["sequence"].to_pylist())
            if self._needs_text:
                vectors["text_embedding"] = self._embedder.embed_text_tokens(biotext_tokens(pairs))
        except torch.OutOfMemoryError as error:
            raise ConfigError(
                f"batches of {self._config.batch_tokens} tokens do not fit into the memory of "
                f"{self._embedder.device}; lower batch_tokens"
            ) from error
        for field in self._schema:
            if field.name == "consistency":
                cosine_N = np.einsum("nd,nd->n", *vectors.values())
                columns[field.name] = pa.array(np.clip(cosine_N, -1, 1))
            elif field.name in vectors:
                numbers = vectors[field.name].astype(self._config.embedding_type).ravel()
                columns[field.name] = pa.FixedSizeListArray.from_arrays(pa.array(numbers), self._embedder.dim)
        return columns


def _chunks(row_groups: Sequence[int]) -> list[range]:
    """Consecutive row groups, at least `CHUNK_ROWS` rows of them together, the rest at the end."""
    chunks: list[range] = []
    start = rows = 0
    for index, size in enumerate(row_groups):
        rows += size
        if rows >= CHUNK_ROWS or index + 1 == len(row_groups):
            chunks.append(range(start, index + 1))
            start, rows = index + 1, 0
    return chunks
