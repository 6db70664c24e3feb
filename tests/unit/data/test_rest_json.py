"""REST JSON: both schemas, the ways entries are strung together, rejections."""

import json
from datetime import date
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protclip.data.formats import rest_json
from protclip.data.formats.common import BadRecord
from protclip.records import ProteinRecord


def evidence(code: str, source: str = "", identifier: str = "") -> dict[str, str]:
    return {"evidenceCode": code} | ({"source": source, "id": identifier} if source else {})


ENTRY: dict[str, Any] = {
    "entryType": "UniProtKB reviewed (Swiss-Prot)",
    "primaryAccession": "P00001",
    "uniProtkbId": "LAMP1_TEST",
    "entryAudit": {"lastAnnotationUpdateDate": "2020-02-03"},
    "organism": {"taxonId": 4242},
    "proteinExistence": "2: Evidence at transcript level",
    "proteinDescription": {
        "recommendedName": {
            "fullName": {"value": "Lamp {keeper}"},
            "shortNames": [{"value": "LK"}],
            "ecNumbers": [{"value": "1.2.3.4"}],
        },
        "alternativeNames": [{"fullName": {"value": 'Night "watch"'}}],
        "allergenName": {"value": "Tes t 1"},
        "cdAntigenNames": [{"value": "CD999"}],
        "contains": [{"recommendedName": {"fullName": {"value": "Small lamp"}}}],
    },
    "comments": [
        {
            "commentType": "FUNCTION",
            "texts": [
                {
                    "value": "Keeps the lamp lit",
                    "evidences": [
                        evidence("ECO:0000269", "PubMed", "1"),
                        evidence("ECO:0000303", "Reference", "Ref.2"),
                    ],
                }
            ],
        },
        {"commentType": "FUNCTION", "molecule": "Small lamp", "texts": [{"value": "Glows."}]},
        {
            "commentType": "SUBCELLULAR LOCATION",
            "note": {"texts": [{"value": "At night", "evidences": [evidence("ECO:0000305")]}]},
            "subcellularLocations": [
                {"location": {"value": "Cell membrane"}, "topology": {"value": "Lipid-anchor"}},
                {"location": {"value": "Lamp post", "evidences": [evidence("ECO:0000255")]}},
            ],
        },
        {"commentType": "SIMILARITY", "texts": [{"value": "Belongs to the lamp family"}]},
        {"commentType": "SUBUNIT", "texts": [{"value": "Monomer"}]},
    ],
    "sequence": {"value": "MKLVXUOZ", "length": 8},
}
EXPECTED = ProteinRecord(
    accession="P00001",
    entry_name="LAMP1_TEST",
    reviewed=True,
    sequence="MKLVXUOZ",
    protein_name='Lamp {keeper} (LK) (EC 1.2.3.4) (Night "watch") (allergen Tes t 1) (CD antigen CD999)',
    function="Keeps the lamp lit. {ECO:0000269|PubMed:1, ECO:0000303|Ref.2}. [Small lamp]: Glows.",
    subcellular_location="Cell membrane; Lipid-anchor. Lamp post {ECO:0000255}. "
    "Note=At night. {ECO:0000305}.",
    similarity="Belongs to the lamp family.",
    confidence=2,
    taxon_id=4242,
    annotation_date=date(2020, 2, 3),
)


def read(text: str) -> list[ProteinRecord | str]:
    data = text.encode()
    header, start = rest_json.SOURCE.start(data)
    source = rest_json.LINES if rest_json.is_lines(data) else rest_json.SOURCE
    outcomes = source.records(data[start:], header)
    return [o.reason if isinstance(o, BadRecord) else o for _, _, o in outcomes]


def test_parse_composes_the_flat_files_words() -> None:
    assert rest_json.parse(json.dumps(ENTRY).encode()) == EXPECTED


def test_parse_reads_the_schema_before_2022() -> None:
    old = {k: v for k, v in ENTRY.items() if k not in {"proteinExistence", "comments"}} | {
        "entryType": "TrEMBL"
    }
    old["proteinDescription"] = {"submissionNames": [{"fullName": {"value": "Lamp"}}]}
    found = rest_json.parse(json.dumps(old).encode())
    assert (found.reviewed, found.confidence, found.function, found.protein_name) == (
        False,
        None,
        None,
        "Lamp",
    )
    assert rest_json.parse(json.dumps(old | {"entryType": "Swiss-Prot"}).encode()).reviewed


@pytest.mark.parametrize("indent", [None, 2])
def test_records_finds_entries_however_they_are_strung_together(indent: int | None) -> None:
    page = {"facets": [{"name": "x", "values": [{"value": "]"}]}], "results": [ENTRY, ENTRY]}
    assert read(json.dumps(page, indent=indent)) == [EXPECTED] * 2
    assert read(json.dumps([ENTRY, ENTRY, ENTRY], indent=indent)) == [EXPECTED] * 3
    assert read(json.dumps(ENTRY, indent=indent)) == [EXPECTED]
    assert read(json.dumps({"results": []}, indent=indent)) == []


def test_records_keeps_the_lines_around_a_malformed_one() -> None:
    line = json.dumps(ENTRY)
    assert read(f"{line}\n{line[:-9]}\n\n{line}\n") == [EXPECTED, "malformed JSON", EXPECTED]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"primaryAccession": ""}, "no accession"),
        ({"sequence": {"value": "MK", "length": 3}}, "sequence length differs from the stated one"),
        ({"sequence": {"value": "PLACEHOLDER", "length": 0}}, "placeholder sequence"),
        ({"sequence": {"value": "M-K"}}, "letters outside the residue alphabet"),
        ({"sequence": {}}, "no sequence"),
        ({"proteinDescription": {}}, "no protein name"),
        ({"entryAudit": {"lastAnnotationUpdateDate": "today"}}, "malformed date"),
        ({"sequence": "MK"}, "unexpected JSON structure"),
        ({"comments": [{"text": "x"}]}, "unexpected JSON structure"),
        ({"uniProtkbId": "\ud800"}, "malformed JSON"),
    ],
)
def test_parse_rejects(change: dict[str, Any], reason: str) -> None:
    with pytest.raises(BadRecord, match=reason):
        rest_json.parse(json.dumps(ENTRY | change).encode())


def test_parse_rejects_deep_nesting() -> None:
    with pytest.raises(BadRecord, match="malformed JSON"):
        rest_json.parse(b'{"a":' * 100_000)


def test_leftover_names_an_improper_end() -> None:
    assert rest_json.SOURCE.leftover is not None
    for rest, header, reason in [
        (b"\n]}", b"[", ""),
        (b"\n", b"", ""),
        (b" {", b"[", "malformed JSON"),
        (b"", b"[", "malformed JSON"),
        (b"garbage", b"", "malformed JSON"),
    ]:
        assert rest_json.SOURCE.leftover(rest, header) == reason


_TEXTS = st.text('ab"\\{}[],: \n\u00e9', max_size=6)
_VALUES = st.recursive(
    _TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXTS, inner, max_size=3),
    max_leaves=6,
)
_OBJECTS = st.lists(st.dictionaries(_TEXTS, _VALUES, max_size=3), max_size=4)


@settings(max_examples=50, deadline=None)
@given(_OBJECTS, st.sampled_from([None, 1]))
def test_objects_are_found_whatever_they_hold(values: list[dict[str, Any]], indent: int | None) -> None:
    data = json.dumps(values, indent=indent, ensure_ascii=False).encode()
    header, start = rest_json.SOURCE.start(data)
    spans = [(a, b) for a, b, _ in rest_json.SOURCE.records(data[start:], header)]
    assert [json.loads(data[start:][a:b]) for a, b in spans] == values
