from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protclip.errors import BenchmarkError
from protclip.evaluation.prepare import Content, prepare_one
from protclip.evaluation.prepared import SCHEMAS
from protclip.evaluation.raw.base import Odd, RawTables
from protclip.evaluation.spec.base import DataSection

Rows = list[tuple[object, ...]]


def prepare(
    kind: str, rows: Mapping[str, Rows], labels: tuple[str, ...] = (), expected: dict[str, int] | None = None
) -> Content:
    """Prepares what a made reader gives."""
    tables = {
        name: pa.Table.from_pylist([dict(zip(schema.names, row, strict=True)) for row in rows[name]], schema)
        for name, schema in SCHEMAS[kind].items()
    }
    section = DataSection(format="made", files={}, expected=expected or {})
    return prepare_one("some", kind, section, {}, lambda _section, _files: RawTables(tables, labels))


GOOD: Rows = [
    ("a", "train", "MKV", "x"),
    ("b", "train", "MKL", "y"),
    ("c", "valid", "MAA", "x"),
    ("d", "valid", "MAC", "y"),
    ("e", "test", "MCC", "x"),
    ("f", "test", "MCD", "y"),
]


def test_prepare_one_leaves_good_rows_alone() -> None:
    content = prepare("classification", {"examples": GOOD}, expected={"train": 2, "test/y": 1, "labels": 2})
    assert [tuple(row.values()) for row in content.tables["examples"].to_pylist()] == GOOD
    assert (content.odd, content.leaked, content.differing) == ([], {}, {})
    assert content.labels == ("x", "y")
    assert content.counts == {
        **{"train": 2, "valid": 2, "test": 2, "labels": 2},
        **{f"{split}/{label}": 1 for split in ("train", "valid", "test") for label in "xy"},
    }


@pytest.mark.parametrize(
    ("row", "odd"),
    [
        (("o", "train", "", "x"), Odd("o", "no sequence")),
        (("o", "train", " \t\n", "x"), Odd("o", "no sequence")),
        (("o", "train", None, "x"), Odd("o", "no sequence")),
        (
            ("o", "train", "MK*V-*", "x"),
            Odd("o", "characters in the sequence that are no letters", "*-"),
        ),
        (("o", "test", "MKÄ", "x"), Odd("o", "characters in the sequence that are no letters", "Ä")),
        (("o", "train", "MM", ""), Odd("o", "no label")),
        (("o", "train", "MM", None), Odd("o", "no label")),
        (("o", "train", "MM", "z"), Odd("o", "a label that is none of the list", "z")),
        (("a", "train", "MM", "x"), Odd("a", "the same name again, the first one counts")),
    ],
)
def test_prepare_one_leaves_out_and_keeps_account_of(row: tuple[object, ...], odd: Odd) -> None:
    content = prepare("classification", {"examples": [*GOOD, row]}, ("x", "y"))
    assert content.odd == [odd]
    assert content.tables["examples"].num_rows == len(GOOD)


def test_prepare_one_mends_blanks_and_lower_case() -> None:
    content = prepare("classification", {"examples": [*GOOD, ("o", "train", " m k\tv\nx ", "x")]})
    assert content.tables["examples"]["sequence"].to_pylist()[-1] == "MKVX"
    assert content.odd == []


@pytest.mark.parametrize("value", [float("nan"), float("inf"), None])
def test_prepare_one_leaves_out_numbers_that_are_none(value: float | None) -> None:
    rows: Rows = [(n, s, q, float(i)) for i, (n, s, q, _) in enumerate(GOOD)]
    content = prepare("regression", {"examples": [*rows, ("o", "train", "MM", value)]})
    assert [(o.id, o.reason) for o in content.odd] == [("o", "value is no finite number")]
    assert (content.counts, content.labels) == ({"train": 2, "valid": 2, "test": 2}, ())


def test_prepare_one_counts_leaks_and_keeps_them() -> None:
    rows: Rows = [*GOOD, ("g", "test", "mkv", "y"), ("h", "test", "MAA", "x"), ("b", "test", "MMM", "x")]
    content = prepare("classification", {"examples": rows})
    assert content.leaked == {"train": 1, "valid": 1}
    assert content.counts["test"] == 5
    assert [(o.id, o.detail) for o in content.odd] == [("g", "a"), ("b", ""), ("h", "c")]
    assert all(o.kept for o in content.odd)
    assert [o.reason for o in content.odd] == [
        "a test sequence that is in train, too",
        "a test name that is in train, too, with another sequence",
        "a test sequence that is in valid, too",
    ]


@pytest.mark.parametrize(
    ("kind", "rows", "message"),
    [
        ("classification", [r for r in GOOD if r[1] != "test"], "some: no examples in split test"),
        ("classification", [r for r in GOOD if r[1] != "train"], "no examples in split train"),
        ("few_shot", [r for r in GOOD if r[1] == "test"], "no examples in split train"),
        ("zero_shot", [r for r in GOOD if r[1] == "train"], "no examples in split test"),
        ("classification", [*GOOD[1:]], "all 1 examples of split train have the label y"),
        ("classification", [*GOOD, ("o", "dev", "MM", "x")], "splits are train, valid and test, not 'dev'"),
        ("classification", [], "no examples in split train"),
    ],
)
def test_prepare_one_refuses_what_cannot_be_run(kind: str, rows: Rows, message: str) -> None:
    with pytest.raises(BenchmarkError, match=message):
        prepare(kind, {"examples": rows})


def test_prepare_one_refuses_numbers_that_are_all_the_same() -> None:
    for split in ("train", "test"):
        rows: Rows = [(n, s, q, 1.0 if s == split else i) for i, (n, s, q, _) in enumerate(GOOD)]
        with pytest.raises(BenchmarkError, match=rf"all 2 examples of split {split} have the value 1\.0"):
            prepare("regression", {"examples": rows})


def test_prepare_one_notes_a_test_split_of_one_class() -> None:
    content = prepare("classification", {"examples": GOOD[:5]})
    assert content.odd == [Odd("test", "a split of one class only", "x", kept=True)]


def test_prepare_one_of_zero_shot_needs_no_training_examples() -> None:
    assert prepare("zero_shot", {"examples": GOOD[4:]}).counts["test"] == 2


def test_prepare_one_keeps_proteins_without_label_in_multilabel() -> None:
    rows: Rows = [
        ("a", "train", "MKV", ["x", "y"], None),
        ("b", "test", "MKL", ["y"], 30),
        ("c", "test", "MKA", [], 95),
        ("d", "test", "MKC", None, 95),
        ("e", "test", "MKD", ["y", "q"], 95),
    ]
    content = prepare("multilabel", {"examples": rows}, ("x", "y"))
    assert content.tables["examples"]["id"].to_pylist() == ["a", "b", "c"]
    assert content.odd == [Odd("d", "no labels"), Odd("e", "a label that is none of the list", "y, q")]
    assert content.counts == {"train": 1, "test": 2, "labels": 2}
    with pytest.raises(BenchmarkError, match="no example of split test has a label"):
        prepare("multilabel", {"examples": [rows[0], rows[2]]})


def test_prepare_one_holds_pairs_against_proteins() -> None:
    proteins: Rows = [("p", "mkv"), ("q", "MK"), ("r", "M*"), ("p", "MMM")]
    pairs: Rows = [(*ends, ["binding"]) for ends in ("pq", "pr", "xq")]
    pairs.append(("q", "p", ["a"]))
    content = prepare("ppi", {"proteins": proteins, "pairs": pairs}, ("reaction", "binding"))
    assert content.tables["proteins"]["sequence"].to_pylist() == ["MKV", "MK"]
    assert content.tables["pairs"].num_rows == 1
    assert [(o.id, o.reason) for o in content.odd] == [
        ("r", "characters in the sequence that are no letters"),
        ("p", "the same name again, the first one counts"),
        ("q p", "a label that is none of the list"),
        ("x q", "a is none of the proteins"),
        ("p r", "b is none of the proteins"),
    ]
    assert content.counts == {
        **{"proteins": 2, "pairs": 1, "labels": 2},
        **{"pairs/reaction": 0, "pairs/binding": 1},
    }


def test_prepare_one_counts_pairs_by_subset_and_measure() -> None:
    proteins: Rows = [("p", "MKV"), ("q", "MK")]
    pairs: Rows = [("p", "q", "sparse", "Lin", 0.5), ("q", "p", "500", "Lin", float("nan"))]
    content = prepare("similarity", {"proteins": proteins, "pairs": pairs})
    assert content.counts == {"proteins": 2, "pairs": 1, "pairs/sparse/Lin": 1}
    assert content.odd == [Odd("q p", "similarity is no finite number", "nan")]


def test_prepare_one_holds_edges_against_nodes() -> None:
    nodes: Rows = [
        ("1", "protein", "n", None, "mkv", None),
        ("2", "drug", "n", "text", "", [0.5, 1.0]),
        ("3", "protein", "n", None, "MK*", None),
    ]
    edges: Rows = [("1", "targets", "2"), ("3", "targets", "2"), ("1", "treats", "9")]
    content = prepare("transformation", {"nodes": nodes, "edges": edges})
    assert content.tables["nodes"]["sequence"].to_pylist() == ["MKV", None]
    assert content.tables["edges"].num_rows == 1
    assert content.counts == {
        **{"nodes": 2, "nodes/drug": 1, "nodes/protein": 1, "edges": 1, "edges/targets": 1},
    }
    assert [(o.id, o.reason) for o in content.odd[1:]] == [
        ("3 targets 2", "head is none of the nodes"),
        ("1 treats 9", "tail is none of the nodes"),
    ]


def test_prepare_one_refuses_an_empty_table_and_says_why() -> None:
    tables: dict[str, Rows] = {"proteins": [("p", "M")], "pairs": [("p", "q", ["x"])]}
    with pytest.raises(BenchmarkError, match="no pairs are left; left out were 1 × b is none"):
        prepare("ppi", tables)


def test_prepare_one_names_counts_that_differ_and_refuses_unknown_ones() -> None:
    content = prepare("classification", {"examples": GOOD}, expected={"train": 5161, "valid": 2})
    assert content.differing == {"train": 5161}
    with pytest.raises(BenchmarkError, match=r"data\.expected: there is no count 'rows', but train, valid"):
        prepare("classification", {"examples": GOOD}, expected={"rows": 6})


def test_manifest_counts_rows_by_reason() -> None:
    rows: Rows = [*GOOD, ("o", "train", "", "x"), ("p", "test", "", "x"), ("g", "test", "MKV", "y")]
    content = prepare("classification", {"examples": rows}, expected={"train": 7})
    manifest = content.manifest("some", "classification", DataSection(format="made", files={}), [])
    assert manifest.odd == {"no sequence": 2}
    assert manifest.kept == {"a test sequence that is in train, too": 1}
    assert (manifest.leaked, manifest.expected, manifest.labels) == ({"train": 1}, {"train": 7}, ("x", "y"))


SEQUENCES = st.text(alphabet="mK*- \n", max_size=6) | st.none()
ROWS = st.lists(
    st.tuples(
        st.sampled_from("abcdef"),
        st.sampled_from(["train", "valid", "test"]),
        SEQUENCES,
        st.sampled_from(["x", "y", "z", ""]) | st.none(),
    ),
    max_size=20,
)


@settings(max_examples=80, deadline=None)
@given(ROWS)
def test_prepare_one_accounts_for_every_row(rows: Any) -> None:
    everything: Rows = [*GOOD, *((f"extra {name}", *rest) for name, *rest in rows)]
    content = prepare("classification", {"examples": everything}, ("x", "y"))
    left_out = [odd for odd in content.odd if not odd.kept]
    kept = content.tables["examples"].to_pylist()
    assert len(kept) + len(left_out) == len(everything)
    assert all(row["sequence"].isalpha() and row["sequence"].isupper() for row in kept)
    assert {row["label"] for row in kept} <= {"x", "y"}
    assert len({(row["split"], row["id"]) for row in kept}) == len(kept)
    train = {row["sequence"] for row in kept if row["split"] == "train"}
    leaked = sum(row["sequence"] in train for row in kept if row["split"] == "test")
    assert content.leaked.get("train", 0) == leaked
    # Prepared again, there is nothing left to say of what was kept, but the leaks.
    again = prepare("classification", {"examples": [tuple(row.values()) for row in kept]}, ("x", "y"))
    assert again.tables["examples"].equals(content.tables["examples"])
    assert again.odd == [o for o in content.odd if o.kept]
