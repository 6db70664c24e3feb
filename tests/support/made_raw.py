"""Made official files of labelled sequences, in the layout of the real ones.

Letters of the sequences depend on what is to be predicted, so that there is something to learn.
"""

import gzip
import io
import pickle
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import lmdb
import numpy as np

from made_primekg import write_links, write_primekg
from protclip.evaluation.raw.deepfri import RESIDUES, DeepfriSection
from protclip.evaluation.raw.deeploc import LOCATIONS, DeeplocSection
from protclip.evaluation.raw.flip import FlipSection
from protclip.evaluation.raw.lmdb import LmdbSection
from protclip.evaluation.raw.table import TableSection

LETTERS = "ACDEFGHIKLMNPQRSTVWY"
SIZES = {"train": 60, "valid": 20, "test": 30}
SPLITS = [split for split, size in SIZES.items() for _ in range(size)]
CODES = {letter: code for code, letter in RESIDUES.items() if code != "MSE"}


def made_sequence(rng: np.random.Generator, marks: Sequence[int], residues: int = 40) -> str:
    """Random residues, half of them the letters of the marks, if there are any."""
    letters = rng.choice(list(LETTERS), residues)
    for mark in marks:
        letters[rng.random(residues) < 0.5 / len(marks)] = LETTERS[mark % len(LETTERS)]
    return "".join(letters)


def made_number(rng: np.random.Generator, number: float, residues: int = 40) -> str:
    """Random residues, the more tryptophans the larger the number, which is between 0 and 1."""
    letters = rng.choice(list(LETTERS[:-2]), residues)
    letters[rng.random(residues) < 0.8 * number] = "W"
    return "".join(letters)


def write_text(path: Path, lines: Iterable[str], newline: str = "\n") -> None:
    """Writes lines, gzipped if the name says so."""
    data = "".join(line + newline for line in lines).encode()
    path.write_bytes(gzip.compress(data, mtime=0) if path.suffix == ".gz" else data)


def write_lmdb_archive(path: Path, name: str, splits: Mapping[str, Sequence[Mapping[str, object]]]) -> None:
    """A task as TAPE and PEER publish it: `NAME/NAME_SPLIT.lmdb/data.mdb` in a tar.gz, values pickled.

    Args:
        path: The archive.
        name: Of the task.
        splits: Records by split, each with `primary` and the target.
    """
    with tempfile.TemporaryDirectory() as folder, tarfile.open(path, "w:gz") as tar:
        for split, records in splits.items():
            place = Path(folder) / f"{name}_{split}.lmdb"
            with lmdb.open(str(place), map_size=2**24) as env, env.begin(write=True) as transaction:
                transaction.put(b"num_examples", pickle.dumps(len(records)))
                for index, record in enumerate(records):
                    transaction.put(str(index).encode(), pickle.dumps(dict(record)))
            for file in ("data.mdb", "lock.mdb"):
                tar.add(place / file, f"{name}/{place.name}/{file}")


def _lmdb(section: LmdbSection, paths: Mapping[str, Path], rng: np.random.Generator) -> None:
    """TAPE or PEER."""
    classes = section.classes if isinstance(section.classes, int) else len(section.classes or ())
    splits: dict[str, list[dict[str, object]]] = {split: [] for split in SIZES}
    # So many that every class has an example to learn from.
    for i, split in enumerate(SPLITS * (1 + classes // SIZES["train"])):
        if classes:
            number = len(splits[split]) % classes
            target, sequence = number, made_sequence(rng, [number])
        else:
            value = float(rng.random())
            target, sequence = np.array([value]), made_number(rng, value)
        splits[split].append({"primary": sequence, section.target: target, "id": str(i)})
    write_lmdb_archive(paths["archive"], paths["archive"].name.partition(".")[0], splits)


def _flip(section: FlipSection, paths: Mapping[str, Path], rng: np.random.Generator) -> None:
    """FLIP, CSV in a zip or FASTA; what lies outside of the region says nothing."""
    start = section.region[0] if section.region else 0
    rows = []
    for i, split in enumerate(SPLITS):
        number = float(rng.random())
        label = f"class{i % 3}"
        used = made_number(rng, number) if section.target_type == "number" else made_sequence(rng, [i % 3])
        target = number if section.target_type == "number" else label
        rows.append(("M" * start + used, target, "test" if split == "test" else "train", split == "valid"))
    path = paths["splits"]
    if section.member is None:
        lines = (
            f">Sequence{i} TARGET={t} SET={s} VALIDATION={v}\n{q}" for i, (q, t, s, v) in enumerate(rows)
        )
        write_text(path, lines)
        return
    text = "".join(f"{q},{t},{s},{v or ''}\n" for q, t, s, v in rows)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("splits/other.csv", "sequence,target,set,validation\n")
        archive.writestr(section.member, "sequence,target,set,validation\n" + text)


def _deeploc(section: DeeplocSection, paths: Mapping[str, Path], rng: np.random.Generator) -> None:
    """DeepLoc: every location, membrane-bound or not by turns, some unknown."""
    for role, path in paths.items():
        lines = []
        for i in range(SIZES[role]):
            place = i % len(LOCATIONS)
            membrane = "MS"[place % 2] if i % 7 else "U"
            mark = f"{LOCATIONS[place]}-{membrane}{' test' if role == 'test' else ''}"
            lines += [f">{role[:2].upper()}{i:04} {mark}", made_sequence(rng, [place])]
        write_text(path, lines)


def _deepfri(section: DeepfriSection, paths: Mapping[str, Path], rng: np.random.Generator) -> None:
    """DeepFRI: lists and FASTA, or GearNet's archive of PDB files."""
    labels = {
        title: [f"{i + 1}.1.1.-" if title == "EC-numbers" else f"GO:{b}00000{i}" for i in range(6)]
        for b, title in enumerate(GO_TITLES if section.branch else ("EC-numbers",))
    }
    chains: dict[str, dict[str, str]] = {split: {} for split in SIZES}
    head = []
    for title, names in labels.items():
        head += [f"### {title}", "\t".join(names)]
        if section.branch:
            head += [f"### {title.replace('terms', 'names')}", "\t".join(f"name of {n}" for n in names)]
    rows = ["\t".join(["### PDB-chain", *labels])]
    for i, split in enumerate(SPLITS):
        chain = f"{i + 1000}-{'ABC'[i % 3]}"
        marks = sorted({i % 6, (i * i) % 6})
        chains[split][chain] = made_sequence(rng, marks)
        cells = [",".join(names[m] for m in marks) for names in labels.values()]
        rows.append("\t".join([chain, *cells]))
    flags = ("1,1,1,1,1", "0,0,1,1,1", "0,0,0,0,1")
    identity = [f"{chain},{flags[i % 3]}" for i, chain in enumerate(chains["test"])]
    identity.insert(0, "PDB-chain,<30%,<40%,<50%,<70%,<95%")
    if "archive" in paths:
        _write_gearnet(paths["archive"], [*head, *rows], identity, chains)
        return
    write_text(paths["annotations"], [*head, *rows], "\r\n")
    write_text(paths["identity"], identity, "\r\n")
    for split, entries in chains.items():
        write_text(paths[split], entries)
        write_text(paths[f"{split}_sequences"], (f">{c} nrPDB\n{s}" for c, s in entries.items()))


GO_TITLES = tuple(
    f"GO-terms ({branch})" for branch in ("molecular_function", "biological_process", "cellular_component")
)


def _write_gearnet(
    path: Path, annotations: list[str], identity: list[str], chains: Mapping[str, Mapping[str, str]]
) -> None:
    """GearNet's archive: tables, and a zip of PDB files per split."""
    name = path.stem
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{name}/nrPDB-X_annot.tsv", "\r\n".join([*annotations, ""]))
        archive.writestr(f"{name}/nrPDB-X_test.csv", "\r\n".join([*identity, ""]))
        archive.writestr(f"{name}/{name.lower()}.pkl.gz", b"a cache that nobody reads")
        for split, entries in chains.items():
            inner = io.BytesIO()
            with zipfile.ZipFile(inner, "w", zipfile.ZIP_DEFLATED) as pdbs:
                for chain, sequence in entries.items():
                    pdbs.writestr(f"{split}/{chain}_model.pdb", made_pdb(sequence))
            archive.writestr(f"{name}/{split}.zip", inner.getvalue())


def made_pdb(sequence: str, chain: str = "A") -> str:
    """A PDB file with the backbone of a chain in a line, and a calcium ion."""
    lines = ["HEADER    MADE"]
    for number, letter in enumerate(sequence, 1):
        for atom in (" N  ", " CA ", " C  "):
            lines.append(
                f"ATOM  {3 * number:5} {atom} {CODES.get(letter, 'UNK')} {chain}{number:4}    "
                f"{number:8.3f}{0:8.3f}{0:8.3f}{1:6.2f}{0:6.2f}"
            )
    lines.append(f"HETATM99999 CA    CA {chain}9999    {0:8.3f}{0:8.3f}{0:8.3f}{1:6.2f}{0:6.2f}")
    return "\n".join([*lines, "END", ""])


def _table(section: TableSection, paths: Mapping[str, Path], rng: np.random.Generator) -> None:
    """A table with the columns that the section names."""
    variants = section.variants
    reference = variants.reference if variants and variants.reference else made_sequence(rng, (), 700)
    if "reference" in paths:
        write_text(paths["reference"], [">sp|P1|MADE", reference])
    by = section.splits.column if section.splits else None
    columns = list(dict.fromkeys(filter(None, (section.id, section.sequence, section.target, by))))
    for role, path in paths.items():
        if role == "reference":
            continue
        splits = SPLITS if role == "all" else [role.partition("_")[0]] * 60
        rows = [section.separator.join(columns)]
        for i, split in enumerate(splits * round(1 / section.sample)):
            if variants is not None:
                cell, target = _made_variant(section, reference, rng)
            elif section.target_type == "number":
                number = float(rng.random())
                cell, target = made_number(rng, number), str(number)
            else:
                marks = [i % 4] if section.target_type == "label" else sorted({i % 4, (i * i) % 4})
                cell, target = made_sequence(rng, marks), section.join.join(f"label{m}" for m in marks)
            said = {section.id: f"{role}{i}", section.sequence: cell, section.target: target}
            if section.splits and by:
                said[by] = next(value for value, s in section.splits.values.items() if s == split)
            rows.append(section.separator.join(said[column] for column in columns))
        write_text(path, rows)


def _made_variant(section: TableSection, reference: str, rng: np.random.Generator) -> tuple[str, str]:
    """A variant of the reference, and minus the number of changes, about."""
    assert section.variants is not None
    first, last = section.variants.segment or (1, len(reference))
    limit = section.splits.train_mutations if section.splits and section.splits.train_mutations else 2
    positions = np.sort(rng.choice(np.arange(first - 1, last), rng.integers(1, 2 * limit + 1), replace=False))
    letters = list(reference)
    for position in positions:
        letters[position] = str(rng.choice([x for x in LETTERS if x != reference[position]]))
    target = f"{-len(positions) + rng.normal(0, 0.1):.4f}"
    if section.variants.segment:
        return "".join(letters[first - 1 : last]), target
    numbers = ((p, p + section.variants.first_residue) for p in positions)
    return ":".join(f"{reference[p]}{number}{letters[p]}" for p, number in numbers), target


WRITERS: dict[str, Callable[[Any, Mapping[str, Path], np.random.Generator], None]] = {
    "lmdb": _lmdb,
    "flip": _flip,
    "deeploc_fasta": _deeploc,
    "deepfri": _deepfri,
    "table": _table,
    "primekg": write_primekg,
    "links": write_links,
}
"""By the name that `data.format` gives: write the files of a data section, by role, from random numbers."""
