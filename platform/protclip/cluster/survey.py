"""Passes over the strata that come before the draw, when entries have factors of their own.

The first finds what the data set as a whole says (family sizes, medians, the newest date), the second how
many entries have which weight, from which the scale of the rates is solved. Both count: integers by value,
so that their sums depend on neither files nor workers.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from functools import partial
from typing import TypeVar

import numpy as np
import pyarrow as pa
import ray

from protclip import storage
from protclip.cluster.join import SideTable
from protclip.cluster.journal import Journal
from protclip.cluster.resume import run_kept
from protclip.cluster.shuffle import KeyRange, ranges_for, read_range, write_run
from protclip.cluster.tasks import Stage, run_stages
from protclip.data.law import REVIEWED, UNREVIEWED, Cell, Law, Population, binned_population
from protclip.data.manifest import FileEntry, StrataManifest
from protclip.data.sampling import typical, weight_bins, weights
from protclip.data.strata import read_entries, stratum_of
from protclip.data.traits import SCORE_STEPS, Facts, columns, read_trait
from protclip.progress import progress

EPOCH = date(1970, 1, 1)
ROWS_PER_TASK = 1_000_000
FAMILIES_PER_RANGE = 4_000_000
CELLS = 64
T = TypeVar("T")

COUNTS = pa.schema([("key", pa.uint64()), ("count", pa.int64())])


@dataclass(frozen=True, slots=True)
class Part:
    """Files of strata that one task reads."""

    index: int
    files: tuple[FileEntry, ...]

    @property
    def rows(self) -> int:
        """Entries in them."""
        return sum(file.rows for file in self.files)


@dataclass(frozen=True, slots=True)
class Entries:
    """Some entries of one stratum, with what is needed to judge them.

    Attributes:
        table: The columns asked for.
        confidence: True C of all.
        coverage: Number of properties of all.
        keys: uint64 sampling keys.
        reviewed: Whether each is of Swiss-Prot.
        levels: The confidence that counts for each, int64.
    """

    table: pa.Table
    confidence: int
    coverage: int
    keys: np.ndarray
    reviewed: np.ndarray
    levels: np.ndarray


@dataclass(frozen=True, slots=True)
class Judge:
    """Gives entries their weights; travels to every task.

    Attributes:
        source: URI of the strata.
        law: The law, once solved with its scale.
        exponents: Of the entries' own factors, those that are switched on.
        tables: Joined tables by kind.
        facts: `Facts` in Ray's object store, where all tasks of a node share one copy.
    """

    source: str
    law: Law
    exponents: Mapping[str, float]
    tables: Mapping[str, SideTable] = field(default_factory=dict)
    facts: "ray.ObjectRef[Facts] | None" = None

    def wanted(self, file: FileEntry) -> dict[str, bool]:
        """Which sections of a file can give pairs."""
        reached = self.law.reaches(*stratum_of(file.path))
        return {REVIEWED: self.law.keep_reviewed or reached, UNREVIEWED: reached}

    def read(self, file: FileEntry, names: Iterable[str]) -> Iterator[Entries]:
        """The row groups of a file that can give pairs, with some columns besides those it always takes."""
        confidence, coverage = stratum_of(file.path)
        needed = dict.fromkeys(["sampling_key", "reviewed", *names, *columns([*self.exponents], self.tables)])
        for table in read_entries(self.source, file, [*needed], **self.wanted(file)):
            keys, reviewed = table["sampling_key"].to_numpy(), table["reviewed"].to_numpy()
            levels = self.law.levels(keys, np.full(len(keys), confidence), reviewed)
            yield Entries(table, confidence, coverage, keys, reviewed, levels)

    def eligible(self, entries: Entries) -> np.ndarray:
        """Which entries can become pairs."""
        possible = self.law.weights(entries.levels, entries.coverage, 1.0) > 0
        return possible | (entries.reviewed & self.law.keep_reviewed)

    def weights(self, entries: Entries) -> np.ndarray:
        """Weight of each entry."""
        factors: np.ndarray | float = 1.0
        if self.exponents:
            facts = ray.get(self.facts) if self.facts is not None else Facts()
            raw = {name: read_trait(name, entries.table, self.tables) for name in self.exponents}
            factors = weights(facts.traits(raw), self.exponents)
        return self.law.weights(entries.levels, entries.coverage, factors)


@dataclass(frozen=True, slots=True)
class _Counted:
    """What a part says for `Facts`: entries without a trait, entries by day or score, its run of families."""

    index: int
    missing: Mapping[str, int]
    values: Mapping[str, tuple[tuple[int, int], ...]]
    families: int


@dataclass(frozen=True, slots=True)
class _Weighed:
    """Entries of a part by (confidence, coverage, reviewed, bin of the weight), the count last."""

    index: int
    bins: tuple[tuple[int, int, int, int, int], ...]


def packed(files: Iterable[FileEntry], sizes: Iterable[float], limit: float) -> list[Part]:
    """Files in parts of about `limit` in size, those of the same keys side by side."""
    pairs = zip(files, sizes, strict=True)
    parts: list[list[FileEntry]] = []
    filled = limit
    for file, size in sorted(pairs, key=lambda pair: pair[0].path.rpartition("/")[::-1]):
        if filled + size > limit:
            parts.append([])
            filled = 0.0
        parts[-1].append(file)
        filled += size
    return [Part(index, tuple(part)) for index, part in enumerate(parts)]


def find_facts(
    judge: Judge, source: StrataManifest, dated: date | None, journal: Journal
) -> tuple[Facts, dict[str, int]]:
    """What the data set as a whole says, and how many eligible entries state nothing for a factor.

    Args:
        judge: Law, factors and tables.
        source: The strata.
        dated: Day from which ages count; None for the newest date there is.
        journal: Of the job.

    Raises:
        DataError: The strata are damaged.
    """
    names = [name for name in judge.exponents if name != "length"]
    missing = Counter[str]()
    values = {name: Counter[int]() for name in names}
    families: list[str] = []
    num_families = 0
    count = partial(_count, names=names, judge=judge, folder=journal.folder)
    for result in _survey("counting", _Counted, count, judge, source, journal) if names else ():
        missing.update(result.missing)
        for name, counted in result.values.items():
            values[name].update(dict(counted))
        if result.families:
            families.append(_family_run(journal.folder, result.index))
            num_families += result.families
    ids, sizes = _merge_families(sorted(families), num_families, journal.folder)
    values["family"] = Counter(
        {int(n): int(n * times) for n, times in zip(*np.unique(sizes, return_counts=True), strict=True)}
    )
    days = values.get("date", {})
    today = (dated - EPOCH).days if dated else max(days, default=0)
    typical_values = {
        "date": float(typical(days, default=today)),
        "family": float(typical(values["family"], default=1)),
        "consistency": typical(values.get("consistency", {}), default=0) / SCORE_STEPS,
    }
    return Facts(today, typical_values, ids, sizes), {name: missing[name] for name in names}


def find_population(judge: Judge, source: StrataManifest, journal: Journal) -> Population:
    """How many entries have which weight, to 0.04 %.

    Raises:
        ConfigError: An exponent makes weights infinite.
        DataError: The strata are damaged.
    """
    bins: dict[Cell, Counter[int]] = defaultdict(Counter)
    weigh = partial(_weigh, judge=judge)
    for result in _survey("weighing", _Weighed, weigh, judge, source, journal):
        for confidence, coverage, reviewed, number, count in result.bins:
            bins[confidence, coverage, REVIEWED if reviewed else UNREVIEWED][number] += count
    return binned_population(bins)


def _survey(
    stage: str,
    kind: type[T],
    run: Callable[[Part], T],
    judge: Judge,
    source: StrataManifest,
    journal: Journal,
) -> Iterator[T]:
    """One pass over all files that can give pairs."""
    files = [file for file in source.files if any(judge.wanted(file).values())]
    parts = packed(files, [file.rows for file in files], ROWS_PER_TASK)
    with progress(f"{stage} entries", " parts", len(parts)) as bar:
        for result in run_kept(journal, stage, kind, {f"{p.index:06d}": p for p in parts}, run):
            yield result
            bar.update()


def _count(part: Part, *, names: Sequence[str], judge: Judge, folder: str) -> _Counted:
    """Task: what a part says of the whole."""
    missing = dict.fromkeys(names, 0)
    values = {name: Counter[int]() for name in names}
    families = [np.empty(0, np.uint64)]
    for file in part.files:
        for entries in judge.read(file, ()):
            eligible = judge.eligible(entries)
            for name in names:
                stated, found = read_trait(name, entries.table, judge.tables)
                missing[name] += int((eligible & ~found).sum())
                stated = stated[eligible & found]
                if name == "family":
                    families.append(stated)
                    continue
                steps = np.rint(stated * SCORE_STEPS) if name == "consistency" else stated
                numbers, counts = np.unique(steps.astype(np.int64), return_counts=True)
                values[name].update(dict(zip(numbers.tolist(), counts.tolist(), strict=True)))
    ids, counts = np.unique(np.concatenate(families), return_counts=True)
    if len(ids):
        run = pa.table({"key": ids, "count": counts}, schema=COUNTS)
        write_run(_family_run(folder, part.index), run, "key", CELLS)
    return _Counted(
        part.index,
        missing,
        {name: tuple(sorted(counted.items())) for name, counted in values.items()},
        len(ids),
    )


def _family_run(folder: str, index: int) -> str:
    """Where a part's families are counted."""
    return storage.join(folder, "families", f"{index:06d}.arrow")


def _merge_families(runs: Sequence[str], rows: int, folder: str) -> tuple[np.ndarray, np.ndarray]:
    """Sorted identities of families and the number of their entries."""
    merge = partial(_merge_range, runs=runs, folder=folder)
    uris = sorted(run_stages(ranges_for(rows, FAMILIES_PER_RANGE), Stage(merge))) if runs else []
    pieces = [COUNTS.empty_table()]
    for uri in uris:
        with storage.parquet_file(uri) as file:
            pieces.append(file.read())
    table = pa.concat_tables(pieces)
    return table["key"].to_numpy(), table["count"].to_numpy()


def _merge_range(keys: KeyRange, *, runs: Sequence[str], folder: str) -> Iterable[str]:
    """Task: sums of one range of identities."""
    rows = read_range(runs, keys, "key", COUNTS)
    sums = rows.group_by("key").aggregate([("count", "sum")]).rename_columns(COUNTS.names).sort_by("key")
    uri = storage.join(folder, "families", f"sums-{keys.index:06d}.parquet")
    yield storage.write_parquet(uri, sums, max(1, len(sums))).uri


def _weigh(part: Part, *, judge: Judge) -> _Weighed:
    """Task: how many entries of a part have which weight."""
    counted = Counter[tuple[int, int, int, int]]()
    for file in part.files:
        for entries in judge.read(file, ()):
            weight = judge.weights(entries)
            for reviewed in (False, True):
                chosen = weight[(weight > 0) & (entries.reviewed == reviewed)]
                numbers, counts = np.unique(weight_bins(chosen), return_counts=True)
                for number, count in zip(numbers.tolist(), counts.tolist(), strict=True):
                    counted[entries.confidence, entries.coverage, int(reviewed), number] += count
    return _Weighed(part.index, tuple((*key, count) for key, count in sorted(counted.items())))
