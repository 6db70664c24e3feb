"""DeepLoc 1.0 in FASTA (Almagro Armenteros et al. 2017): `>ACCESSION Location-X [test]`.

X is M for membrane-bound, S for soluble, U for unknown.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import Field

from protclip.errors import BenchmarkError
from protclip.evaluation.raw.base import Format, Odd, RawTables
from protclip.evaluation.raw.examples import Example, split_of, to_tables
from protclip.evaluation.raw.text import read_fasta
from protclip.evaluation.spec.base import DataSection

LOCATIONS = (
    *("Cell.membrane", "Cytoplasm", "Endoplasmic.reticulum", "Golgi.apparatus", "Lysosome/Vacuole"),
    *("Mitochondrion", "Nucleus", "Peroxisome", "Plastid", "Extracellular"),
)
"""In the order of the class numbers of PEER and ProtST."""

AMBIGUOUS = "Cytoplasm-Nucleus"
MEMBRANE = {"M": "membrane", "S": "soluble"}
_HEADER = re.compile(r"(\S+) (\S+)-([MSU])(?: test)?")


class DeeplocSection(DataSection):
    """DeepLoc 1.0; roles of files are splits."""

    format: Literal["deeploc_fasta"]
    label: Literal["location", "membrane"] = Field(description="ten locations, or membrane or soluble")


def read(section: DeeplocSection, files: Mapping[str, Path]) -> RawTables:
    """Reads the splits; left out are Cytoplasm-Nucleus of `location`, unknown ones of `membrane`.

    Raises:
        DataError: A file cannot be read.
        BenchmarkError: A role is no split, or a header is not of this form or names another location.
    """
    examples: list[Example] = []
    odd: list[Odd] = []
    for role, path in files.items():
        split = split_of(role)
        for header, sequence in read_fasta(path):
            match = _HEADER.fullmatch(header)
            if match is None or match[2] not in {*LOCATIONS, AMBIGUOUS}:
                raise BenchmarkError(
                    f"{path}: header {header!r} is not 'ACCESSION Location-X' with X one of M, S, U and a "
                    f"location of {', '.join(LOCATIONS)}, {AMBIGUOUS}"
                )
            name, location, membrane = match.groups()
            if section.label == "membrane" and membrane not in MEMBRANE:
                odd.append(Odd(name, "neither membrane nor soluble", split))
            elif section.label == "location" and location == AMBIGUOUS:
                odd.append(Odd(name, f"ambiguous location {AMBIGUOUS}", split))
            else:
                target = location if section.label == "location" else MEMBRANE[membrane]
                examples.append(Example(name, split, sequence, target))
    labels = LOCATIONS if section.label == "location" else tuple(MEMBRANE.values())
    return to_tables(examples, "label", labels, odd)


FORMAT = Format(DeeplocSection, read, ("classification", "zero_shot", "few_shot"))
