"""EC numbers and GO terms of PDB chains: DeepFRI's lists (Gligorijević et al. 2021), GearNet's archives.

GearNet (Zhang et al. 2023) publishes the chains of each split as PDB files. Their sequences are those of the
residues that have an alpha carbon, which is what the published results saw; a residue of unknown name is X
here, glycine there. Its cached pickles are never read.
"""

import io
import tempfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Literal

from pydantic import Field

from protclip.errors import BenchmarkError
from protclip.evaluation.raw.archives import extract
from protclip.evaluation.raw.base import Format, Odd, RawTables
from protclip.evaluation.raw.examples import Example, split_of, to_tables
from protclip.evaluation.raw.text import read_columns, read_fasta, read_text
from protclip.evaluation.spec.base import DataSection
from protclip.progress import progress

ARCHIVE, ANNOTATIONS, IDENTITY, SEQUENCES = "archive", "annotations", "identity", "sequences"
CUT_OFFS = (30, 40, 50, 70, 95)
_TABLES = {ANNOTATIONS: "_annot.tsv", IDENTITY: "_test.csv"}

RESIDUES = {
    **{"ALA": "A", "ARG": "R", "ASN": "N", "ASP": "D", "CYS": "C", "GLN": "Q", "GLU": "E", "GLY": "G"},
    **{"HIS": "H", "ILE": "I", "LEU": "L", "LYS": "K", "MET": "M", "PHE": "F", "PRO": "P", "SER": "S"},
    **{"THR": "T", "TRP": "W", "TYR": "Y", "VAL": "V", "MSE": "M", "SEC": "U", "PYL": "O"},
}
"""The 22 of the genetic code, and the selenomethionine of crystallographers."""


class DeepfriSection(DataSection):
    """Labels of PDB chains.

    Roles of files: `archive` (GearNet's, which has everything); or `annotations`, `identity` if there is
    one, `train`, `valid`, `test` (lists of chains) and any that ends in `sequences` (FASTA).
    """

    format: Literal["deepfri"]
    branch: Literal["molecular_function", "biological_process", "cellular_component"] | None = Field(
        default=None, description="branch of the Gene Ontology; null: EC numbers"
    )


def read(section: DeepfriSection, files: Mapping[str, Path]) -> RawTables:
    """Reads chains, their labels, sequences and identity to training chains.

    Chains without a label of the branch take part; those of no split list, without annotation or sequence,
    and test chains of 95 % identity or more (as in GearNet) do not.

    Raises:
        DataError: A file cannot be read.
        BenchmarkError: A file is missing or not of the format.
    """
    if ARCHIVE not in files:
        return _join(section, files, *_listed(files))
    with tempfile.TemporaryDirectory(prefix="protclip-") as folder:
        members = extract(files[ARCHIVE], _is_wanted, Path(folder))
        roles = {role: path for path in members for role, end in _TABLES.items() if path.name.endswith(end)}
        splits = {path.stem: dict(_pdb_chains(path)) for path in members if path.suffix == ".zip"}
        chains = {split: list(entries) for split, entries in splits.items()}
        return _join(section, roles, chains, dict(item for e in splits.values() for item in e.items()))


def _listed(files: Mapping[str, Path]) -> tuple[dict[str, list[str]], dict[str, str]]:
    """Chains by split from lists, and sequences from FASTA."""
    fasta = [role for role in files if role.endswith(SEQUENCES)]
    entries = (entry for role in fasta for entry in read_fasta(files[role]))
    sequences = {header.partition(" ")[0]: residues for header, residues in entries}
    lists = files.keys() - {ANNOTATIONS, IDENTITY, *fasta}
    return {role: read_text(files[role]).split() for role in sorted(lists)}, sequences


def _is_wanted(member: str) -> bool:
    """Whether a file of GearNet's archive is read."""
    ends = (*_TABLES.values(), "/train.zip", "/valid.zip", "/test.zip")
    return member.endswith(ends) and "/._" not in member


def _join(
    section: DeepfriSection,
    files: Mapping[str, Path],
    chains: Mapping[str, list[str]],
    sequences: Mapping[str, str],
) -> RawTables:
    """Puts chains of the splits together with labels, sequences and identity."""
    if ANNOTATIONS not in files:
        raise BenchmarkError("data.files: no annotation table among them (role annotations, or *_annot.tsv)")
    labels, annotations = read_annotations(files[ANNOTATIONS], section.branch)
    identity = read_identity(files[IDENTITY]) if IDENTITY in files else None
    examples: list[Example] = []
    odd: list[Odd] = []
    for role, names in chains.items():
        split = split_of(role)
        for name in names:
            bound = identity.get(name) if identity and split == "test" else None
            if name not in annotations:
                odd.append(Odd(name, "no annotation", split))
            elif name not in sequences:
                odd.append(Odd(name, "no sequence", split))
            elif identity and split == "test" and bound is None:
                odd.append(Odd(name, f"identity to training of {CUT_OFFS[-1]} % or more, or unknown"))
            else:
                examples.append(Example(name, split, sequences[name], annotations[name], bound))
    listed = {name for names in chains.values() for name in names}
    odd += (Odd(name, "in no split") for name in annotations if name not in listed)
    return to_tables(examples, "labels", labels, odd)


def read_annotations(path: Path, branch: str | None) -> tuple[tuple[str, ...], dict[str, tuple[str, ...]]]:
    """Labels in official order, and those of each chain.

    The head has titles (`### …`) with a line of names below each; the last title names the columns.

    Raises:
        DataError: The file cannot be read.
        BenchmarkError: It is not of this form, or has no such branch.
    """
    what = f"GO-terms ({branch})" if branch else "EC-numbers"
    lines = read_text(path).splitlines()
    head = {line[4:]: n for n, line in enumerate(lines) if line.startswith("### ")}
    last, begin = max(head.items(), key=lambda item: item[1], default=("", 0))
    columns = last.split("\t")
    if what not in head or what not in columns[1:]:
        raise BenchmarkError(
            f"{path}: no '### {what}' or no column of that name; it has {', '.join(head) or 'no titles'}"
        )
    column = columns.index(what)
    rows = (line.split("\t") for line in lines[begin + 1 :] if line.strip())
    # A row ends at its last label.
    annotations = {row[0]: tuple(filter(None, "".join(row[column : column + 1]).split(","))) for row in rows}
    return tuple(lines[head[what] + 1].split("\t")), annotations


def read_identity(path: Path) -> dict[str, int]:
    """The lowest cut-off, in percent, under which each test chain's identity to training chains lies.

    Raises:
        DataError: The file cannot be read.
        BenchmarkError: It has other columns.
    """
    names, *below = read_columns(path, ("PDB-chain", *(f"<{percent}%" for percent in CUT_OFFS)))
    lowest = {}
    for name, *flags in zip(names, *below, strict=True):
        under = [percent for percent, flag in zip(CUT_OFFS, flags, strict=True) if flag == "1"]
        if under:
            lowest[name] = under[0]
    return lowest


def _pdb_chains(path: Path) -> Iterator[tuple[str, str]]:
    """Chains of a zip of PDB files, whose names begin with the chain and `_`, each with its sequence."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = [m for m in archive.namelist() if m.endswith(".pdb")]
            for member in progress(path.stem, " chains", len(members), iterable=members):
                with archive.open(member) as file:
                    lines = io.TextIOWrapper(file, encoding="ascii", errors="replace")
                    yield PurePosixPath(member).stem.partition("_")[0], residues_of(lines)
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise BenchmarkError(f"{path.name} of the archive is damaged ({error}); fetch it anew") from error


def residues_of(pdb: Iterable[str]) -> str:
    """One letter per residue with an alpha carbon, of the first model of a PDB file; X for unknown names."""
    residues: dict[str, str] = {}
    for line in pdb:
        if line.startswith("ENDMDL"):
            break
        # " CA " is the alpha carbon, "CA  " would be calcium; columns 22 to 27 are chain and number.
        if line.startswith(("ATOM  ", "HETATM")) and line[12:16] == " CA ":
            residues.setdefault(line[21:27], RESIDUES.get(line[17:20], "X"))
    return "".join(residues.values())


FORMAT = Format(DeepfriSection, read, ("multilabel",))
