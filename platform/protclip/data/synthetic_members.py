"""Sequences of made proteins: homologs of a family, and the signals that send them to their place.

A family's fold is one ancestral sequence with two or three motifs. A member is a mutated copy with
small insertions and deletions outside the motifs; its first motif is that of its activity, so what a
protein does can be read off the motif and nothing else. Where it goes is decided by signals that are
drawn anew for each member and put around or into the copy: a signal peptide, a transit peptide,
membrane helices, a nuclear signal, or a tail that retains or imports. Residues are ASCII bytes.
"""

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from protclip.data.synthetic_families import (
    CYTOPLASM,
    FAMILIES,
    MEMBRANE,
    MITOCHONDRION,
    NUCLEUS,
    PEROXISOME,
    RETICULUM,
    SECRETED,
    Family,
)

LAW_SEED = 20_241_220
MUTATION_RATES = (0.2, 0.6)
MOTIF_MUTATION = 0.04
INDEL_RATE = 0.012
MAX_INDEL = 4
NUM_LEANINGS = 32
LEANING_SPREAD = 0.7
CORE_LENGTHS = (60, 900)
CORE_MEDIAN = 250
CORE_SPREAD = 0.55

_ALPHABET = b"ACDEFGHIKLMNPQRSTVWY"
# Shares of the residues in percent, about those of UniProtKB as a whole.
_SHARES = np.array([8.3, 1.4, 5.5, 6.7, 3.9, 7.1, 2.3, 5.9, 5.8, 9.7, 2.4, 4.1, 4.7, 3.9, 5.5, 6.6, 5.4, 6.9,
                    1.1, 2.9]) / 100  # fmt: skip
_ALIKE = (b"ILVM", b"FWY", b"KRH", b"DENQ", b"STAG", b"C", b"P")


@dataclass(frozen=True, slots=True)
class Feature:
    """One FT line: `key` holds from `start` to `end`, counted from 1, both included."""

    key: str
    start: int
    end: int
    note: str


@dataclass(frozen=True, slots=True)
class Kin:
    """What a member is meant to be: family, activity (index) and place."""

    family: Family
    activity: int
    place: str


@dataclass(frozen=True, slots=True)
class Member:
    """A made protein: what it is, its residues, and where in them that is written."""

    kin: Kin
    sequence: bytes
    features: tuple[Feature, ...]


@dataclass(frozen=True, slots=True)
class Motif:
    """A conserved stretch of a fold; `keys` are the offsets that never change."""

    start: int
    length: int
    keys: tuple[int, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Fold:
    """The law of one family's sequences, for core positions 0..N-1.

    Attributes:
        ancestors: (activities, N) uint8 residues; rows differ in the first motif only.
        mutability: (N,) float32 factor on a member's mutation rate.
        motifs: The conserved stretches, in order.
        sites: Positions before which a helix or a nuclear signal may stand.
    """

    ancestors: NDArray[np.uint8]
    mutability: NDArray[np.float32]
    motifs: tuple[Motif, ...]
    sites: tuple[int, ...]


def _palette(letters: bytes) -> bytes:
    """A 256-byte translation table under which random bytes become these letters."""
    return bytes(letters[i % len(letters)] for i in range(256))


_HYDROPHOBIC = _palette(b"LLLLAAVVIF")
_HELIX = _palette(b"LLLLIIIVVVAAFFGM")
_TRANSIT = _palette(b"RRRSSSAAALLTQKVG")
_POLAR = _palette(b"STGNQ")
_BASIC = _palette(b"KKKR")
_MIXED = _palette(_ALPHABET)
_ACTIVE = _palette(b"CDEHKSTY")
_MOTIF_LETTERS = _palette(b"GGGDDHHCWWKPPNNSTRRYYEFAQ")


def _residues(shares: NDArray[np.float64], count: int) -> NDArray[np.uint8]:
    """`count` residues in these shares, to index with random numbers."""
    ends = np.round(np.cumsum(shares / shares.sum()) * count).astype(int)
    return np.repeat(np.frombuffer(_ALPHABET, np.uint8), np.diff(ends, prepend=0))


_BACKGROUND = _residues(_SHARES, 4096)


@functools.cache
def _substitutes() -> NDArray[np.uint8]:
    """What each residue mutates into, partly a similar one: (leaning, residue, draw), all 0 … 255.

    Genomes lean to some residues at the cost of others; a member's leaning has nothing to do with its
    family or place, and keeps composition alone from giving those away.
    """
    rng = np.random.default_rng(LAW_SEED)
    table = np.zeros((NUM_LEANINGS, 256, 256), np.uint8)
    for leaning in table:
        shares = _SHARES * rng.lognormal(0, LEANING_SPREAD, len(_SHARES))
        for group in _ALIKE:
            for residue in group:
                leaning[residue] = _residues(shares * [r != residue for r in _ALPHABET], 256)
                if alike := group.replace(bytes([residue]), b""):
                    leaning[residue, ::3] = np.resize(np.frombuffer(alike, np.uint8), 86)
    return table


def _motif_variants(rng: np.random.Generator, length: int, keys: tuple[int, ...], count: int) -> list[bytes]:
    """Motif 1 of each activity: the key residues are shared, at least half of the rest differs."""
    active = rng.bytes(len(keys)).translate(_ACTIVE)
    variants: list[bytes] = []
    while len(variants) < count:
        residues = bytearray(rng.bytes(length).translate(_MOTIF_LETTERS))
        for key, residue in zip(keys, active, strict=True):
            residues[key] = residue
        if all(sum(a != b for a, b in zip(residues, v, strict=True)) >= length // 2 for v in variants):
            variants.append(bytes(residues))
    return variants


@functools.cache
def fold(family: Family) -> Fold:
    """The fold of a family, the same in every sample."""
    rng = np.random.default_rng([LAW_SEED, FAMILIES.index(family)])
    length = int(np.clip(rng.lognormal(np.log(CORE_MEDIAN), CORE_SPREAD), *CORE_LENGTHS))
    core = _BACKGROUND[rng.integers(0, len(_BACKGROUND), length)]
    core[-1] = ord("G")  # Both kinds of tail signal end with L.
    ancestors = np.repeat(core[None], len(family.activities), axis=0)
    mutability = rng.uniform(0.7, 1.3, length).astype(np.float32)
    num_motifs = 2 if length < 120 else int(rng.integers(2, 4))
    motifs: list[Motif] = []
    for i in range(num_motifs):
        size = int(rng.integers(10, 15) if i == 0 else rng.integers(6, 15))
        room = length // num_motifs
        start = i * room + int(rng.integers(2, room - size - 2))
        keys = tuple(sorted(rng.choice(size, 2, replace=False).tolist()))
        variants = _motif_variants(rng, size, keys, len(ancestors) if i == 0 else 1)
        ancestors[:, start : start + size] = np.array([list(v) for v in variants], np.uint8)
        mutability[start : start + size] = MOTIF_MUTATION
        mutability[[start + k for k in keys]] = 0
        motifs.append(Motif(start, size, keys))
    loose = mutability > MOTIF_MUTATION
    sites = np.flatnonzero(loose[1:] & loose[:-1]) + 1
    return Fold(ancestors, mutability, tuple(motifs), tuple(sites.tolist()))


@dataclass(frozen=True, slots=True)
class _Copy:
    """A mutated core and the new position of each of its ancestor's residues."""

    residues: bytes
    where: list[int]


def _copies(rng: np.random.Generator, kins: Sequence[Kin]) -> Iterator[_Copy]:
    """Mutated cores of many members at once: everything is done on their concatenation."""
    folds = [fold(k.family) for k in kins]
    flat = np.concatenate([f.ancestors[k.activity] for f, k in zip(folds, kins, strict=True)])
    mutability = np.concatenate([f.mutability for f in folds])
    lengths = np.array([len(f.mutability) for f in folds])
    starts = np.cumsum(lengths) - lengths
    rates = np.repeat(rng.uniform(*MUTATION_RATES, len(kins)).astype(np.float32), lengths)
    hits = np.flatnonzero(rng.random(len(flat), np.float32) < rates * mutability)
    leanings = np.repeat(rng.integers(0, NUM_LEANINGS, len(kins)), lengths)
    flat[hits] = _substitutes()[leanings[hits], flat[hits], rng.integers(0, 256, len(hits))]

    loose = mutability > MOTIF_MUTATION
    # A deletion runs on for up to MAX_INDEL residues and must not reach the next member.
    for tail in range(1, MAX_INDEL + 1):
        loose[starts + lengths - tail] = False
    copies = np.ones(len(flat), np.int64)
    indels = np.flatnonzero((rng.random(len(flat), np.float32) < INDEL_RATE) & loose)
    sizes = rng.integers(1, MAX_INDEL + 1, len(indels))
    grows = rng.random(len(indels)) < 0.5
    for offset in range(MAX_INDEL):
        gone = indels[~grows & (sizes > offset)] + offset
        copies[gone[loose[gone]]] = 0
    copies[indels[grows]] = 1 + sizes[grows]

    ends = np.cumsum(copies)
    where = ends - copies
    out = np.repeat(flat, copies)
    inserted = np.ones(len(out), bool)
    inserted[where[copies > 0]] = False
    out[inserted] = _BACKGROUND[rng.integers(0, len(_BACKGROUND), int(inserted.sum()))]
    for start, length in zip(starts.tolist(), lengths.tolist(), strict=True):
        low, high = int(where[start]), int(ends[start + length - 1])
        yield _Copy(out[low:high].tobytes(), (where[start : start + length] - low).tolist())


def _signal_peptide(rng: np.random.Generator) -> bytes:
    """M, basic residues, a hydrophobic core, and A-X-A before the cut; 19 to 26 residues."""
    basic, core, polar = rng.integers((1, 10, 3), (4, 14, 6)).tolist()
    return b"".join(
        (
            b"M",
            rng.bytes(basic).translate(_BASIC),
            rng.bytes(core).translate(_HYDROPHOBIC),
            rng.bytes(polar).translate(_POLAR),
            b"A" + rng.bytes(1).translate(_POLAR) + b"A",
        )
    )


def _nuclear_signal(rng: np.random.Generator) -> bytes:
    """One basic cluster behind a proline, or two clusters ten to twelve residues apart."""
    if rng.random() < 0.5:
        return b"PK" + rng.bytes(4).translate(_BASIC) + b"KV"
    return b"KR" + rng.bytes(int(rng.integers(10, 13))).translate(_MIXED) + rng.bytes(5).translate(_BASIC)


@dataclass(frozen=True, slots=True)
class _Signals:
    """Head (with its M), tail and inserted stretches that one place asks for, with their FT keys."""

    head: bytes = b"M"
    head_key: str = ""
    head_note: str = ""
    tail: bytes = b""
    tail_note: str = ""
    inserts: tuple[bytes, ...] = ()
    insert_key: str = ""
    insert_note: str = ""


def _signals(rng: np.random.Generator, place: str, num_sites: int) -> _Signals:
    """New signals that send a protein to a place."""
    if place == SECRETED:
        return _Signals(_signal_peptide(rng), "SIGNAL")
    if place == RETICULUM:
        tail = b"KDEL" if rng.random() < 0.6 else b"HDEL"
        return _Signals(_signal_peptide(rng), "SIGNAL", tail=tail, tail_note="Prevents secretion from ER")
    if place == MITOCHONDRION:
        transit = b"M" + rng.bytes(int(rng.integers(20, 36))).translate(_TRANSIT)
        return _Signals(transit, "TRANSIT", "Mitochondrion")
    if place == MEMBRANE:
        count = min(int(rng.integers(2, 8)), max(2, num_sites // 25))
        helices = tuple(rng.bytes(int(n)).translate(_HELIX) for n in rng.integers(19, 23, count))
        return _Signals(inserts=helices, insert_key="TRANSMEM", insert_note="Helical")
    if place == NUCLEUS:
        return _Signals(
            inserts=(_nuclear_signal(rng),), insert_key="MOTIF", insert_note="Nuclear localization signal"
        )
    if place == PEROXISOME:
        tail = (b"SKL", b"ARL", b"SRL", b"AKL")[int(rng.integers(4))]
        return _Signals(tail=tail, tail_note="Microbody targeting signal")
    assert place == CYTOPLASM, place
    return _Signals()


def _member(rng: np.random.Generator, kin: Kin, copy: _Copy) -> Member:
    """Puts the signals of its place around and into a mutated core, and notes what lies where."""
    law = fold(kin.family)
    signals = _signals(rng, kin.place, len(law.sites))
    features: list[Feature] = []
    if signals.head_key:
        features.append(Feature(signals.head_key, 1, len(signals.head), signals.head_note))

    count = len(signals.inserts)
    picks = (np.arange(count) + rng.random(count)) / max(count, 1) * len(law.sites)
    sites = [law.sites[i] for i in picks.astype(int).tolist()]
    parts, cut, added = [signals.head], 0, len(signals.head)
    for site, insert in zip(sites, signals.inserts, strict=True):
        at = copy.where[site]
        parts += (copy.residues[cut:at], insert)
        features.append(
            Feature(signals.insert_key, at + added + 1, at + added + len(insert), signals.insert_note)
        )
        cut, added = at, added + len(insert)
    parts += (copy.residues[cut:], signals.tail)
    sequence = b"".join(parts)

    title = kin.family.name.capitalize()
    chemistry: list[Feature] = []
    for number, motif in enumerate(law.motifs, 1):
        before = sum(len(i) for s, i in zip(sites, signals.inserts, strict=True) if s <= motif.start)
        start = copy.where[motif.start] + len(signals.head) + before + 1
        features.append(Feature("MOTIF", start, start + motif.length - 1, f"{title} motif {number}"))
        if number == 1 and kin.family.kind == "enzyme":
            active = start + motif.keys[0]
            chemistry.append(Feature("ACT_SITE", active, active, "Proton donor/acceptor"))
        elif number <= 2:
            chemistry += (Feature("BINDING", start + k, start + k, kin.family.ligand) for k in motif.keys)
    if signals.tail:
        features.append(
            Feature("MOTIF", len(sequence) - len(signals.tail) + 1, len(sequence), signals.tail_note)
        )
    order = ("SIGNAL", "TRANSIT", "TRANSMEM", "MOTIF")
    features.sort(key=lambda f: (order.index(f.key), f.start))
    return Member(kin, sequence, (*features, *chemistry))


def members(rng: np.random.Generator, kins: Sequence[Kin]) -> Iterator[Member]:
    """One fresh member for each description, in order.

    Args:
        rng: Source of every mutation and signal.
        kins: What the members are to be; the cores of all of them are mutated together, so give
            some hundreds at a time.
    """
    for kin, copy in zip(kins, list(_copies(rng, kins)), strict=True):
        yield _member(rng, kin, copy)
