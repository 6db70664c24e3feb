"""A made UniProtKB of any size: something to learn from in a bare clone, in tests and in benchmarks.

The writer streams; its memory does not grow with the number of entries, and the same seed gives the
same bytes. An entry depends on its section, its number and the seed alone, so a smaller sample is the
beginning of a larger one. Shares of confidence C and coverage R are those the paper publishes for
ProtAnno-S (reviewed) and ProtAnno-D (unreviewed), drawn independently of each other.

The worse C, the likelier an entry's words belong to a protein of another family and place, which is
what makes it worth while to sample by confidence.
"""

import functools
import gzip
import itertools
import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from protclip import storage
from protclip.data.synthetic_families import EUKARYOTES, EVERYWHERE, FAMILIES, ORGANISMS, PLACES
from protclip.data.synthetic_flat import Entry, render
from protclip.data.synthetic_members import Kin, members
from protclip.data.synthetic_text import Dice, annotate
from protclip.errors import ConfigError
from protclip.progress import progress
from protclip.records import CONFIDENCE_LEVELS, COVERAGE_LEVELS, Property

log = logging.getLogger(__name__)

SectionName = Literal["reviewed", "unreviewed"]

BLOCK_ENTRIES = 256
GZIP_LEVEL = 1
WRONG_SHARES = {1: 0.0, 2: 0.02, 3: 0.05, 4: 0.35, 5: 0.5}
BENCHMARK_SPLITS = {"train": 1200, "valid": 200, "test": 400}

_LETTERS, _DIGITS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ", "0123456789"
_ANY = _LETTERS + _DIGITS
# Coprime to the sizes of all identifier spaces below (their prime factors are 2, 3, 5 and 13).
_STRIDE = 7_368_787
_WORD_STREAM, _PAPER_STREAM, _BENCHMARK_STREAM = 2, 3, 4


@dataclass(frozen=True, slots=True)
class Section:
    """One of UniProtKB's two sections: its file, shares of C = 1 … 5 and R = 1/4 … 4/4, identifiers.

    `accession` lists the letters allowed at each place (a part of UniProt's own pattern).
    """

    stream: int
    file: str
    confidence: tuple[float, ...]
    coverage: tuple[float, ...]
    accession: tuple[str, ...]


SECTIONS: dict[SectionName, Section] = {
    "reviewed": Section(
        0,
        "uniprot_sprot.dat.gz",
        (0.1982, 0.0980, 0.6777, 0.0229, 0.0032),
        (0.0259, 0.1062, 0.3691, 0.4988),
        ("OPQ", _DIGITS, _ANY, _ANY, _ANY, _DIGITS),
    ),
    "unreviewed": Section(
        1,
        "uniprot_trembl.dat.gz",
        (0.0013, 0.0057, 0.3269, 0.6661, 0.0),
        (0.6211, 0.1814, 0.1182, 0.0793),
        ("A", "0", "A", _ANY, _ANY, _DIGITS, _LETTERS, _ANY, _ANY, _DIGITS),
    ),
}
_ENTRY_NAME = (_LETTERS, _ANY, _ANY, _ANY, _ANY)

_F, _L, _S = Property.FUNCTION, Property.SUBCELLULAR_LOCATION, Property.SIMILARITY
# Which properties accompany the name, for each number of properties; a set that comes up more often
# stands there more often.
_PRESENT: dict[int, tuple[frozenset[Property], ...]] = {
    1: (frozenset(),),
    2: tuple(frozenset({p}) for p in (_S, _S, _S, _F, _F, _L)),
    3: tuple(frozenset(p) for p in ((_F, _S), (_F, _S), (_F, _S), (_L, _S), (_F, _L))),
    4: (frozenset({_F, _L, _S}),),
}

_KINS = tuple(
    tuple(
        Kin(family, activity, place) for activity in range(len(family.activities)) for place in family.places
    )
    for family in FAMILIES
)
_KINS_BY_PLACE = {place: tuple(k for kins in _KINS for k in kins if k.place == place) for place in PLACES}


@functools.cache
def _capacity(alphabets: tuple[str, ...]) -> int:
    """How many identifiers there are."""
    return math.prod(map(len, alphabets))


def _identifier(number: int, alphabets: tuple[str, ...]) -> str:
    """The number-th identifier: a permutation of the numbers, spelt in mixed radix."""
    rest = (number + 1) * _STRIDE % _capacity(alphabets)
    letters: list[str] = []
    for alphabet in reversed(alphabets):
        rest, digit = divmod(rest, len(alphabet))
        letters.append(alphabet[digit])
    return "".join(reversed(letters))


def accession(section: SectionName, number: int) -> str:
    """Accession of a section's entry `number`; a one-to-one map into UniProt's accession pattern.

    Raises:
        ConfigError: The section has no room for so many entries.
    """
    alphabets = SECTIONS[section].accession
    if number >= _capacity(alphabets):
        raise ConfigError(
            f"the {section} section of a made sample holds at most {_capacity(alphabets):,} entries; "
            f"entry {number:,} was asked for; make a smaller sample"
        )
    return _identifier(number, alphabets)


def _false_kin(dice: Dice, true: Kin) -> Kin:
    """Something of another family and another place."""
    while True:
        kin = dice.pick(dice.pick(_KINS))
        if kin.family is not true.family and kin.place != true.place:
            return kin


def _block(name: SectionName, block: int, seed: int) -> Iterator[Entry]:
    """The entries of one block of numbers."""
    section, reviewed = SECTIONS[name], name == "reviewed"
    rng = np.random.default_rng([seed, section.stream, block])
    dice = Dice(np.random.default_rng([seed, section.stream, block, _WORD_STREAM]))
    confidences = rng.choice(CONFIDENCE_LEVELS, BLOCK_ENTRIES, p=section.confidence).tolist()
    coverages = rng.choice(COVERAGE_LEVELS, BLOCK_ENTRIES, p=section.coverage).tolist()
    kins = [dice.pick(dice.pick(_KINS)) for _ in range(BLOCK_ENTRIES)]
    for i, member in enumerate(members(rng, kins)):
        number, confidence = block * BLOCK_ENTRIES + i, confidences[i]
        identifier = accession(name, number)
        claimed = _false_kin(dice, member.kin) if dice.chance(WRONG_SHARES[confidence]) else member.kin
        organism = dice.pick(ORGANISMS if member.kin.place in EVERYWHERE else EUKARYOTES)
        mnemonic = _identifier(number, _ENTRY_NAME) if reviewed else identifier
        yield Entry(
            identifier,
            f"{mnemonic}_{organism.code}",
            reviewed,
            confidence,
            member,
            claimed,
            organism,
            annotate(
                dice,
                claimed,
                organism,
                reviewed=reviewed,
                confidence=confidence,
                present=dice.pick(_PRESENT[coverages[i]]),
            ),
        )


def records(section: SectionName, num_entries: int, seed: int) -> Iterator[Entry]:
    """Made entries with what is true and what is claimed about them, lazily."""
    for start in range(0, num_entries, BLOCK_ENTRIES):
        block = _block(section, start // BLOCK_ENTRIES, seed)
        yield from itertools.islice(block, num_entries - start)


def entries(section: SectionName, num_entries: int, seed: int) -> Iterator[bytes]:
    """The same entries as flat-file text, each with its closing `//` line, lazily."""
    dice = Dice(np.random.default_rng([seed, SECTIONS[section].stream, _PAPER_STREAM]))
    for number, entry in enumerate(records(section, num_entries, seed)):
        yield render(dice, entry, number)


def locations(num_rows: int, seed: int) -> Iterator[tuple[str, str]]:
    """Fresh members of the same families with their true place, all places equally likely, lazily."""
    for start in range(0, num_rows, BLOCK_ENTRIES):
        rng = np.random.default_rng([seed, _BENCHMARK_STREAM, start])
        dice = Dice(rng.spawn(1)[0])
        kins = [dice.pick(_KINS_BY_PLACE[dice.pick(tuple(PLACES))]) for _ in range(BLOCK_ENTRIES)]
        for member in list(members(rng, kins))[: num_rows - start]:
            yield member.sequence.decode(), member.kin.place


def write_sample(output: str, num_reviewed: int, num_unreviewed: int, seed: int) -> dict[str, str]:
    """Writes a made sample: both sections as gzipped flat files, and a location benchmark.

    Args:
        output: Directory to write into, local or `s3://`.
        num_reviewed: Entries of `uniprot_sprot.dat.gz`; with 0 the file is left out.
        num_unreviewed: Entries of `uniprot_trembl.dat.gz`; likewise.
        seed: Same seed, same bytes. The families are the same whatever the seed.

    Returns:
        The URIs written, by name: `reviewed`, `unreviewed`, `made_location`.

    Raises:
        ConfigError: A number is negative or too large.
        DataError: The output cannot be written.
    """
    sizes: dict[SectionName, int] = {"reviewed": num_reviewed, "unreviewed": num_unreviewed}
    if min(num_reviewed, num_unreviewed, seed) < 0:
        raise ConfigError(
            f"a made sample of {num_reviewed} and {num_unreviewed} entries with seed {seed}: "
            "none of the three may be negative"
        )
    written: dict[str, str] = {}
    for name, size in sizes.items():
        if not size:
            continue
        accession(name, size - 1)
        uri = written[name] = storage.join(output, SECTIONS[name].file)
        with (
            storage.atomic_writer(uri) as sink,
            gzip.GzipFile("", "wb", GZIP_LEVEL, sink, mtime=0) as file,
        ):
            for entry in progress(
                name, " entries", size, iterable=entries(name, size, seed), unit_scale=True
            ):
                file.write(entry)
    uri = written["made_location"] = storage.join(output, "benchmarks", "made_location.csv")
    scale = min(1.0, (num_reviewed + num_unreviewed) / 6000)
    splits = [s for s, n in BENCHMARK_SPLITS.items() for _ in range(max(20, round(n * scale)))]
    rows = (f"{q},{p},{s}\n" for (q, p), s in zip(locations(len(splits), seed), splits, strict=True))
    storage.write_bytes(uri, "".join(("sequence,label,split\n", *rows)).encode())
    log.info("made sample: %s", ", ".join(written.values()))
    return written
