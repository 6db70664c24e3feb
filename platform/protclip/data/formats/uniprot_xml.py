"""UniProtKB XML: `<entry>` elements of https://www.uniprot.org/docs/uniprot.xsd, parsed one at a time."""

import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from xml.etree.ElementTree import Element

from protclip.data.formats.common import (
    BadRecord,
    Source,
    after_first,
    after_last,
    checked_sequence,
    confidence,
    each,
    iso_date,
    joined,
    location_text,
    protein_name,
    sentence,
    taxon,
    with_evidence,
)
from protclip.records import ProteinRecord

_ENCODING = re.compile(rb"""\A\s*<\?xml[^>]*\sencoding=["']([\w.-]+)""")
_NAMESPACE = re.compile(rb"""\A(<entry\b[^>]*?)\sxmlns=(?:"[^"]*"|'[^']*')""")
_OWN_NAMES = {
    "recommendedName": "",
    "submittedName": "",
    "alternativeName": "",
    "allergenName": "Allergen",
    "biotechName": "Biotech",
    "cdAntigenName": "CD_antigen",
    "innName": "INN",
}
_PART_KEYS = {"fullName": "Full", "shortName": "Short", "ecNumber": "EC"}
_CAPITALISED = (
    "Bacterial extracellular",
    "Cajal",
    "Cytoplasmic ribonucleoprotein",
    "Golgi",
    "Host pathogen",
    "Midbody ring",
    "Nuclear body",
    "Nucleolus fibrillar",
    "Stress granule",
    "Target membrane",
)
"""Parts of a location that keep their capital in UniProt's list of locations (`subcell.txt`)."""


def _start(head: bytes) -> tuple[bytes, int]:
    """The declared encoding, and where the first entry begins."""
    declared = _ENCODING.match(head)
    return declared[1] if declared else b"utf-8", max(head.find(b"<entry"), 0)


def _entries(data: bytes) -> Iterator[tuple[int, int]]:
    """Spans of the entry elements; what stands before one belongs to it when it does not begin."""
    start = 0
    while (end := data.find(b"</entry>", start)) >= 0:
        end += len(b"</entry>")
        yield max(data.find(b"<entry", start, end), start), end
        start = end


def _leftover(rest: bytes, header: bytes) -> str:
    """Only the closing tag and the copyright may follow the last entry."""
    if b"<entry" in rest or not rest.strip():
        return "no terminator"
    return "" if b"</uniprot>" in rest else "not a UniProtKB record"


def parse(raw: bytes, header: bytes = b"utf-8") -> ProteinRecord:
    """One entry element.

    Args:
        raw: The element's bytes; the namespace may be declared on it or on the root.
        header: Character encoding of the file.

    Raises:
        BadRecord: It is not well-formed, or lacks accession, name or a proper sequence.
    """
    if not raw.startswith(b"<entry"):
        raise BadRecord("malformed XML")
    try:
        # An element by itself cannot declare entities, so there is nothing to expand.
        parser = ET.XMLParser(encoding=header.decode())  # noqa: S314
        entry = ET.fromstring(_NAMESPACE.sub(rb"\1", raw), parser)  # noqa: S314
    except (ET.ParseError, LookupError, ValueError) as error:
        raise BadRecord("malformed XML") from error
    accession = (entry.findtext("accession") or "").strip()
    if not accession:
        raise BadRecord("no accession")
    sequences = entry.findall("sequence")
    if not sequences:
        raise BadRecord("no sequence")
    stated = sequences[-1].get("length", "")
    sequence = "".join((sequences[-1].text or "").split())
    evidence = _Evidence(entry)
    existence = entry.find("proteinExistence")
    organism = entry.find("organism/dbReference[@type='NCBI Taxonomy']")
    return ProteinRecord(
        accession=accession,
        entry_name=(entry.findtext("name") or "").strip(),
        reviewed=entry.get("dataset") == "Swiss-Prot",
        sequence=checked_sequence(sequence.encode(), int(stated) if stated.isdecimal() else None),
        protein_name=protein_name(_names(entry)),
        function=joined([evidence.free_text(c) for c in _comments(entry, "function")]),
        subcellular_location=joined(
            [evidence.locations(c) for c in _comments(entry, "subcellular location")]
        ),
        similarity=joined([evidence.free_text(c) for c in _comments(entry, "similarity")]),
        confidence=confidence(existence.get("type")) if existence is not None else None,
        taxon_id=taxon(organism.get("id")) if organism is not None else None,
        annotation_date=iso_date(entry.get("modified")),
    )


def _names(entry: Element) -> Iterator[tuple[str, str]]:
    """The protein's own names; `<domain>` and `<component>` name other proteins."""
    for tag, key in _OWN_NAMES.items():
        for name in entry.findall(f"protein/{tag}"):
            if key:
                yield key, (name.text or "").strip()
            for part in name:
                yield _PART_KEYS.get(part.tag, ""), (part.text or "").strip()
            # Before 2011 a name points to the entry's cross references for its EC numbers.
            for reference in name.get("ref", "").split():
                for number in entry.findall(f"dbReference[@type='EC'][@key='{reference}']"):
                    yield "EC", number.get("id", "")


def _comments(entry: Element, topic: str) -> list[Element]:
    """The comments of one topic."""
    return entry.findall(f"comment[@type='{topic}']")


class _Evidence:
    """Words comments as the flat file does, with the entry's numbered evidence written out."""

    def __init__(self, entry: Element) -> None:
        self._tags = {e.get("key", ""): self._tag(e) for e in entry.findall("evidence")}

    @staticmethod
    def _tag(evidence: Element) -> str:
        """Flat file form of one evidence, such as "ECO:0000269|PubMed:1"."""
        code = evidence.get("type", "")
        source = evidence.find("source")
        if source is None:
            return code
        if reference := source.get("ref"):
            return f"{code}|Ref.{reference}"
        origin = source.find("dbReference")
        return code if origin is None else f"{code}|{origin.get('type')}:{origin.get('id')}"

    def _of(self, element: Element) -> list[str]:
        """Tags of the evidence an element refers to; keys of files before 2014 stand for no code."""
        keys = element.get("evidence", "").split()
        return [tag for key in keys if (tag := self._tags.get(key, "")).startswith("ECO:")]

    def _status(self, element: Element, text: str) -> str:
        """A text with the qualifier that files before 2014 keep in an attribute."""
        status = element.get("status")
        return f"{text.removesuffix('.')} ({status.capitalize()})" if status else text

    def _molecule(self, comment: Element) -> str:
        """The isoform or chain a comment speaks of, as "[Isoform 2]: "."""
        molecule = (comment.findtext("molecule") or "").strip()
        return f"[{molecule}]: " if molecule else ""

    def _texts(self, comment: Element) -> str:
        """All free texts of a comment."""
        return " ".join(
            sentence(self._status(text, (text.text or "").strip()), self._of(text))
            for text in comment.findall("text")
            if (text.text or "").strip()
        )

    def free_text(self, comment: Element) -> str:
        """A FUNCTION or SIMILARITY block; empty when it says nothing."""
        text = self._texts(comment)
        return text and self._molecule(comment) + text

    def locations(self, comment: Element) -> str:
        """A SUBCELLULAR LOCATION block; empty when it says nothing."""
        places = [
            "; ".join(
                self._path(parts)
                for kind in ("location", "topology", "orientation")
                if (parts := place.findall(kind))
            )
            for place in comment.findall("subcellularLocation")
        ]
        text = location_text(places, self._texts(comment))
        return text and self._molecule(comment) + text

    def _path(self, parts: list[Element]) -> str:
        """Nested locations as "Cell projection, filopodium {evidence}"."""
        names = [(part.text or "").strip() for part in parts]
        path = ", ".join([names[0], *(_uncapitalised(name) for name in names[1:])])
        return with_evidence(self._status(parts[-1], path), self._of(parts[-1]))


def _uncapitalised(name: str) -> str:
    """A location inside another one, without the capital that XML gives it."""
    keeps = not name[1:2].islower() or name.startswith(_CAPITALISED)
    return name if keeps else name[0].lower() + name[1:]


SOURCE = Source(each(_entries, parse), after_first(b"</entry>"), after_last(b"</entry>"), _start, _leftover)
