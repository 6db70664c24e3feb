from typing import Literal

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protclip.data.biotext import biotext
from protclip.data.pairs import biotext_tokens, pairs_table
from protclip.data.strata import Origin, tables
from protclip.data.tokenizer import TextTokenizer
from protclip.records import PAIRS_SCHEMA, PROPERTIES, Property, ProteinRecord

TOKENIZER = TextTokenizer.load("builtin")
TEXTS = st.one_of(
    st.sampled_from(["Binds DNA-3'. {ECO:0000269|PubMed:1}.", "Cytoplasm {ECO:1}. Note=x.", "α-helix 2+;"]),
    st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), min_size=1, max_size=40),
)


def entries(*texts: tuple[str, str | None, str | None, str | None]) -> pa.Table:
    records = [
        ProteinRecord(
            f"A{i}",
            "",
            True,
            "MKT" * (i + 1),
            name,
            function=function,
            subcellular_location=location,
            similarity=similarity,
            confidence=2,
        )
        for i, (name, function, location, similarity) in enumerate(texts)
    ]
    return tables(list(enumerate(records)), Origin(0, "x"), None, None)[0]


def test_pairs_table_carries_the_record() -> None:
    table = pairs_table(entries(("A", None, "B", None), ("C", "D", "E", "F")), TOKENIZER.encode, "strip", 99)
    assert table.schema == PAIRS_SCHEMA
    assert table["accession"].to_pylist() == ["A0", "A1"]
    assert table["sequence"].to_pylist() == ["MKT", "MKTMKT"]
    assert table["length"].to_pylist() == [3, 6]
    assert table["coverage"].to_pylist() == [2, 4]
    assert table["confidence"].to_pylist() == [2, 2]
    assert table[Property.FUNCTION].to_pylist()[0] == []
    assert (
        table[Property.SUBCELLULAR_LOCATION][0].as_py() == TOKENIZER.encode(["SUBCELLULAR LOCATION: B."])[0]
    )


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(TEXTS, st.none() | TEXTS, st.none() | TEXTS, st.none() | TEXTS), max_size=4),
    st.sampled_from(["strip", "keep"]),
)
def test_token_lists_joined_are_the_tokens_of_the_biotext(
    texts: list[tuple[str, str | None, str | None, str | None]], evidence: Literal["strip", "keep"]
) -> None:
    table = pairs_table(entries(*texts), TOKENIZER.encode, evidence, 10_000)
    for row, joined, parts in zip(table.to_pylist(), biotext_tokens(table), texts, strict=True):
        whole = biotext(dict(zip(PROPERTIES, parts, strict=True)), evidence)
        assert [token for prop in PROPERTIES for token in row[prop]] == TOKENIZER.encode([whole])[0]
        assert joined.tolist() == TOKENIZER.encode([whole])[0]


def test_pairs_table_cuts_each_property() -> None:
    long = " ".join(f"word{i}" for i in range(100))
    row = pairs_table(entries((long, long, None, "short")), TOKENIZER.encode, "strip", 20).to_pylist()[0]
    assert [len(row[prop]) for prop in PROPERTIES[:3]] == [20, 20, 0]
    assert row[Property.FUNCTION] == TOKENIZER.encode(["FUNCTION: " + long])[0][:20]


def test_pairs_table_of_nothing() -> None:
    table = pairs_table(entries(), TOKENIZER.encode, "keep", 5)
    assert table.schema == PAIRS_SCHEMA
    assert len(table) == 0


def test_pairs_table_refuses_ids_beyond_16_bits() -> None:
    with pytest.raises(OverflowError):
        pairs_table(entries(("A", None, None, None)), lambda texts: [[70_000] for _ in texts], "strip", 5)
