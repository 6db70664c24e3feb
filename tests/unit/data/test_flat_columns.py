"""Entries read in columns equal the same entries read one by one."""

import gzip
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protclip.data import uniprot
from protclip.data.formats import flat_columns
from protclip.data.formats.common import RECORD_SCHEMA
from protclip.data.strata import Origin, parse_tables, tables
from protclip.data.synthetic import write_sample
from protclip.data.uniprot import Block, parse_block, parse_columns, read_blocks
from protclip.records import ProteinRecord, Rejection

RICH = b"""ID   LAMP1_TEST              Reviewed;          72 AA.
AC   P00001; Q00002;
AC   Q00003;
DT   01-JAN-2001, integrated into UniProtKB/Swiss-Prot.
DT   05-FEB-2002, sequence version 2.
DT   16-JAN-2019, entry version 130.
DE   RecName: Full=Lamp keeper 1 {ECO:0000303|PubMed:1};
DE            Short=LK=1;
DE            EC=1.2.3.4 {ECO:0000269|PubMed:1, ECO:0000269|PubMed:2};
DE   AltName: Full=Night watch;
DE   AltName: CD_antigen=CD999;
DE   AltName: Allergen=Tes t 1;
DE   Contains:
DE     RecName: Full=Small lamp;
DE     AltName: Full=Spark {ECO:0000305};
DE   Flags: Precursor;
GN   Name=LAMP;
OS   Testus testus.
OX   NCBI_TaxID=4242 {ECO:0000313|EMBL:X};
RN   [1]
RP   FUNCTION.
CC   -!- FUNCTION: Keeps the lamp lit in the long non-
CC       flickering way {ECO:0000269|PubMed:1,
CC       ECO:0000269|PubMed:2}.
CC   -!- FUNCTION: [Small lamp]: Glows - a
CC       little -
CC       by itself.  {ECO:0000305}-
CC   -!- FUNCTION: Twice.
CC   -!- SUBUNIT: Monomer. SIMILARITY: none.
CC   -!- SUBCELLULAR LOCATION: Lamp post {ECO:0000255|HAMAP-
CC       Rule:MF_1}; Single-pass. Note=At night.
CC   -!- SIMILARITY: Belongs to the lamp family.
CC   ---------------------------------------------------------------------------
CC   Copyrighted by the Lamp Consortium
CC   ---------------------------------------------------------------------------
DR   EMBL; X; Y; -; mRNA.
PE   2: Evidence at transcript level;
KW   Lamp.
SQ   SEQUENCE   72 AA;  1200 MW;  0123456789ABCDEF CRC64;
     MKLVXUOZBW ACMKLVXUOZ BWACMKLVXU OZBWACMKLV XUOZBWACMK LVXUOZBWAC
     MKLVXUOZBW AC
//
"""

SHORT = b"""ID   A0A0_TEST               Unreviewed;         3 AA.
AC   A0A0A0;
DT   31-DEC-2020, entry version 1.
DE   SubName: Full=Uncharacterized protein (Fragment);
OX   NCBI_TaxID=1;
PE   4: Predicted;
SQ   SEQUENCE   3 AA;  300 MW;  0123456789ABCDEF CRC64;
     MKL
//
"""

LINES = RICH.split(b"\n")
INSERTS = (
    *(
        b"\n",
        b" ",
        b"  ",
        b";",
        b"-",
        b" -",
        b"{",
        b"}",
        b" {ECO:1}",
        b" {x}",
        b"=",
        b"/",
        b"!",
        b"A",
        b"I",
        b"9",
    ),
    *(b"\r", b"\t", b"\x1d", b"\x7f", b"\xff", b"\xc2\x85", "é".encode(), b"**", b"-!-", b"s:"),
    *(b"\nCC       ", b"\nCC       -", b"\nCC   -!- FUNCTION: x", b"\nCC   -!- SIMILARITY:", b"\nCC   x"),
    *(b"\nDE   Contains:", b"\nDE            Short=A;B;", b"\nDE     RecName: Full=Z;", b"\nDE   x"),
    *(
        b"\nDT   01-FEB-2011",
        b"\nDT   31-FEB-2011, x",
        b"\nDT",
        b"\n**   x",
        b"\n//",
        b"\n//\n",
        b"\nID",
        b"\nPE   7",
    ),
)
edits = st.lists(
    st.tuples(
        st.sampled_from(["insert", "replace", "cut", "drop", "double", "move"]),
        st.integers(0, len(LINES) - 2),
        st.integers(0, 79) | st.just(79),
        st.sampled_from(INSERTS),
    ),
    min_size=1,
    max_size=4,
)
Items = list[tuple[int, ProteinRecord | Rejection]]


def edited(changes: Sequence[tuple[str, int, int, bytes]]) -> bytes:
    """The rich entry after some changes of its lines."""
    lines = list(LINES)
    for kind, at, column, text in changes:
        line = lines[min(at, len(lines) - 1)]
        column = min(column, len(line))
        at = min(at, len(lines) - 1)
        if kind == "drop":
            del lines[at]
        elif kind == "double":
            lines.insert(at, line)
        elif kind == "move":
            lines.insert(column % len(lines), lines.pop(at))
        else:
            kept = {"insert": column, "replace": column + len(text), "cut": column + 9}[kind]
            lines[at] = line[:column] + (b"" if kind == "cut" else text) + line[kept:]
    return b"\n".join(lines)


def from_columns(table: pa.Table) -> Items:
    table.validate(full=True)
    return [(row.pop("offset"), ProteinRecord(**row)) for row in table.to_pylist()]


def assert_equal_to_the_exact_parser(block: Block) -> int:
    """Compares every entry; gives the number of those read in columns."""
    table, others = parse_columns(block)
    assert table.schema == RECORD_SCHEMA
    found = sorted([*from_columns(table), *others], key=lambda pair: pair[0])
    assert found == list(parse_block(block))
    return len(table)


@settings(max_examples=150, deadline=None)
@given(edits, edits, st.sampled_from([b"", b"\n", b"x\n", SHORT]), st.integers(0, 3))
def test_parse_columns_equals_the_exact_parser_whatever_the_entries_hold(first, second, head, cut) -> None:
    data = head + edited(first) + RICH + edited(second) + SHORT
    assert_equal_to_the_exact_parser(Block(11, data[: len(data) - cut], "flat"))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"", b""),
        (b"DE   Contains:\n", b"DE   Includes:\n"),
        (b"{ECO:0000303|PubMed:1}", b"{ECO:0000303}"),
        (b"FUNCTION: Twice", b"FUNCTION: -"),
        (b"CC   -!- FUNCTION: Twice.\n", b""),
        (b"     MKLVXUOZBW AC\n//", b"  MKLVXUOZBW AC \n//"),
        (b"CC   -!- SUBUNIT: Monomer. SIMILARITY: none.\n", b"CC       stray\n"),
    ],
)
def test_columns_hold_plain_entries(old: bytes, new: bytes) -> None:
    block = Block(0, SHORT + RICH.replace(old, new) + RICH, "flat")
    assert assert_equal_to_the_exact_parser(block) == 3
    assert flat_columns.columns(block.data)[1] == []


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"Reviewed;", b"STANDARD;"),
        (b"\n", b"\r\n"),
        (b"DR   EMBL", b"**   EMBL"),
        (b"Testus testus", "Testus tést".encode()),
        (b"Monomer", b"Mono\tmer"),
        (b"Full=Night watch;", b"Full=Night {watch;"),
        (b"Full=Night watch;", b"Full=Night; watch;"),
        (b"Full=Night watch;", b"Full=Night watch"),
        (b"Full=Night watch;", b"Other=Night watch;"),
        (b"FUNCTION: Twice", b"FUNCTION:Twice"),
        (b"FUNCTION: Twice", b"FUNCTION:\nCC       Twice"),
        (b"Twice.", b"Twice. "),
        (b"16-JAN-2019", b"31-FEB-2019"),
        (b"NCBI_TaxID=4242", b"NCBI_TaxID=x"),
        (b"PE   2: Evidence at transcript level;\n", b""),
        (b"PE   2", b"PE   6"),
        (b"GN   Name", b"CC   Name"),
        (b"     MKLV", b"     MKL*"),
        (b"     MKLV", b"     MKL"),
        (b"72 AA.", b"0 AA."),
        (b"\n//", b""),
        (b"\n//", b"\n// "),
    ],
)
def test_columns_leave_other_entries_to_the_exact_parser(old: bytes, new: bytes) -> None:
    other = RICH.replace(old, new)
    assert other != RICH
    block = Block(5, RICH + other + SHORT, "flat")
    assert assert_equal_to_the_exact_parser(block) == 2
    _, rest = flat_columns.columns(block.data)
    assert [b"".join(block.data[slice(*span)] for span in rest).strip(b"\n")] == [other.strip(b"\n")]


@pytest.mark.parametrize(
    "data", [b"", b"\n", b"I", b"//", b"ID", b"\n//", b"//\n\n", b"ID\n//", b"\xff" * 40]
)
def test_columns_of_nothing(data: bytes) -> None:
    assert assert_equal_to_the_exact_parser(Block(0, data, "flat")) == 0


def test_columns_read_the_whole_made_sample(tmp_path: Path) -> None:
    made = write_sample(str(tmp_path), num_reviewed=60, num_unreviewed=60, seed=1)
    for kind in ("reviewed", "unreviewed"):
        for block in read_blocks(made[kind], "flat", 50_000):
            assert assert_equal_to_the_exact_parser(block) == block.data.count(b"\n//")


def test_columns_read_all_modern_entries_of_the_real_files(real_data: Path) -> None:
    in_columns = modern = 0
    for path in sorted((real_data / "uniprot" / "flat").rglob("*.dat*")):
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        in_columns += assert_equal_to_the_exact_parser(Block(0, data, "flat"))
        modern += sum(
            b"eviewed; " in entry[:80] and b"Name: Full=" in entry and not re.search(rb"\n\*\*|\r", entry)
            for entry in data.split(b"\n//\n")
        )
    assert in_columns == modern == 257


def test_parse_tables_equals_the_tables_of_single_records() -> None:
    unknown = SHORT.replace(b"PE   4: Predicted;\n", b"")
    bad = RICH.replace(b"     MKLV", b"     MKL*")
    block = Block(7, RICH + unknown + SHORT + bad + RICH, "flat")
    for level in (None, 5):
        whole = parse_tables(block, Origin(3, "x.dat"), "2026_01", level)
        single = tables(list(parse_block(block)), Origin(3, "x.dat"), "2026_01", level)
        assert [part.to_pylist() for part in whole] == [part.to_pylist() for part in single]
        assert [len(part) for part in whole] == ([3, 2] if level is None else [4, 1])


def test_parse_columns_leaves_blocks_of_errors_and_other_formats(monkeypatch: pytest.MonkeyPatch) -> None:
    block = Block(0, RICH, "flat")
    for other in (replace(block, error="truncated gzip"), replace(block, format="json_lines")):
        table, items = parse_columns(other)
        assert len(table) == 0
        assert items == list(parse_block(other))
    monkeypatch.setattr(uniprot, "MAX_RECORD_BYTES", 100)
    assert parse_columns(block)[1] == list(parse_block(block))
