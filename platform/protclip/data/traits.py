"""What the factors of an entry's own look at, read from the columns of the strata and from joined tables."""

# pyarrow makes its compute functions when it is imported, no type checker sees them.
# pyright: reportAttributeAccessIssue=false

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np
import pyarrow as pa

from protclip.data.families import content_ids, family_ids
from protclip.data.sampling import Traits

DAYS_PER_YEAR = 365.25
SCORE_STEPS = 1000
"""Steps per unit of cosine in which scores are counted to find the median."""

COLUMNS: Mapping[str, str] = {"date": "annotation_date", "family": "similarity", "length": "length"}
"""The column of the strata that a factor's trait comes from, when there is no table for it."""


class Lookup(Protocol):
    """A table by sampling key."""

    def look_up(self, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Values of uint64 keys, and whether there is one."""
        ...


Tables = Mapping[str, Lookup]
"""Joined tables: "clusters" (uint64 identities), "consistency" (cosines)."""

Raw = tuple[np.ndarray, np.ndarray]
"""What entries state, and whether they do: days since 1970 (`date`), identities (`family`), cosines
(`consistency`), residues (`length`)."""


def columns(names: Sequence[str], tables: Tables) -> list[str]:
    """The columns of the strata that traits are read from."""
    stated = [name for name in names if not (name == "family" and "clusters" in tables)]
    return [COLUMNS[name] for name in stated if name in COLUMNS]


def read_trait(name: str, entries: pa.Table, tables: Tables) -> Raw:
    """What entries state for a factor."""
    if name == "consistency":
        return tables["consistency"].look_up(entries["sampling_key"].to_numpy())
    if name == "family":
        if "clusters" in tables:
            return tables["clusters"].look_up(entries["sampling_key"].to_numpy())
        return family_ids(entries["similarity"])
    column = entries[COLUMNS[name]]
    values = column.cast(pa.int32()).fill_null(0).to_numpy()
    return values, column.is_valid().to_numpy()


@dataclass(frozen=True, slots=True)
class Facts:
    """What the data set as a whole says, for the traits of single entries.

    Attributes:
        dated: Day from which ages count, days since 1970.
        typical: What stands for a missing value: a day, a family's size, a cosine.
        family_ids: Identities of the families, sorted uint64.
        family_sizes: Entries that can become pairs in each.
    """

    dated: int = 0
    typical: Mapping[str, float] = field(default_factory=dict)
    family_ids: np.ndarray = field(default_factory=lambda: np.empty(0, np.uint64))
    family_sizes: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))

    def traits(self, raw: Mapping[str, Raw]) -> Traits:
        """What the factors look at, from what the entries state."""
        return {name: self._trait(name, *stated) for name, stated in raw.items()}

    def _trait(self, name: str, values: np.ndarray, found: np.ndarray) -> np.ndarray:
        """One factor's trait."""
        if name == "family":
            values, found = self._sizes(values, found)
        stated = np.where(found, values.astype(np.float64), self.typical.get(name, 0.0))
        return np.maximum(0.0, self.dated - stated) / DAYS_PER_YEAR if name == "date" else stated

    def _sizes(self, ids: np.ndarray, found: np.ndarray) -> Raw:
        """Sizes of families; one of which no entry can become a pair is not counted and not found."""
        if not len(self.family_ids):
            return np.zeros(len(ids)), np.zeros(len(ids), bool)
        places = np.minimum(np.searchsorted(self.family_ids, ids), len(self.family_ids) - 1)
        return self.family_sizes[places], found & (self.family_ids[places] == ids)


def group_ids(
    by: Literal["accession", "sequence", "family", "cluster"], entries: pa.Table, tables: Tables
) -> Raw:
    """uint64 identities of what entries must share a split with, and whether they state one.

    Where they state none it is their sequence's.

    Args:
        by: What they share.
        entries: Columns `sampling_key`, `sequence` and `similarity`.
        tables: With "clusters", when it is by cluster.
    """
    keys = entries["sampling_key"].to_numpy()
    if by == "accession":
        return keys, np.ones(len(keys), bool)
    sequences = content_ids(entries["sequence"])
    if by == "sequence":
        return sequences, np.ones(len(keys), bool)
    groups, found = tables["clusters"].look_up(keys) if by == "cluster" else family_ids(entries["similarity"])
    return np.where(found, groups, sequences), found
