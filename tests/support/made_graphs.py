"""Made official files of pairs of proteins, in the layout of the real ones: STRING, PROBE, evoKGsim.

Proteins come in families, which show in the letters of their sequences; what is said of a pair follows from
the families of the two. `WRITERS` are by format and take the data section, the path of each role, and what
chance there is.
"""

import gzip
import io
import zipfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from protclip.evaluation.raw.string import MODES

LETTERS = "ACDEFGHIKLMNPQRSTVWY"
NUM_FAMILIES = 4
NUM_PROTEINS = 120
NUM_PAIRS = 500
SIZES = {"200": 12, "500": 20}
"""Proteins in the made matrices of PROBE."""


def made_proteins(rng: np.random.Generator, number: int) -> tuple[list[int], list[str]]:
    """Family and sequence of each protein."""
    families = rng.integers(NUM_FAMILIES, size=number)
    sequences = []
    for family in families:
        letters = rng.choice(list(LETTERS), 60)
        letters[rng.random(60) < 0.5] = LETTERS[5 * family]
        sequences.append("M" + "".join(letters))
    return families.tolist(), sequences


def made_modes(one: int, other: int) -> list[str]:
    """Modes of action between two families: one that tells which they are, and a frequent one."""
    low, high = sorted((one, other))
    return [MODES[(low + 2 * high) % 6], "expression"] if low != high else ["binding"]


def write_string(section: Any, paths: Mapping[str, Path], rng: np.random.Generator) -> None:
    """A graph of which some proteins have few interactions; every pair in both directions."""
    families, sequences = made_proteins(rng, NUM_PROTEINS)
    names = [f"9606.ENSP{number:011d}" for number in range(NUM_PROTEINS)]
    # Squares make some proteins rare, so that there are starts for BFS and DFS.
    ends = (NUM_PROTEINS * rng.random((4 * NUM_PAIRS, 2)) ** 2).astype(int).tolist()
    pairs = list(dict.fromkeys((min(e), max(e)) for e in ends if e[0] != e[1]))[:NUM_PAIRS]
    lines = ["item_id_a\titem_id_b\tmode\taction\tis_directional\ta_is_acting\tscore"]
    for one, other in pairs:
        for mode in made_modes(families[one], families[other]):
            lines.append(f"{names[one]}\t{names[other]}\t{mode}\t\tt\tt\t{rng.integers(150, 1000)}")
            lines.append(f"{names[other]}\t{names[one]}\t{mode}\t{mode}\tt\tf\t{rng.integers(150, 1000)}")
    write_lines(paths["actions"], lines)
    entries = zip(names, sequences, strict=True)
    if ".fa" in paths["sequences"].name:
        write_lines(paths["sequences"], (f">{name}\n{sequence}" for name, sequence in entries))
    else:
        write_lines(paths["sequences"], (f"{name}\t{sequence}" for name, sequence in entries))


def write_probe(section: Any, paths: Mapping[str, Path], rng: np.random.Generator) -> None:
    """All three ontologies in one archive, as on PROBE's drive; the smaller is a part of the larger."""
    families, sequences = made_proteins(rng, SIZES["500"])
    names = [f"P{number:05d}" for number in range(SIZES["500"])]
    write_lines(
        paths["sequences"],
        (f">sp|{n}|{n}_HUMAN Protein OS=Homo sapiens\n{s}" for n, s in zip(names, sequences, strict=True)),
    )
    folder = "semantic_similarity_data"
    with zipfile.ZipFile(paths["archive"], "w", zipfile.ZIP_DEFLATED) as archive:
        for ontology in ("MF", "BP", "CC"):
            for size, count in SIZES.items():
                matrix = made_similarities(families[:count], rng)
                rows = [",".join(names[:count]), *(",".join(map(str, row)) for row in matrix.tolist())]
                archive.writestr(
                    f"{folder}/preprocess/human_{ontology}_proteinSimilarityMatrix_for_highest_annotated_{size}"
                    "_proteins.csv",
                    "\n".join(rows) + "\n",
                )
            coordinates = io.BytesIO()
            np.save(coordinates, np.array([(i, (7 * i + 3) % 20) for i in range(20)], dtype=np.int64))
            archive.writestr(
                f"{folder}/auxilary_input/SparsifiedSimilarityCoordinates_{ontology}_for_highest_500.npy",
                coordinates.getvalue(),
            )


def made_similarities(families: list[int], rng: np.random.Generator) -> np.ndarray:
    """A symmetrical matrix, larger within a family, 1 on the diagonal."""
    same = np.equal.outer(families, families)
    noise = rng.random(same.shape).round(3) / 4
    matrix = same / 2 + (noise + noise.T) / 2
    np.fill_diagonal(matrix, 1)
    return matrix


def write_evokgsim(section: Any, paths: Mapping[str, Path], rng: np.random.Generator) -> None:
    """Pairs of proteins, all of whose sequences are in the first file of sequences."""
    families, sequences = made_proteins(rng, 30)
    names = [f"Q{number:05d}" for number in range(30)]
    similarities = made_similarities(families, rng)
    lines = []
    for i, j in zip(*np.triu_indices(30, 1), strict=True):
        values = similarities[i, j], similarities[i, j] / 2, 1 / (i + j)
        lines.append("\t".join([f"http://{names[i]}", f"http://{names[j]}", *map(str, values)]))
    write_lines(paths["pairs"], lines)
    first, *others = (path for role, path in paths.items() if role != "pairs")
    write_lines(first, (f">{n} a protein\n{s}" for n, s in zip(names, sequences, strict=True)))
    for path in others:
        write_lines(path, [">Q99999 another one", "MKV"])


def write_lines(path: Path, lines: Iterable[str]) -> None:
    """A text file, gzipped if its name says so."""
    data = ("\n".join(lines) + "\n").encode()
    path.write_bytes(gzip.compress(data, mtime=0) if path.suffix == ".gz" else data)


WRITERS: dict[str, Callable[[Any, Mapping[str, Path], np.random.Generator], None]] = {
    "string_actions": write_string,
    "probe": write_probe,
    "evokgsim": write_evokgsim,
}
