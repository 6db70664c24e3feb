"""What readers of labelled sequences have in common: examples, and the tables they make."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import pyarrow as pa

from protclip.errors import BenchmarkError
from protclip.evaluation.prepared import SCHEMAS
from protclip.evaluation.raw.base import Odd, RawTables

Split = Literal["train", "valid", "test"]
TargetType = Literal["number", "label", "labels"]
"""A number (regression), one label (classification), any number of them (multilabel)."""

Target = float | str | tuple[str, ...]

_KIND_AND_COLUMN = {
    "number": ("regression", "value"),
    "label": ("classification", "label"),
    "labels": ("multilabel", "labels"),
}


@dataclass(frozen=True, slots=True)
class Example:
    """A sequence and what is to be predicted of it.

    Attributes:
        id: Its name in the source.
        split: Which part it belongs to.
        sequence: Residue letters.
        target: As the target type says.
        identity: The lowest cut-off of identity to training under which it lies, in percent.
    """

    id: str
    split: Split
    sequence: str
    target: Target
    identity: int | None = None


def split_of(role: str) -> Split:
    """The split whose examples a file has: `train`, `valid`, `test`, or these with `_` and anything behind.

    Raises:
        BenchmarkError: The role begins otherwise.
    """
    for split in get_args(Split):
        if role.partition("_")[0] == split:
            return split
    raise BenchmarkError(f"data.files: role {role!r} begins with none of {', '.join(get_args(Split))}")


def parse_target(text: str, target_type: TargetType, join: str) -> Target | None:
    """What a cell says; None where it says nothing of that type.

    Args:
        text: The cell.
        target_type: What it should say.
        join: What stands between several labels.
    """
    if target_type == "labels":
        return tuple(label for part in text.split(join) if (label := part.strip()))
    if target_type == "label":
        return text.strip() or None
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def to_tables(
    examples: Sequence[Example], target_type: TargetType, labels: Sequence[str], odd: list[Odd]
) -> RawTables:
    """The table of examples in the schema of the kind that has such targets."""
    kind, column = _KIND_AND_COLUMN[target_type]
    schema = SCHEMAS[kind]["examples"]
    attributes = ["target" if name == column else name for name in schema.names]
    columns = [
        pa.array([getattr(e, a) for e in examples], schema.field(i).type) for i, a in enumerate(attributes)
    ]
    return RawTables({"examples": pa.table(columns, schema=schema)}, tuple(labels), odd)
