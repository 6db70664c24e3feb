"""Made entries as UniProtKB flat-file text, line by line in the order and widths of the real files.

PubMed numbers, DOIs and database identifiers lie in ranges that are in use nowhere, so nothing made
can be mistaken for, or resolve to, a real paper or record.
"""

import functools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from protclip.data.synthetic_families import FAMILIES, PLACES, Organism
from protclip.data.synthetic_members import Feature, Kin, Member
from protclip.data.synthetic_text import Annotation, Dice

LINE_WIDTH = 80
MAX_LENGTH = 4096
WATER_DALTON = 18.0153
# Average residue masses in dalton.
_MASSES = {
    "A": 71.0788, "C": 103.1388, "D": 115.0886, "E": 129.1155, "F": 147.1766, "G": 57.0519, "H": 137.1411,
    "I": 113.1594, "K": 128.1741, "L": 113.1594, "M": 131.1926, "N": 114.1038, "P": 97.1167, "Q": 128.1307,
    "R": 156.1875, "S": 87.0782, "T": 101.1051, "V": 99.1326, "W": 186.2132, "Y": 163.176,
}  # fmt: skip
_MASS_TABLE = np.array([_MASSES.get(chr(i), 0.0) for i in range(256)])
_CRC64_POLYNOMIAL = 0xD800000000000000
_EXISTENCE = {
    1: "Evidence at protein level",
    2: "Evidence at transcript level",
    3: "Inferred from homology",
    4: "Predicted",
    5: "Uncertain",
}
_MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
_SURNAMES = ("Almari", "Bentov", "Corvin", "Drelle", "Estran", "Farno", "Golvik", "Ivarn", "Jolin", "Lorvat")
_INITIALS = ("A.", "B.C.", "D.", "E.F.", "G.", "H.-J.", "K.", "L.M.", "P.", "R.S.", "T.")
_JOURNALS = ("J. Made Proteins", "Invented Biol.", "Proc. Soc. Fictitious Biochem.", "Unreal Genet.")
_METHODS = ("Cloning", "Structure", "Purification", "Genetics", "Localization", "Properties")
_SOURCES = ("NUCLEOTIDE SEQUENCE [LARGE SCALE GENOMIC DNA]", "NUCLEOTIDE SEQUENCE [MRNA]")
_ENZYME_KEYWORDS = {
    "1": "Oxidoreductase", "2": "Transferase", "3": "Hydrolase", "4": "Lyase", "5": "Isomerase",
    "6": "Ligase",
}  # fmt: skip
_KIND_KEYWORDS = {
    "transporter": "Transport",
    "regulator": "Transcription regulation",
    "chaperone": "Chaperone",
    "signal": "Signal transduction",
    "structural": "Structural protein",
}
_FEATURE_KEYWORDS = {
    "SIGNAL": ("Signal",),
    "TRANSIT": ("Transit peptide",),
    "TRANSMEM": ("Transmembrane", "Transmembrane helix"),
}
_LICENCE = [
    "CC   ---------------------------------------------------------------------------",
    "CC   Made data, not from UniProt: no entry describes a real protein.",
    "CC   Free for any use without any condition.",
    "CC   ---------------------------------------------------------------------------",
]


@dataclass(frozen=True, slots=True)
class Entry:
    """One made entry before it becomes text.

    Attributes:
        accession: Primary accession.
        entry_name: UniProtKB entry name.
        reviewed: Section.
        confidence: Protein existence level.
        member: The protein: sequence, features, and what it truly is.
        claimed: What the annotation says it is; differs from `member.kin` in bad entries.
        organism: Source organism.
        annotation: The words.
    """

    accession: str
    entry_name: str
    reviewed: bool
    confidence: int
    member: Member
    claimed: Kin
    organism: Organism
    annotation: Annotation


@functools.cache
def _crc64_table() -> NDArray[np.uint64]:
    """(MAX_LENGTH, 256) CRC-64 of each byte followed by 0, 1, 2 … zero bytes."""
    state = np.arange(256, dtype=np.uint64)
    for _ in range(8):
        odd = (state & 1).astype(bool)
        state >>= np.uint64(1)
        state[odd] ^= np.uint64(_CRC64_POLYNOMIAL)
    table = np.empty((MAX_LENGTH, 256), np.uint64)
    table[0] = state
    for i in range(1, MAX_LENGTH):
        table[i] = table[0][table[i - 1] & 255] ^ (table[i - 1] >> np.uint64(8))
    return table


def crc64(sequence: bytes) -> int:
    """CRC-64 (ISO 3309) of a sequence as UniProt's SQ line states it; at most MAX_LENGTH residues."""
    # The checksum is linear over GF(2), so it is the XOR of every residue's own contribution.
    residues = np.frombuffer(sequence, np.uint8)
    after = np.arange(len(sequence) - 1, -1, -1)
    return int(np.bitwise_xor.reduce(_crc64_table()[after, residues]))


def molecular_weight(sequence: bytes) -> int:
    """Average mass in dalton, rounded as on the SQ line."""
    return round(float(_MASS_TABLE[np.frombuffer(sequence, np.uint8)].sum()) + WATER_DALTON)


def _wrap(first: str, rest: str, text: str, separator: str = " ") -> Iterator[str]:
    """Lines of at most LINE_WIDTH characters, broken at the space that ends a separator."""
    room = LINE_WIDTH - len(first)
    while len(text) > room:
        cut = text.rfind(separator, 0, room + 1) + len(separator) - 1
        yield first + text[:cut]
        text = text[cut + 1 :]
        first, room = rest, LINE_WIDTH - len(rest)
    yield first + text


def _line(code: str, text: str, separator: str = " ") -> Iterator[str]:
    """A field that goes on under the same line code."""
    return _wrap(f"{code}   ", f"{code}   ", text, separator)


def _comment(topic: str, text: str) -> Iterator[str]:
    """One CC topic."""
    return _wrap(f"CC   -!- {topic}: ", "CC       ", text)


def _date(dice: Dice, first_year: int) -> str:
    """A day within the five years from `first_year` on."""
    return f"{dice.number(1, 29):02}-{dice.pick(_MONTHS)}-{dice.number(first_year, first_year + 5)}"


@dataclass(frozen=True, slots=True)
class _Sources:
    """Where the statements of an entry come from: PubMed numbers, sequence record, evidence tag."""

    papers: tuple[int, ...]
    submission: str
    tag: str


def _sources(dice: Dice, entry: Entry) -> _Sources:
    """Papers and evidence that suit the section and the protein existence level."""
    submission = f"EMBL:XXA{dice.number(10_000, 100_000)}.1"
    if not entry.reviewed:
        return _Sources((), submission, f" {{ECO:0000256|ARBA:ARBA9{dice.number(0, 10_000_000):07}}}")
    papers = tuple(900_000_000 + dice.number(0, 90_000_000) for _ in range(dice.number(1, 4)))
    if entry.confidence <= 2:
        return _Sources(papers, submission, f" {{ECO:0000269|PubMed:{papers[-1]}}}")
    if entry.confidence == 3:
        rule = (
            "ECO:0000250" if dice.chance(0.5) else f"ECO:0000255|HAMAP-Rule:MF_9{dice.number(0, 10_000):04}"
        )
        return _Sources(papers, submission, f" {{{rule}}}")
    return _Sources(papers, submission, " {ECO:0000305}")


def _names(entry: Entry, sources: _Sources) -> Iterator[str]:
    """DE and GN lines."""
    words = entry.annotation
    source = "" if entry.reviewed else f" {{ECO:0000313|{sources.submission}}}"
    category = "RecName" if entry.reviewed else "SubName"
    yield f"DE   {category}: Full={words.name}{source};"
    if words.short_name:
        yield f"DE            Short={words.short_name};"
    if words.ec and entry.reviewed:
        yield f"DE            EC={words.ec}{sources.tag};"
    for name in words.other_names:
        yield f"DE   AltName: Full={name};"
    if entry.reviewed and entry.member.features[0].key in ("SIGNAL", "TRANSIT"):
        yield "DE   Flags: Precursor;"
    yield from _line("GN", f"Name={words.gene}{source};")


def _references(dice: Dice, entry: Entry, sources: _Sources) -> Iterator[str]:
    """RN to RL lines: the papers, or one submission."""
    gene = entry.annotation.gene
    for number, paper in enumerate(sources.papers or (0,), 1):
        authors = [f"{dice.pick(_SURNAMES)} {dice.pick(_INITIALS)}" for _ in range(dice.number(1, 9))]
        yield f"RN   [{number}]" if paper else f"RN   [{number}] {{ECO:0000313|{sources.submission}}}"
        yield f"RP   {_SOURCES[0] if number == 1 else 'FUNCTION, AND SUBCELLULAR LOCATION'}."
        if number == 1 and dice.chance(0.5):
            yield f"RC   STRAIN=MADE {dice.number(1, 1000)};"
        if paper:
            yield f"RX   PubMed={paper}; DOI=10.5555/made.{paper}.{number};"
        yield from _line("RA", f"{', '.join(authors)};", ", ")
        if paper:
            title = f'"{dice.pick(_METHODS)} of the product of {gene} from {entry.organism.name}.";'
            yield from _line("RT", title)
            page = dice.number(1, 3000)
            yield (
                f"RL   {dice.pick(_JOURNALS)} {dice.number(1, 90)}:{page}-{page + dice.number(1, 20)}"
                f"({dice.number(1990, 2020)})."
            )
        else:
            date = f"{dice.pick(_MONTHS)}-{dice.number(2005, 2025)}"
            yield f"RL   Submitted ({date}) to a database that is made up."


def _comments(dice: Dice, entry: Entry, sources: _Sources) -> Iterator[str]:
    """CC lines, each text with its evidence."""
    words, tag = entry.annotation, sources.tag
    if words.function:
        sentences = list(words.function)
        if sources.papers and entry.confidence <= 2 and dice.chance(0.5):
            sentences[0] += f" (PubMed:{dice.pick(sources.papers)})"
        yield from _comment("FUNCTION", f"{'. '.join(sentences)}.{tag}.")
    if words.ec and entry.reviewed:
        left, right = f"made substrate + {entry.claimed.family.ligand}", "made product + H(+)"
        yield "CC   -!- CATALYTIC ACTIVITY:"
        yield from _wrap(
            "CC       ",
            "CC         ",
            f"Reaction={left} = {right}; EC={words.ec};",
        )
    others = {topic: f"{text}.{tag}." for topic, text in words.others.items()}
    if subunit := others.pop("SUBUNIT", ""):
        yield from _comment("SUBUNIT", subunit)
    if words.place:
        text = "; ".join(f"{part}{tag}" for part in words.place.split("; "))
        note = f" Note={words.place_note}.{tag}." if words.place_note else ""
        yield from _comment("SUBCELLULAR LOCATION", f"{text}.{note}")
    for topic, text in others.items():
        yield from _comment(topic, text)
    if words.similarity:
        yield from _comment("SIMILARITY", f"{'. '.join(words.similarity)}.{tag}.")
    yield from _LICENCE


def _cross_references(entry: Entry, sources: _Sources) -> Iterator[str]:
    """DR lines."""
    family = entry.claimed.family
    number = FAMILIES.index(family)
    yield f"DR   EMBL; XX{sources.submission[8:13]}; {sources.submission[5:]}; -; Genomic_DNA."
    if entry.annotation.place:
        yield f"DR   GO; {PLACES[entry.claimed.place].go}; IEA:UniProtKB-KW."
    yield f"DR   InterPro; IPR99{number:04}; {family.name.capitalize()}."
    yield f"DR   Pfam; PF99{number:03}; {family.name.capitalize()}; 1."


def _keywords(entry: Entry, sources: _Sources) -> Iterator[str]:
    """KW lines."""
    words, kind = entry.annotation, entry.claimed.family.kind
    found = {k for f in entry.member.features for k in _FEATURE_KEYWORDS.get(f.key, ())}
    if words.place:
        found.add(PLACES[entry.claimed.place].keyword)
    if words.function:
        found |= {_ENZYME_KEYWORDS[words.ec[0]]} if words.ec else {_KIND_KEYWORDS.get(kind, "Ligand-binding")}
    if found:
        source = "" if entry.reviewed else sources.tag
        yield from _line("KW", f"{'; '.join(f'{k}{source}' for k in sorted(found))}.")


def _features(features: Iterable[Feature], length: int, accession_number: int) -> Iterator[str]:
    """FT lines in the multi-line format; a cut-off head leaves a CHAIN."""
    for feature in features:
        where = f"{feature.start}..{feature.end}" if feature.end > feature.start else str(feature.start)
        yield f"FT   {feature.key:<16}{where}"
        if feature.note:
            qualifier = "ligand" if feature.key == "BINDING" else "note"
            yield f'FT                   /{qualifier}="{feature.note}"'
        yield 'FT                   /evidence="ECO:0000255"'
        if feature.key in ("SIGNAL", "TRANSIT"):
            yield f"FT   {'CHAIN':<16}{feature.end + 1}..{length}"
            yield f'FT                   /id="PRO_9{accession_number:09}"'


def _sequence(sequence: str) -> Iterator[str]:
    """Sixty residues a line, in tens."""
    for start in range(0, len(sequence), 60):
        line = sequence[start : start + 60]
        yield "     " + " ".join([line[i : i + 10] for i in range(0, len(line), 10)])


def render(dice: Dice, entry: Entry, number: int) -> bytes:
    """The entry as flat-file text, `//` included.

    Args:
        dice: Source of dates, papers and authors.
        entry: What to write.
        number: The entry's number in its section, for identifiers.
    """
    sequence, organism = entry.member.sequence, entry.organism
    length = len(sequence)
    status, database = ("Reviewed;", "Swiss-Prot") if entry.reviewed else ("Unreviewed;", "TrEMBL")
    sources = _sources(dice, entry)
    lines = [
        f"ID   {entry.entry_name:<24}{status:<11}{length:>10} AA.",
        f"AC   {entry.accession};",
        f"DT   {_date(dice, 1995)}, integrated into UniProtKB/{database}.",
        f"DT   {_date(dice, 2005)}, sequence version {dice.number(1, 4)}.",
        f"DT   {_date(dice, 2020)}, entry version {dice.number(1, 180)}.",
        *_names(entry, sources),
        *_line("OS", f"{organism.name}."),
        *_line("OC", f"{organism.lineage}."),
        f"OX   NCBI_TaxID={organism.taxon_id};",
        *_references(dice, entry, sources),
        *_comments(dice, entry, sources),
        *_cross_references(entry, sources),
        f"PE   {entry.confidence}: {_EXISTENCE[entry.confidence]};",
        *_keywords(entry, sources),
        *_features(entry.member.features, length, number),
        f"SQ   SEQUENCE {length:>5} AA; {molecular_weight(sequence):>6} MW;  {crc64(sequence):016X} CRC64;",
        *_sequence(sequence.decode()),
        "//\n",
    ]
    return "\n".join(lines).encode()
