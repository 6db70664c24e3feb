"""What a reader of official files gives: tables of one kind's schema, and the rows it could not use."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from protclip.evaluation.spec.base import DataSection


@dataclass(frozen=True, slots=True)
class Odd:
    """A row that takes no part, or that a reader of the results must know of.

    Attributes:
        id: What the source calls it.
        reason: Short and the same for all of its sort; counts are by reason.
        detail: What is special about this one.
        kept: Whether it takes part all the same.
    """

    id: str
    reason: str
    detail: str = ""
    kept: bool = False


@dataclass(frozen=True, slots=True)
class RawTables:
    """What a reader found.

    Attributes:
        tables: By name, with the columns of `SCHEMAS` of the kind.
        labels: All labels in the official order; empty where there are none.
        odd: Rows left out or remarkable.
    """

    tables: Mapping[str, pa.Table]
    labels: tuple[str, ...] = ()
    odd: list[Odd] = field(default_factory=list)


Read = Callable[[Any, Mapping[str, Path]], RawTables]
"""Reads local files, by role, as a data section says."""


@dataclass(frozen=True, slots=True)
class Format:
    """An official format.

    Attributes:
        section: What a benchmark's data section says for it.
        read: Reads local files, by role, as the section says.
        kinds: Kinds whose tables it can give.
    """

    section: type[DataSection]
    read: Read
    kinds: tuple[str, ...]
