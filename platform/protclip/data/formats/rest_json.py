"""UniProtKB REST JSON: search pages (`results`), arrays, single entries, or one entry a line.

Reads the present schema and the one before 2022 (`entryType` "Swiss-Prot" or "TrEMBL").
"""

import re
from collections.abc import Iterator
from typing import Any

from protclip.data.formats.common import (
    BadRecord,
    Source,
    after_first,
    after_last,
    checked_sequence,
    confidence,
    decoded_json,
    each,
    iso_date,
    joined,
    lines,
    location_text,
    protein_name,
    sentence,
    taxon,
    with_evidence,
)
from protclip.records import ProteinRecord

Node = dict[str, Any]

_ARRAY = re.compile(rb'\s*(?:\[|\{(?:(?!"primaryAccession").)*?"results"\s*:\s*\[)', re.DOTALL)
_OBJECT = re.compile(rb"[\s,]*(\{)")
_BRACE = re.compile(rb'(?:[^"{}]++|"(?:[^"\\]++|\\.)*+")*+([{}])', re.DOTALL)
_OWN_NAMES = {
    "allergenName": "Allergen",
    "biotechName": "Biotech",
    "cdAntigenNames": "CD_antigen",
    "innNames": "INN",
}


def is_lines(head: bytes) -> bool:
    """Whether a file that begins with `head` holds one entry a line."""
    return _ARRAY.match(head) is None and head.lstrip().partition(b"\n")[0].strip() != b"{"


def _start(head: bytes) -> tuple[bytes, int]:
    """Where the first entry begins; the header is "[" when an array holds the entries."""
    array = _ARRAY.match(head)
    return (b"[", array.end()) if array else (b"", 0)


def _objects(data: bytes) -> Iterator[tuple[int, int]]:
    """Spans of the complete objects in a row, found by their braces."""
    position = 0
    while begin := _OBJECT.match(data, position):
        depth, position = 1, begin.end()
        while depth:
            brace = _BRACE.match(data, position)
            if brace is None:
                return
            depth += 1 if brace[1] == b"{" else -1
            position = brace.end()
        yield begin.start(1), position


def _last_end(data: bytes) -> int:
    """Offset just after the last complete object."""
    return max((end for _, end in _objects(data)), default=0)


def _never(data: bytes) -> int:
    """Inside an object nothing shows where the next one of an array begins."""
    return 0


def _leftover(rest: bytes, header: bytes) -> str:
    """Only the rest of the page may follow the array, and nothing a single entry."""
    rest = rest.strip()
    return "malformed JSON" if (header and not rest.startswith(b"]")) or (rest and not header) else ""


def parse(raw: bytes, header: bytes = b"") -> ProteinRecord:
    """One entry object.

    Args:
        raw: The object's bytes.
        header: Unused.

    Raises:
        BadRecord: It is not JSON, not such an object, or lacks accession, name or a proper sequence.
    """
    entry = decoded_json(raw)
    try:
        return _record(entry)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise BadRecord("unexpected JSON structure") from error


def _record(entry: Node) -> ProteinRecord:
    """The record of one decoded entry."""
    accession = entry.get("primaryAccession", "").strip()
    if not accession:
        raise BadRecord("no accession")
    sequence = entry.get("sequence", {})
    comments = entry.get("comments", [])
    return ProteinRecord(
        accession=accession,
        entry_name=entry.get("uniProtkbId", ""),
        reviewed="Swiss-Prot" in entry.get("entryType", ""),
        sequence=checked_sequence(sequence.get("value", "").encode(), sequence.get("length")),
        protein_name=protein_name(_names(entry.get("proteinDescription", {}))),
        function=joined([_free_text(c) for c in comments if c["commentType"] == "FUNCTION"]),
        subcellular_location=joined(
            [_locations(c) for c in comments if c["commentType"] == "SUBCELLULAR LOCATION"]
        ),
        similarity=joined([_free_text(c) for c in comments if c["commentType"] == "SIMILARITY"]),
        confidence=confidence(entry.get("proteinExistence")),
        taxon_id=taxon(str(entry.get("organism", {}).get("taxonId", ""))),
        annotation_date=iso_date(entry.get("entryAudit", {}).get("lastAnnotationUpdateDate")),
    )


def _names(description: Node) -> Iterator[tuple[str, str]]:
    """The protein's own names; `contains` and `includes` name other proteins."""
    main = [description["recommendedName"]] if "recommendedName" in description else []
    others = [*description.get("submissionNames", []), *description.get("alternativeNames", [])]
    for name in main + others:
        yield "Full", name.get("fullName", {}).get("value", "")
        for short in name.get("shortNames", []):
            yield "Short", short["value"]
        for number in name.get("ecNumbers", []):
            yield "EC", number["value"]
    for field, key in _OWN_NAMES.items():
        names = description.get(field, [])
        for name in names if isinstance(names, list) else [names]:
            yield key, name["value"]


def _tags(node: Node) -> list[str]:
    """Evidence in the flat file's form, such as "ECO:0000269|PubMed:1"."""
    tags: list[str] = []
    for evidence in node.get("evidences", []):
        origin = [evidence["source"]] if evidence.get("source", "Reference") != "Reference" else []
        origin += [evidence["id"]] if "id" in evidence else []
        tags.append("|".join(filter(None, (evidence["evidenceCode"], ":".join(origin)))))
    return tags


def _texts(node: Node) -> str:
    """All free texts of a comment or a note."""
    return " ".join(sentence(text["value"], _tags(text)) for text in node.get("texts", []) if text["value"])


def _molecule(comment: Node) -> str:
    """The isoform or chain a comment speaks of, as "[Isoform 2]: "."""
    return f"[{comment['molecule']}]: " if comment.get("molecule") else ""


def _free_text(comment: Node) -> str:
    """A FUNCTION or SIMILARITY block; empty when it says nothing."""
    text = _texts(comment)
    return text and _molecule(comment) + text


def _locations(comment: Node) -> str:
    """A SUBCELLULAR LOCATION block; empty when it says nothing."""
    places = [
        "; ".join(
            with_evidence(place[kind]["value"], _tags(place[kind]))
            for kind in ("location", "topology", "orientation")
            if kind in place
        )
        for place in comment.get("subcellularLocations", [])
    ]
    text = location_text(places, _texts(comment.get("note", {})))
    return text and _molecule(comment) + text


SOURCE = Source(each(_objects, parse), _never, _last_end, _start, _leftover)
LINES = Source(each(lines, parse), after_first(b"\n"), after_last(b"\n"))
