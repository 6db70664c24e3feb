"""ProtAnno JSON lines, the published form of the paper's data: `{"seq": …, "text": biotext}`."""

import re

import xxhash

from protclip.data.formats.common import (
    BadRecord,
    Source,
    after_first,
    after_last,
    checked_sequence,
    decoded_json,
    each,
    lines,
    protein_name,
)
from protclip.records import PROPERTIES, ProteinRecord

_BIOTEXT = re.compile("".join(rf"(?:\s*\b{prop.label}: (.*?))?" for prop in PROPERTIES) + r"\s*", re.DOTALL)


def parse(raw: bytes, header: bytes = b"") -> ProteinRecord:
    """One pair.

    The pairs name no accession; a stable one is made from sequence and text. The texts stay as they
    are, so several blocks of a property keep the headings between them.

    Args:
        raw: The line's bytes.
        header: Unused.

    Raises:
        BadRecord: It is not such a line, or lacks a proper sequence or a name.
    """
    pair = decoded_json(raw)
    if not isinstance(pair, dict) or not all(isinstance(pair.get(key, ""), str) for key in ("seq", "text")):
        raise BadRecord("unexpected JSON structure")
    sequence, text = pair.get("seq", ""), pair.get("text", "")
    pieces = _BIOTEXT.fullmatch(text)
    name, function, location, similarity = pieces.groups("") if pieces else [""] * 4
    return ProteinRecord(
        accession="PA" + xxhash.xxh3_64_hexdigest(f"{sequence}\n{text}".encode()).upper(),
        entry_name="",
        reviewed=False,
        sequence=checked_sequence(sequence.encode(), None),
        protein_name=protein_name([("Full", name.removesuffix("."))]),
        function=function or None,
        subcellular_location=location or None,
        similarity=similarity or None,
    )


SOURCE = Source(each(lines, parse), after_first(b"\n"), after_last(b"\n"))
