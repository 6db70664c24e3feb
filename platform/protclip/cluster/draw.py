"""The first half of sampling: parts of strata become sorted runs of tokenised pairs, one per split."""

import functools
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from protclip import storage
from protclip.cluster.journal import Journal
from protclip.cluster.resume import run_kept
from protclip.cluster.shards import ORDER, RUN_SCHEMA, Runs
from protclip.cluster.shuffle import write_run
from protclip.cluster.survey import Entries, Judge, Part
from protclip.config.data import SampleConfig
from protclip.data.families import content_ids
from protclip.data.manifest import StratumCount, train_split
from protclip.data.pairs import TAKEN_COLUMNS, pairs_table
from protclip.data.sampling import SPLITS, keep, order_keys, split_indices
from protclip.data.strata import totals
from protclip.data.tokenizer import TextTokenizer
from protclip.data.traits import group_ids
from protclip.progress import progress
from protclip.records import PAIRS_SCHEMA, PROPERTIES

READ_COLUMNS = (*TAKEN_COLUMNS, *map(str, PROPERTIES))


@dataclass(frozen=True, slots=True)
class DrawnPart:
    """What a part gave; also the sum of several.

    Attributes:
        index: Which part.
        kept: Pairs in `SPLITS` by stratum.
        cells: Rows of the run of each split that got any, by cell of the key space.
        corrupted: Entries whose confidence was replaced before it decided.
        ungrouped: Entries drawn that have no family or cluster, when splits go by these.
        num_excluded: Entries drawn and left out for a benchmark's sake.
        excluded: The same by benchmark.
    """

    index: int
    kept: tuple[StratumCount, ...]
    cells: Mapping[str, tuple[int, ...]]
    corrupted: int
    ungrouped: int
    num_excluded: int
    excluded: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Draw:
    """How entries become pairs; travels to every task.

    Attributes:
        judge: Gives entries their rates.
        config: Of the job.
        tokenizer_json: The text tokenizer.
        excluded: Identities of the sequences of each benchmark's test set, sorted uint64.
        cells: Cells of a run.
        folder: Where runs go.
    """

    judge: Judge
    config: SampleConfig
    tokenizer_json: str
    excluded: Mapping[str, np.ndarray]
    cells: int
    folder: str

    def run_uri(self, split: str, index: int) -> str:
        """Where a part's run of a split lies."""
        return storage.join(self.folder, "runs", split, f"{index:06d}.arrow")


def split_samples(epochs: int) -> dict[str, int]:
    """Which sample each split is taken from: `SPLITS` from the first, one more from each further one."""
    return dict.fromkeys(SPLITS, 0) | {train_split(epoch): epoch for epoch in range(1, epochs)}


def draw_all(parts: list[Part], draw: Draw, journal: Journal) -> tuple[DrawnPart, dict[str, Runs]]:
    """Draws from all parts.

    Returns:
        The sum, and the runs of every split.

    Raises:
        DataError: A part cannot be read or a run cannot be written.
    """
    cells = {split: np.zeros(draw.cells, np.int64) for split in split_samples(draw.config.sampling.epochs)}
    uris: dict[str, list[str]] = {split: [] for split in cells}
    kept: list[StratumCount] = []
    sums, excluded = Counter[str](), Counter[str]()
    items = {f"{part.index:06d}": part for part in parts}
    task = functools.partial(draw_part, draw=draw)
    with progress("sampling", " entries", sum(part.rows for part in parts)) as bar:
        for result in run_kept(journal, "draw", DrawnPart, items, task):
            for split, rows in result.cells.items():
                cells[split] += rows
                uris[split].append(draw.run_uri(split, result.index))
            kept = list(totals([*kept, *result.kept]))
            sums.update(
                corrupted=result.corrupted, ungrouped=result.ungrouped, num_excluded=result.num_excluded
            )
            excluded.update(result.excluded)
            bar.set_postfix_str(f"{sum(count.total for count in kept):,} pairs", refresh=False)
            bar.update(parts[result.index].rows)
    whole = DrawnPart(
        index=-1,
        kept=totals(kept),
        cells={},
        corrupted=sums["corrupted"],
        ungrouped=sums["ungrouped"],
        num_excluded=sums["num_excluded"],
        excluded={name: excluded[name] for name in draw.excluded},
    )
    return whole, {split: Runs(tuple(sorted(uris[split])), cells[split]) for split in cells}


def draw_part(part: Part, *, draw: Draw) -> DrawnPart:
    """Task: some files of strata become a run per split; each entry is tokenised once for all samples."""
    law, config = draw.judge.law, draw.config
    encode = _tokenizer(draw.tokenizer_json).encode
    samples = split_samples(config.sampling.epochs)
    pieces = [PAIRS_SCHEMA.empty_table()]
    members = [np.zeros((len(samples), 0), bool)]
    kept: list[StratumCount] = []
    sums, excluded = Counter[str](), Counter[str]()
    for file in part.files:
        for entries in draw.judge.read(file, READ_COLUMNS):
            if law.reaches(entries.confidence, entries.coverage):
                sums["corrupted"] += int((entries.levels != entries.confidence).sum())
            chosen, drawn, reviewed = _drawn(entries, draw)
            clean = np.ones(len(chosen), bool)
            if draw.excluded:
                sequences = content_ids(chosen["sequence"])
                for name, known in draw.excluded.items():
                    hit = np.isin(sequences, known)
                    excluded[name] += int(hit.sum())
                    clean &= ~hit
                sums["num_excluded"] += int((~clean).sum())
            groups, grouped = group_ids(config.splits.by, chosen, draw.judge.tables)
            splits = split_indices(groups, config.seed, config.splits.valid_share, config.splits.test_share)
            member = np.stack(
                [
                    clean & drawn[sample] & (splits == (SPLITS.index(split) if split in SPLITS else 0))
                    for split, sample in samples.items()
                ]
            )
            used = member.any(axis=0)
            sums["ungrouped"] += int((used & ~grouped).sum())
            first = member[: len(SPLITS)].any(axis=0)
            kept.append(
                StratumCount(
                    confidence=entries.confidence,
                    coverage=entries.coverage,
                    reviewed=int((first & reviewed).sum()),
                    unreviewed=int((first & ~reviewed).sum()),
                )
            )
            pieces.append(
                pairs_table(chosen.filter(pa.array(used)), encode, config.evidence, config.max_text_tokens)
            )
            members.append(member[:, used])
    cells = _write_runs(pa.concat_tables(pieces), np.concatenate(members, axis=1), part.index, draw)
    return DrawnPart(
        index=part.index,
        kept=tuple(count for count in totals(kept) if count.total),
        cells=cells,
        corrupted=sums["corrupted"],
        ungrouped=sums["ungrouped"],
        num_excluded=sums["num_excluded"],
        excluded=excluded,
    )


def _drawn(entries: Entries, draw: Draw) -> tuple[pa.Table, np.ndarray, np.ndarray]:
    """The entries that any sample draws, which draw them [sample, entry], and whether they are reviewed."""
    rates = draw.judge.law.rates(draw.judge.weights(entries), entries.reviewed)
    samples = range(draw.config.sampling.epochs)
    drawn = np.stack([keep(entries.keys, rates, draw.config.seed, sample) for sample in samples])
    rows = np.flatnonzero(drawn.any(axis=0))
    return entries.table.take(pa.array(rows)), drawn[:, rows], entries.reviewed[rows]


def _write_runs(pairs: pa.Table, members: np.ndarray, index: int, draw: Draw) -> dict[str, tuple[int, ...]]:
    """Writes the run of each split that has rows, and gives their rows by cell."""
    cells = {}
    keys = pairs["sampling_key"].to_numpy()
    for (split, sample), member in zip(
        split_samples(draw.config.sampling.epochs).items(), members, strict=True
    ):
        rows = np.flatnonzero(member)
        if rows.size:
            order = pa.array(order_keys(keys[rows], draw.config.seed, sample))
            run = pairs.take(pa.array(rows)).append_column(RUN_SCHEMA.field(ORDER), order)
            cells[split] = write_run(draw.run_uri(split, index), run, ORDER, draw.cells)
    return cells


@functools.lru_cache(maxsize=1)
def _tokenizer(text: str) -> TextTokenizer:
    """The tokenizer of a worker process, built once."""
    return TextTokenizer.from_json(text)
