"""Delimited text of any columns: sequences, or variants of a reference, with something to predict.

What a file does not say about its split can be drawn here: by a hash of the sequence, or, in landscapes of
mutants, by the number of mutations.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from operator import ne
from pathlib import Path
from typing import Literal, Self, cast

import numpy as np
from pydantic import Field, model_validator

from protclip.config.base import Config, Count, Share
from protclip.errors import BenchmarkError
from protclip.evaluation.raw.base import Format, Odd, RawTables
from protclip.evaluation.raw.examples import Example, Split, TargetType, parse_target, split_of, to_tables
from protclip.evaluation.raw.text import read_columns, read_fasta
from protclip.evaluation.spec.base import DataSection
from protclip.records import sampling_key

ALL, REFERENCE = "all", "reference"
# Tables of fluorescence write an S (substitution) before every mutation.
_MUTATION = re.compile(r"S?([A-Z])(\d+)([A-Z*])")


class Variants(Config):
    """How a cell of the sequence column changes the reference: mutations such as M1K, or a whole segment."""

    reference: str | None = Field(
        default=None,
        description="its residues; null: those of the FASTA with the role reference",
    )
    first_residue: int = Field(default=1, description="number that mutations give its first residue")
    segment: tuple[int, int] | None = Field(
        default=None, description="first and last residue, from 1, that the cell replaces; null: mutations"
    )


class Rule(Config):
    """How the rows of one file for all splits are divided; one of the three."""

    column: str | None = Field(default=None, description="column that names the split")
    values: dict[str, Split] = Field(
        default={"train": "train", "valid": "valid", "test": "test"},
        description="splits by what the column calls them; rows of other values take no part",
    )
    test_share: Share | None = Field(default=None, description="share for test, by a hash of the sequence")
    train_mutations: Count | None = Field(
        default=None, description="variants with so many residues changed are for training, others for test"
    )

    @model_validator(mode="after")
    def _one(self) -> Self:
        if sum(way is not None for way in (self.column, self.test_share, self.train_mutations)) != 1:
            raise ValueError("give one of column, test_share and train_mutations")
        return self


class TableSection(DataSection):
    """A table; roles are `all`, or one or more per split (`train`, `train_2`, `test`), and `reference`."""

    format: Literal["table"]
    separator: str = Field(default=",", min_length=1, max_length=1, description="what stands between cells")
    id: str | None = Field(default=None, description="column of names; null: rows are numbered")
    sequence: str = Field(default="sequence", description="column of residues, or of variants")
    target: str = Field(description="column of what is to be predicted")
    target_type: TargetType = Field(description="a number, one label, or any number of labels")
    join: str = Field(default=";", min_length=1, description="what stands between labels in a cell")
    min_count: Count = Field(default=1, description="labels with fewer training examples are left out")
    variants: Variants | None = Field(default=None, description="null: the cells are whole sequences")
    region: tuple[int, int] | None = Field(
        default=None, description="[start, stop) of every sequence is used, counted from 0; null: all of it"
    )
    splits: Rule | None = Field(default=None, description="how a file with the role all is divided")
    sample: Share = Field(default=1, description="share of the rows that is used, by a hash of the sequence")

    @model_validator(mode="after")
    def _whole(self) -> Self:
        roles = self.files.keys() - {REFERENCE}
        if (ALL in roles) != (self.splits is not None) or (ALL in roles and len(roles) > 1):
            raise ValueError("a file with the role all goes with splits and alone, files of splits without")
        if self.variants is None and self.splits is not None and self.splits.train_mutations is not None:
            raise ValueError("splits.train_mutations counts changes of a reference; give variants")
        if self.variants is not None and (self.variants.reference is None) != (REFERENCE in self.files):
            raise ValueError("variants need a reference: either the key or a file with that role")
        return self


def read(section: TableSection, files: Mapping[str, Path]) -> RawTables:
    """Reads the rows; a sequence measured several times counts once, with the mean.

    Raises:
        DataError: A file cannot be read.
        BenchmarkError: A column is missing, or a role is no split.
    """
    reference = _reference(section.variants, files) if section.variants else ""
    odd: list[Odd] = []
    examples: list[Example] = []
    for role, path in files.items():
        if role == REFERENCE:
            continue
        for name, cell, target, stated in _rows(section, role, path):
            sequence = _sequence(section.variants, reference, cell)
            value = parse_target(target, section.target_type, section.join)
            if sequence is None:
                odd.append(Odd(name, "does not fit the reference", cell))
            elif _hash("sample", sequence) >= section.sample:
                continue
            elif value is None:
                odd.append(Odd(name, f"target is no {section.target_type}", target))
            elif split := _split(section.splits, role, stated, sequence, reference):
                part = sequence[slice(*section.region)] if section.region else sequence
                examples.append(Example(name, split, part, value))
            else:
                odd.append(Odd(name, "in no split", stated))
    if section.target_type == "number":
        return to_tables(_means(examples, odd), "number", (), odd)
    if section.target_type == "label":
        return to_tables(examples, "label", (), odd)
    return _with_frequent_labels(examples, section.min_count, odd)


def _rows(section: TableSection, role: str, path: Path) -> Iterator[tuple[str, str, str, str]]:
    """Name, cell of the sequence column, target, and what is said of the split."""
    by = section.splits.column if section.splits else None
    wanted = dict.fromkeys(c for c in (section.id, section.sequence, section.target, by) if c is not None)
    columns = dict(zip(wanted, read_columns(path, list(wanted), section.separator), strict=True))
    rows = len(columns[section.target])
    names = columns[section.id] if section.id else [f"{role} line {line}" for line in range(2, rows + 2)]
    stated = columns[by] if by else [""] * rows
    return zip(names, columns[section.sequence], columns[section.target], stated, strict=True)


def _reference(variants: Variants, files: Mapping[str, Path]) -> str:
    """The sequence that variants change."""
    if variants.reference is not None:
        return variants.reference
    entries = read_fasta(files[REFERENCE])
    if len(entries) != 1:
        raise BenchmarkError(f"{files[REFERENCE]}: {len(entries)} sequences; a reference is one")
    return entries[0][1]


def _sequence(variants: Variants | None, reference: str, cell: str) -> str | None:
    """The sequence that a cell stands for, or None if it contradicts the reference."""
    if variants is None:
        return cell.strip()
    if variants.segment is not None:
        start, stop = variants.segment
        return reference[: start - 1] + cell.strip() + reference[stop:]
    residues = list(reference)
    for mutation in re.split(r"[^A-Z0-9*]+", cell.strip()) if cell.strip() else ():
        match = _MUTATION.fullmatch(mutation)
        index = int(match[2]) - variants.first_residue if match else -1
        if match is None or not 0 <= index < len(residues) or reference[index] != match[1]:
            return None
        residues[index] = match[3]
    return "".join(residues)


def _split(rule: Rule | None, role: str, stated: str, sequence: str, reference: str) -> Split | None:
    """Which split a row belongs to, by the role of its file or by the rule."""
    if rule is None:
        return split_of(role)
    if rule.column is not None:
        return rule.values.get(stated)
    if rule.test_share is not None:
        return "test" if _hash("test", sequence) < rule.test_share else "train"
    changed = sum(map(ne, sequence, reference))
    return "train" if changed <= (rule.train_mutations or 0) else "test"


def _hash(purpose: str, sequence: str) -> float:
    """A number in [0, 1) that the sequence alone decides, another for each purpose."""
    return sampling_key(f"{purpose} {sequence}") / 2**64


def _means(examples: list[Example], odd: list[Odd]) -> list[Example]:
    """One example per split and sequence, with the mean of its numbers."""
    measured: dict[tuple[str, str], list[Example]] = {}
    for example in examples:
        measured.setdefault((example.split, example.sequence), []).append(example)
    means = []
    for first, *others in measured.values():
        if others:
            values = [cast("float", e.target) for e in (first, *others)]
            odd.append(Odd(first.id, "measured several times", f"mean of {values}", kept=True))
            first = replace(first, target=float(np.mean(values)))
        means.append(first)
    return means


def _with_frequent_labels(examples: list[Example], min_count: int, odd: list[Odd]) -> RawTables:
    """Without rare labels, and without examples that have no other."""
    labels_of = {e: cast("tuple[str, ...]", e.target) for e in examples}
    counts = Counter(label for e in examples if e.split == "train" for label in labels_of[e])
    labels = sorted(label for label, count in counts.items() if count >= min_count)
    known, kept = set(labels), []
    for example in examples:
        target = tuple(label for label in labels_of[example] if label in known)
        if target:
            kept.append(replace(example, target=target))
        else:
            odd.append(Odd(example.id, "no label that is frequent enough", example.split))
    return to_tables(kept, "labels", labels, odd)


FORMAT = Format(TableSection, read, ("classification", "multilabel", "regression"))
