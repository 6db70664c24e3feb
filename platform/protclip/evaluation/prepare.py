"""Official files of a benchmark to tables that can be trusted: what all readers have in common.

Sequences are upper case without blanks. Rows that cannot be used are left out and kept as `Odd`. Counts are
taken of what is left: `train`, `valid`, `test`, `labels`, `proteins`, `pairs`, `nodes`, `edges`, and
`SPLIT/LABEL`, `pairs/LABEL` (ppi), `pairs/SUBSET/MEASURE` (similarity), `nodes/TYPE`, `edges/RELATION`.
"""

# pyarrow makes its compute functions when it is imported, no type checker sees them.
# pyright: reportAttributeAccessIssue=false

import logging
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from protclip.errors import BenchmarkError
from protclip.evaluation.prepared import SCHEMAS, PreparedManifest, Source
from protclip.evaluation.raw.base import Odd, RawTables, Read
from protclip.evaluation.spec.base import DataSection

log = logging.getLogger(__name__)

TRAIN, VALID, TEST = "train", "valid", "test"
REQUIRED_SPLITS = {"zero_shot": (TEST,)}
"""Splits without which a kind of labelled sequences cannot be run; train and test where nothing is said."""

NAMES = {"pairs": ("a", "b"), "edges": ("head", "relation", "tail")}
"""Columns that name a row; `id` where nothing is said."""
REFERENCES = {"pairs": (("a", "b"), "proteins"), "edges": (("head", "tail"), "nodes")}
"""Columns that name rows of another table."""
COUNTED_BY = {"pairs": ("subset", "measure"), "nodes": ("type",), "edges": ("relation",)}


@dataclass(slots=True)
class Content:
    """What became of a benchmark's official files.

    Attributes:
        tables: By name, with the columns of `SCHEMAS` of the kind.
        labels: All labels, in the official order if there is one.
        odd: Rows left out or remarkable.
        counts: Counts of what is left, by name.
        differing: Published counts that are others than ours.
        leaked: Test sequences that also stand in train or valid, by split.
    """

    tables: dict[str, pa.Table]
    labels: tuple[str, ...]
    odd: list[Odd]
    counts: dict[str, int] = field(default_factory=dict)
    differing: dict[str, int] = field(default_factory=dict)
    leaked: dict[str, int] = field(default_factory=dict)

    def manifest(
        self, name: str, kind: str, data: DataSection, sources: Sequence[Source]
    ) -> PreparedManifest:
        """What is said of it, without files."""
        return PreparedManifest(
            benchmark=name,
            task=kind,
            settings=data.model_dump(mode="json"),
            sources=tuple(sources),
            labels=self.labels,
            counts=self.counts,
            expected=self.differing,
            odd=dict(Counter(odd.reason for odd in self.odd if not odd.kept).most_common()),
            kept=dict(Counter(odd.reason for odd in self.odd if odd.kept).most_common()),
            leaked=self.leaked,
        )


def prepare_one(
    name: str, kind: str, data: DataSection, files: Mapping[str, Path], read: Read | None = None
) -> Content:
    """Reads a benchmark's official files and checks what is in them.

    Args:
        name: The benchmark, for messages.
        kind: Its kind.
        data: Its data section.
        files: Local files by role.
        read: The reader of its format; looked up when it is not given, which imports all kinds and torch.

    Raises:
        BenchmarkError: A file is not of the format, a split is missing or empty, training examples are all
            alike, or `data.expected` names a count that there is not.
        DataError: A file cannot be read.
    """
    if read is None:
        from protclip.evaluation.registry import FORMATS

        read = FORMATS[data.format].read
    try:
        return _checked(kind, read(data, files), data.expected)
    except BenchmarkError as error:
        raise BenchmarkError(f"{name}: {error}") from error


def _checked(kind: str, raw: RawTables, expected: Mapping[str, int]) -> Content:
    """Tables without what cannot be used, and what there is to say of them."""
    content = Content({}, raw.labels, list(raw.odd))
    for table_name, schema in SCHEMAS[kind].items():
        table = raw.tables[table_name].select(schema.names).cast(schema)
        content.tables[table_name] = _clean(table_name, table, content)
    if not content.labels:
        content.labels = _labels_of(content.tables)
    if "examples" in content.tables:
        _check_splits(kind, content)
        _find_leaks(content)
    content.counts = _count(content)
    for table_name, table in content.tables.items():
        if not len(table):
            reasons = ", ".join(
                f"{n:,} × {r}" for r, n in Counter(o.reason for o in content.odd).most_common(3)
            )
            raise BenchmarkError(f"no {table_name} are left; left out were {reasons or 'none'}")
    content.differing = _differing(content.counts, expected)
    return content


def _clean(name: str, table: pa.Table, content: Content) -> pa.Table:
    """The rows that can be used; the others become odd."""

    def keep(fine: Any, reason: str, detail: Callable[[dict[str, Any]], object] = lambda _: "") -> None:
        nonlocal table
        fine = pc.fill_null(fine, False)
        left_out = table.filter(pc.invert(fine))
        if len(left_out):
            content.odd += [Odd(_name(name, r), reason, str(detail(r))) for r in left_out.to_pylist()]
            table = table.filter(fine)

    columns = set(table.column_names)
    if "sequence" in columns:
        upper = pc.utf8_upper(pc.replace_substring_regex(table["sequence"], r"\s+", ""))
        if name == "nodes":
            # Most nodes are no proteins.
            upper = pc.if_else(pc.equal(upper, ""), None, upper)
        index = table.column_names.index("sequence")
        table = table.set_column(index, table.schema.field(index), upper)
        if name != "nodes":
            keep(pc.not_equal(table["sequence"], ""), "no sequence")
        letters = pc.match_substring_regex(table["sequence"], "^[A-Z]*$")
        keep(
            pc.fill_null(letters, True),
            "characters in the sequence that are no letters",
            lambda row: "".join(sorted(set(re.findall("[^A-Z]", row["sequence"])))),
        )
    for column in columns & {"value", "similarity"}:
        keep(pc.is_finite(table[column]), f"{column} is no finite number", itemgetter(column))
    if "label" in columns:
        keep(pc.not_equal(table["label"], ""), "no label")
    if "labels" in columns:
        keep(pc.is_valid(table["labels"]), "no labels")
    if content.labels and columns & {"label", "labels"}:
        keep(_all_known(table, content.labels), "a label that is none of the list", _labels)
    for column in REFERENCES.get(name, ((), ""))[0]:
        of = REFERENCES[name][1]
        known = content.tables[of]["id"].combine_chunks()
        keep(pc.is_in(table[column], known), f"{column} is none of the {of}", itemgetter(column))
    # Several rows of a node are averaged.
    if "id" in columns and name != "nodes":
        # An id may stand in several splits, which is a leak, but in each only once.
        keys = zip(*(table[key].to_pylist() for key in ("id", "split") if key in columns), strict=True)
        first: dict[tuple[str, ...], int] = {}
        fine = [first.setdefault(key, index) == index for index, key in enumerate(keys)]
        keep(pa.array(fine, pa.bool_()), "the same name again, the first one counts")
    return table.combine_chunks()


def _name(table: str, row: Mapping[str, Any]) -> str:
    """How a row is called."""
    return " ".join(str(row[column]) for column in NAMES.get(table, ("id",)))


def _labels(row: Mapping[str, Any]) -> str:
    """The labels of a row."""
    return row["label"] if "label" in row else ", ".join(row["labels"])


def _all_known(table: pa.Table, labels: Sequence[str]) -> pa.Array:
    """Whether all labels of each row are of the list."""
    known = pa.array(labels, pa.string())
    if "label" in table.column_names:
        return pc.is_in(table["label"], known)
    lists = table["labels"].combine_chunks()
    unknown = pc.invert(pc.is_in(lists.flatten(), known))
    rows = pc.filter(pc.list_parent_indices(lists), unknown)
    fine = np.ones(len(table), dtype=bool)
    fine[rows.to_numpy()] = False
    return pa.array(fine)


def _labels_of(tables: Mapping[str, pa.Table]) -> tuple[str, ...]:
    """The labels that occur, by the alphabet."""
    found: set[str] = set()
    for table in tables.values():
        if "label" in table.column_names:
            found |= set(table["label"].to_pylist())
        elif "labels" in table.column_names:
            found |= set(table["labels"].combine_chunks().flatten().to_pylist())
    return tuple(sorted(found))


def _check_splits(kind: str, content: Content) -> None:
    """Refuses examples of which nothing can be learnt or measured."""
    examples = content.tables["examples"]
    found = set(examples["split"].to_pylist())
    if unknown := found - {TRAIN, VALID, TEST}:
        raise BenchmarkError(f"splits are train, valid and test, not {', '.join(map(repr, unknown))}")
    for split in REQUIRED_SPLITS.get(kind, (TRAIN, TEST)):
        if split not in found:
            raise BenchmarkError(
                f"no examples in split {split}; check data.files and whether all of it could be read"
            )
    target = next(name for name in ("label", "labels", "value") if name in examples.column_names)
    for split in sorted(found):
        values = examples.filter(pc.equal(examples["split"], split))[target]
        if target == "labels":
            if not len(pc.list_flatten(values)):
                raise BenchmarkError(f"no example of split {split} has a label; check data")
        elif len(values.unique()) == 1:
            if split == TRAIN or target == "value":
                raise BenchmarkError(
                    f"all {len(values):,} examples of split {split} have the {target} {values[0]}; nothing "
                    "can be learnt or measured of these, check data"
                )
            content.odd.append(Odd(split, "a split of one class only", str(values[0]), kept=True))


def _find_leaks(content: Content) -> None:
    """Notes test examples whose sequence, or whose name, also stands in train or valid."""
    splits: dict[str, list[tuple[str, str]]] = {TRAIN: [], VALID: [], TEST: []}
    examples = content.tables["examples"]
    for split, *rest in zip(*(examples[c].to_pylist() for c in ("split", "id", "sequence")), strict=True):
        splits[split].append((rest[0], rest[1]))
    for split in (TRAIN, VALID):
        by_sequence = {sequence: name for name, sequence in splits[split]}
        by_name = dict(splits[split])
        for name, sequence in splits[TEST]:
            if sequence in by_sequence:
                content.leaked[split] = content.leaked.get(split, 0) + 1
                detail = by_sequence[sequence]
                content.odd.append(Odd(name, f"a test sequence that is in {split}, too", detail, kept=True))
            elif name in by_name:
                reason = f"a test name that is in {split}, too, with another sequence"
                content.odd.append(Odd(name, reason, kept=True))


def _count(content: Content) -> dict[str, int]:
    """All counts by name."""
    counts: dict[str, int] = {}
    for name, table in content.tables.items():
        if name == "examples":
            counts |= _count_examples(table, content.labels)
        else:
            counts[name] = len(table)
            columns = [column for column in COUNTED_BY.get(name, ()) if column in table.column_names]
            keys = zip(*(table[column].to_pylist() for column in columns), strict=True)
            counts |= {"/".join((name, *key)): n for key, n in sorted(Counter(keys).items())}
            if "labels" in table.column_names:
                found = Counter(table["labels"].combine_chunks().flatten().to_pylist())
                counts |= {f"{name}/{label}": found[label] for label in content.labels}
    if content.labels:
        counts["labels"] = len(content.labels)
    return counts


def _count_examples(examples: pa.Table, labels: Sequence[str]) -> dict[str, int]:
    """Examples by split, and by split and class where each has one."""
    found = Counter(examples["split"].to_pylist())
    counts = {split: found[split] for split in (TRAIN, VALID, TEST) if split in found}
    if "label" in examples.column_names:
        both = Counter(zip(examples["split"].to_pylist(), examples["label"].to_pylist(), strict=True))
        counts |= {f"{split}/{label}": both[split, label] for split in list(counts) for label in labels}
    return counts


def _differing(counts: Mapping[str, int], expected: Mapping[str, int]) -> dict[str, int]:
    """Published counts that are not ours."""
    for name in expected:
        if name not in counts:
            raise BenchmarkError(f"data.expected: there is no count {name!r}, but {', '.join(counts)}")
    return {name: value for name, value in expected.items() if counts[name] != value}
