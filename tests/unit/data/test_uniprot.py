"""Whole files: formats, blocks, compression, damage, and the real files' counts."""

import gzip
import json
import tracemalloc
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from protclip.data import uniprot
from protclip.data.uniprot import SOURCES, detect_format, parse_block, read_blocks, read_records
from protclip.errors import DataError
from protclip.records import ProteinRecord, Rejection

SEQUENCES = ("MKL", "MKLVXUOZBW", "M" * 70)


def flat(number: int) -> str:
    sequence = SEQUENCES[number % 3]
    return (
        f"ID   LAMP{number}_TEST    Reviewed;    {len(sequence)} AA.\nAC   P{number:05};\n"
        f"DE   RecName: Full=Lamp {number};\nCC   -!- FUNCTION: Glows {'very ' * number}bright.\n"
        f"SQ   SEQUENCE   {len(sequence)} AA;\n     {sequence}\n//\n"
    )


def xml(number: int) -> str:
    sequence = SEQUENCES[number % 3]
    return (
        f'<entry dataset="Swiss-Prot"><accession>P{number:05}</accession><name>LAMP{number}_TEST</name>'
        f"<protein><recommendedName><fullName>Lamp {number}</fullName></recommendedName></protein>"
        f'<comment type="function"><text>Glows {"very " * number}bright.</text></comment>'
        f'<sequence length="{len(sequence)}">{sequence}</sequence></entry>\n'
    )


def entry(number: int) -> dict[str, object]:
    return {
        "entryType": "Swiss-Prot",
        "primaryAccession": f"P{number:05}",
        "uniProtkbId": f"LAMP{number}_TEST",
        "proteinDescription": {"recommendedName": {"fullName": {"value": f"Lamp {number}"}}},
        "comments": [{"commentType": "FUNCTION", "texts": [{"value": f"Glows {'very ' * number}bright"}]}],
        "sequence": {"value": SEQUENCES[number % 3]},
    }


def row(number: int) -> str:
    function = f"FUNCTION: Glows {'very ' * number}bright."
    cells = (
        f"P{number:05}",
        f"LAMP{number}_TEST",
        "reviewed",
        f"Lamp {number}",
        function,
        SEQUENCES[number % 3],
    )
    return "\t".join(cells) + "\n"


NUMBERS = range(5)
TSV_HEADER = "Entry\tEntry Name\tReviewed\tProtein names\tFunction [CC]\tSequence\n"
FILES = {
    "flat": ("lamps.dat", "".join(map(flat, NUMBERS))),
    "xml": (
        "lamps.xml",
        f'<?xml version="1.0"?>\n<uniprot xmlns="http://uniprot.org/uniprot">\n{"".join(map(xml, NUMBERS))}'
        "<copyright>none</copyright>\n</uniprot>\n",
    ),
    "tsv": ("lamps.tsv", TSV_HEADER + "".join(map(row, NUMBERS))),
    "json": (
        "lamps.json",
        json.dumps({"facets": [{"a": "}"}], "results": [entry(n) for n in NUMBERS]}, indent=1),
    ),
    "json_lines": ("lamps.jsonl", "".join(json.dumps(entry(n)) + "\n" for n in NUMBERS)),
}
RECORDS = [
    ProteinRecord(
        accession=f"P{n:05}",
        entry_name=f"LAMP{n}_TEST",
        reviewed=True,
        sequence=SEQUENCES[n % 3],
        protein_name=f"Lamp {n}",
        function=f"Glows {'very ' * n}bright.",
    )
    for n in NUMBERS
]
formats = pytest.mark.parametrize("format_name", FILES)
quick = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def write(folder: Path, name: str, data: bytes) -> str:
    path = folder / name
    path.write_bytes(data)
    return str(path)


def blocks_of(uri: str, format_name: str, block_bytes: int) -> list[tuple[int, ProteinRecord | Rejection]]:
    return [item for block in read_blocks(uri, format_name, block_bytes) for item in parse_block(block)]


@formats
@pytest.mark.parametrize("compressed", [False, True])
def test_read_records_reads_every_format(format_name: str, compressed: bool, tmp_path: Path) -> None:
    name, text = FILES[format_name]
    data = gzip.compress(text.encode()) if compressed else text.encode()
    uri = write(tmp_path, name + ".gz" * compressed, data)
    assert list(read_records(uri)) == RECORDS
    assert detect_format(uri, data) == format_name


@formats
def test_detect_format_looks_at_the_content_first(format_name: str) -> None:
    for head in (FILES[format_name][1].encode(), b"\xef\xbb\xbf" + FILES[format_name][1].encode()):
        assert detect_format("lamps.unknown", head) == format_name
    assert detect_format("s3://bucket/pairs.json", b'{"seq": "MK", "text": "x"}') == "protanno"


def test_detect_format_names_the_choices_when_nothing_tells() -> None:
    assert detect_format("x.DAT.gz", b"\x00") == "flat"
    with pytest.raises(DataError, match=r"x\.bin: .*flat, xml, tsv, json, protanno"):
        detect_format("x.bin", b"\x00\x01")
    with pytest.raises(DataError, match="format"):
        detect_format("x.gz", b"\x1f\x8bnonsense that is no gzip stream")


@formats
@quick
@given(block_bytes=st.integers(1, 3000))
def test_read_blocks_of_any_size_give_the_same_records(
    format_name: str, block_bytes: int, tmp_path: Path
) -> None:
    name, text = FILES[format_name]
    # The last record is unfinished, so that every format also has a rejection.
    uri = write(tmp_path, name, text.encode()[:-60])
    whole = blocks_of(uri, format_name, 10**6)
    assert [item for _, item in whole[:4]] == RECORDS[:4]
    assert blocks_of(uri, format_name, block_bytes) == whole


@formats
def test_parse_block_offsets_point_into_the_file(format_name: str, tmp_path: Path) -> None:
    name, text = FILES[format_name]
    starts = {"flat": "ID   ", "xml": "<entry", "tsv": "P0000", "json": "{", "json_lines": "{"}
    for offset, item in blocks_of(write(tmp_path, name, text.encode()), format_name, 100):
        assert isinstance(item, ProteinRecord)
        assert text[offset:].startswith(starts[format_name])
        assert item.accession in text[offset : offset + 200]


@formats
@quick
@given(data=st.data())
def test_read_records_of_a_cut_gzip_are_a_prefix_and_one_rejection(
    format_name: str, data: st.DataObject, tmp_path: Path
) -> None:
    name, text = FILES[format_name]
    whole = gzip.compress(text.encode())
    cut = data.draw(st.integers(0, len(whole) - 1))
    *records, last = read_records(write(tmp_path, name + ".gz", whole[:cut]), format_name)
    assert records == RECORDS[: len(records)]
    assert isinstance(last, Rejection)
    assert last.reason == ("truncated gzip" if cut > 1 else "empty file" if cut == 0 else last.reason)


def test_read_records_keeps_all_records_before_a_cut_in_a_large_gzip(tmp_path: Path) -> None:
    text = (FILES["flat"][1] * 800).encode()
    *records, last = read_records(write(tmp_path, "x.dat.gz", gzip.compress(text, 1)[:-8]))
    assert len(records) == 4000
    assert isinstance(last, Rejection)
    assert last.reason == "truncated gzip"


def test_read_records_reads_all_members_of_a_gzip(tmp_path: Path) -> None:
    text = FILES["flat"][1].encode()
    members = b"".join(gzip.compress(text[at : at + 100]) for at in range(0, len(text), 100))
    assert list(read_records(write(tmp_path, "x.dat.gz", members))) == RECORDS


def test_read_records_reports_a_damaged_gzip(tmp_path: Path) -> None:
    text = FILES["flat"][1].encode()
    damaged = gzip.compress(text) + gzip.compress(text)[:10] + b"\xff" * 500
    *records, last = read_records(write(tmp_path, "x.dat.gz", damaged))
    assert records == RECORDS
    assert isinstance(last, Rejection)
    assert last.reason == "damaged gzip"


@pytest.mark.parametrize("format_name", [*SOURCES, "auto"])
def test_read_records_reports_an_empty_file(format_name: str, tmp_path: Path) -> None:
    for content in (b"", gzip.compress(b"")):
        assert list(read_records(write(tmp_path, "x", content), format_name)) == [
            Rejection("empty file", None, b"")
        ]


def test_read_records_reports_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"lost\.dat: no such file"):
        list(read_records(str(tmp_path / "lost.dat")))


@pytest.mark.parametrize("format_name", SOURCES)
@quick
@given(
    garbage=st.binary(min_size=1, max_size=400),
    glue=st.sampled_from([b"", b"\n//\n", b"</entry>", b'{"', b"\nID   "]),
)
def test_read_records_of_random_bytes_never_fails(
    format_name: str, garbage: bytes, glue: bytes, tmp_path: Path
) -> None:
    uri = write(tmp_path, "x", glue.join([garbage[:150], garbage[150:], b""]))
    try:
        items = list(read_records(uri, format_name))
    except DataError:
        assert format_name == "tsv"
    else:
        assert all(isinstance(item, Rejection) for item in items)


@pytest.mark.parametrize("format_name", ["flat", "xml", "json", "json_lines"])
def test_read_records_reports_garbage_with_its_bytes(format_name: str, tmp_path: Path) -> None:
    garbage = bytes(range(128, 256)) * 10
    (item,) = read_records(write(tmp_path, "x", garbage), format_name)
    assert isinstance(item, Rejection)
    assert item.raw == garbage
    assert item.reason == ("malformed JSON" if "json" in format_name else "not a UniProtKB record")


@formats
def test_read_records_rejects_a_record_beyond_the_limit_and_goes_on(
    format_name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uniprot, "MAX_RECORD_BYTES", 3000)
    monkeypatch.setattr(uniprot, "MAX_REJECTED_BYTES", 500)
    name, text = FILES[format_name]
    uri = write(tmp_path, name, text.replace("Glows very very very bright", "bright " * 3000).encode())
    for block_bytes in (100, 2000, 10**6):
        items = [item for _, item in blocks_of(uri, format_name, block_bytes)]
        rejected = items.pop(3)
        assert isinstance(rejected, Rejection)
        assert (rejected.reason, len(rejected.raw)) == ("record too long", 500)
        if format_name != "tsv":
            assert rejected.accession == "P00003"
        # Inside an array nothing shows where the next entry begins.
        skipped = format_name == "json" and block_bytes < 10**6
        assert items == RECORDS[:3] + ([] if skipped else RECORDS[4:])


def test_read_blocks_holds_little_of_a_monster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uniprot, "MAX_RECORD_BYTES", 2**20)
    text = (flat(0) + "ID   MONSTER\n" + "FT   x\n" * 5_000_000 + "//\n" + flat(1)).encode()
    uri = write(tmp_path, "x.dat.gz", gzip.compress(text, 1))
    size = len(text)
    del text
    tracemalloc.start()
    items = [item for block in read_blocks(uri, "flat", 2**18) for _, item in parse_block(block)]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert items[0] == RECORDS[0]
    assert items[2] == RECORDS[1]
    assert peak < size / 3


def test_rejections_keep_accession_and_bytes(tmp_path: Path) -> None:
    text = FILES["flat"][1].replace("     MKLVXUOZBW\n", "     MKLVXUOZB\n", 1)
    items = list(read_records(write(tmp_path, "x.dat", text.encode())))
    assert items == [
        RECORDS[0],
        Rejection(
            "sequence length differs from the stated one",
            "P00001",
            flat(1).replace("OZBW", "OZB").encode().removesuffix(b"\n"),
        ),
        *RECORDS[2:],
    ]


def test_every_real_file_is_read_as_its_description_says(real_data: Path) -> None:
    """Counts of the data folder's README: records, function, location, similarity, rejections."""
    expected = {
        "flat/bioperl.dat": (14, 8, 9, 12, {}),
        # The 29th entry is of the International Protein Index and has no name.
        "flat/biopython.dat": (28, 21, 19, 22, {"unknown review status": 1}),
        "flat/bioruby.dat": (4, 4, 4, 4, {}),
        "flat/emboss.dat.gz": (142, 120, 76, 130, {}),
        "flat/other_versions.dat": (28, 21, 19, 21, {}),
        "flat/titin.dat": (1, 1, 1, 1, {}),
        "flat/uniprot-core.dat.gz": (73, 54, 47, 48, {}),
        "flat/uniprot-rest-api.dat": (9, 5, 4, 5, {}),
        "flat/uniprot-store.dat": (19, 9, 8, 9, {}),
        "flat/odd/A8EZU1_ERROR_D6RDV7.dat": (2, 1, 1, 1, {"unknown review status": 1}),
        "flat/odd/ERROR_ERROR.dat": (0, 0, 0, 0, {"unknown review status": 2}),
        "flat/odd/hand_edited_crlf.dat": (7, 7, 7, 6, {"no sequence": 1, "no terminator": 1}),
        "xml/biopython_multi_ex.xml": (8, 6, 5, 7, {}),
        "xml/mzlib_humanGAPDH.xml": (1, 1, 1, 1, {}),
        "xml/odd/uniprot-store_google-protnlm-uniprot.xml": (0, 0, 0, 0, {"placeholder sequence": 2}),
        "xml/proteoformsuite_yeast_13_entries.xml": (13, 3, 3, 12, {}),
        "xml/swissprot_first250_part1.xml.gz": (181, 129, 42, 166, {}),
        "xml/tools-galaxyp_yeast_proteome_condensed_100.xml": (100, 0, 0, 0, {}),
        "json/search_page_25_old_schema.json": (25, 22, 0, 0, {}),
        "json/uniprotkb_results_44.json.gz": (44, 40, 28, 44, {}),
        "tsv/human_500_part1.tsv": (376, 370, 0, 0, {}),
    }
    found = {}
    for name in expected:
        items = list(read_records(str(real_data / "uniprot" / name)))
        records = [i for i in items if isinstance(i, ProteinRecord)]
        rejected = Counter(i.reason for i in items if isinstance(i, Rejection))
        found[name] = (
            len(records),
            sum(r.function is not None for r in records),
            sum(r.subcellular_location is not None for r in records),
            sum(r.similarity is not None for r in records),
            dict(rejected),
        )
    assert found == expected


def test_real_entries_agree_between_flat_file_and_xml(real_data: Path) -> None:
    by_format = {
        folder: {
            (item.accession, item.annotation_date): item
            for path in sorted((real_data / "uniprot" / folder).glob("*.*"))
            for item in read_records(str(path))
            if isinstance(item, ProteinRecord)
        }
        for folder in ("flat", "xml")
    }
    shared = by_format["flat"].keys() & by_format["xml"].keys()
    assert len(shared) == 11
    for key in shared:
        assert by_format["flat"][key] == by_format["xml"][key]
