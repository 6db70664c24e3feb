"""Biotexts: the four properties of a protein as one text (paper, section "ProtAnno")."""

import re
from collections.abc import Mapping
from typing import Literal

from protclip.records import PROPERTIES, Property

Evidence = Literal["strip", "keep"]

_WORDS = r"(?:PubMed:\d+|Ref\.\d+|By similarity|Potential|Probable)"
_TAG = rf"(?i:\{{(?:ECO:|E[ACIP]\d)[^{{}}]*\}}|\({_WORDS}(?:,\s*{_WORDS})*\))"
_SECOND_STOP = re.compile(rf"(?<=\.)(?:\s*{_TAG})+\.")
_EVIDENCE = re.compile(rf"\s*{_TAG}")
_SPACE_BEFORE_STOP = re.compile(r"\s+(?=[.,;:](?:\s|$))")


def strip_evidence(text: str) -> str:
    """A text without evidence, and with the punctuation that this leaves made clean.

    Evidence is `{ECO:…}`, older tags such as `{EI1}`, and brackets that hold nothing but PubMed or
    reference numbers, "By similarity", "Potential" or "Probable".
    """
    text = _EVIDENCE.sub("", _SECOND_STOP.sub("", text))
    return _SPACE_BEFORE_STOP.sub("", text).strip()


def property_text(prop: Property, text: str, evidence: Evidence) -> str:
    """One property with its heading, such as "FUNCTION: Binds zinc.".

    Args:
        prop: The property.
        text: Its text without heading.
        evidence: "keep" leaves the text as it is, as the paper does; "strip" removes evidence, and
            the headings between several blocks that ProtAnno's published pairs have.

    Returns:
        The piece, closed by a full stop; empty when nothing but evidence was there.
    """
    if evidence == "strip":
        text = strip_evidence(text).replace(f"; {prop.label}: ", " ")
    if not text:
        return ""
    return f"{prop.label}: {text}" + ("" if text.endswith(".") else ".")


def biotext(texts: Mapping[Property, str | None], evidence: Evidence) -> str:
    """The properties that are present, in their fixed order, joined by one space.

    Args:
        texts: Text of each property; absent or None when the protein has none.
        evidence: As in `property_text`.
    """
    pieces = (property_text(prop, text, evidence) for prop in PROPERTIES if (text := texts.get(prop)))
    return " ".join(filter(None, pieces))
