"""Evidence removal and the form of biotexts."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protclip.data import uniprot
from protclip.data.biotext import biotext, property_text, strip_evidence
from protclip.records import Property, ProteinRecord


@pytest.mark.parametrize(
    ("text", "stripped"),
    [
        ("Binds. {ECO:0000269|PubMed:1, ECO:0000305}.", "Binds."),
        ("Secreted {ECO:0000305}. Note=X. {ECO:1}.", "Secreted. Note=X."),
        ("Membrane {ECO:1}; Anchor {ECO:2}.", "Membrane; Anchor."),
        ("Binds (PubMed:1), then folds (PubMed:1,\nPubMed:2, Ref.3).", "Binds, then folds."),
        ("Cytoplasm (By similarity).", "Cytoplasm."),
        ("NUCLEAR (POTENTIAL) {EI1}.", "NUCLEAR."),
        ("Acts (Probable). Rests (Potential).", "Acts. Rests."),
        ("Binds (PubMed:1). {ECO:1}. Folds. {ECO:2}.", "Binds. Folds."),
        ("{ECO:1} Binds {ECO:1}{ECO:2} .", "Binds."),
        ("NAD(+) (By similarity, PubMed:3) is {kept} (see PubMed:4).", "NAD(+) is {kept} (see PubMed:4)."),
        ("", ""),
    ],
)
def test_strip_evidence_leaves_clean_text(text: str, stripped: str) -> None:
    assert strip_evidence(text) == stripped


_TAGS = ("{ECO:0000269|PubMed:1}", "{EI2}", "(PubMed:1, PubMed:22)", "(By similarity)", "(Probable)")
_WORDS = st.lists(st.from_regex(r"[A-Za-z]{1,6}", fullmatch=True), min_size=1, max_size=4).map(" ".join)


@given(st.lists(st.tuples(_WORDS, st.sampled_from(_TAGS), st.booleans()), min_size=1, max_size=5))
def test_strip_evidence_restores_the_untagged_sentences(parts: list[tuple[str, str, bool]]) -> None:
    tagged = " ".join(f"{words}. {tag}." if inside else f"{words} {tag}." for words, tag, inside in parts)
    assert strip_evidence(tagged) == " ".join(f"{words}." for words, _, _ in parts)


def test_property_text_has_heading_and_full_stop() -> None:
    assert property_text(Property.PROTEIN_NAME, "Lamp (LK)", "keep") == "PROTEIN NAME: Lamp (LK)."
    assert property_text(Property.FUNCTION, "Glows. {ECO:1}.", "keep") == "FUNCTION: Glows. {ECO:1}."
    assert property_text(Property.FUNCTION, "A. {ECO:1}.; FUNCTION: B.", "strip") == "FUNCTION: A. B."
    assert property_text(Property.SIMILARITY, "{ECO:1}", "strip") == ""


def test_biotext_joins_present_properties_in_order() -> None:
    texts = {Property.SIMILARITY: "Like X. {ECO:1}.", Property.FUNCTION: None, Property.PROTEIN_NAME: "Lamp"}
    assert biotext(texts, "strip") == "PROTEIN NAME: Lamp. SIMILARITY: Like X."
    assert biotext(texts, "keep") == "PROTEIN NAME: Lamp. SIMILARITY: Like X. {ECO:1}."


def test_real_texts_are_clean_after_stripping(real_data: Path) -> None:
    unclean = re.compile(
        r"\s[.,;](?:\s|$)|\.\.(?:\s|$)|\{ECO|\(PubMed|similarity\)|\(\s*\)|  |[.;,]\.", re.IGNORECASE
    )
    checked = 0
    for folder in ("flat", "xml", "json"):
        for path in sorted((real_data / "uniprot" / folder).glob("*.*")):
            for record in uniprot.read_records(str(path)):
                assert isinstance(record, ProteinRecord) or record.reason == "unknown review status"
                for prop, text in record.properties() if isinstance(record, ProteinRecord) else ():
                    if text:
                        stripped = property_text(prop, text, "strip")
                        assert not unclean.search(stripped), stripped
                        checked += 1
    assert checked > 1500
