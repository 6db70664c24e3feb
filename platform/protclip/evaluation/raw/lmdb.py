"""LMDB of TAPE (Rao et al. 2019) and PEER (Xu et al. 2022), which TorchDrug reads: a directory per split.

An archive holds `…_{train,valid,test}.lmdb/data.mdb`. Of each, key `num_examples` and keys `0`, `1`, … have
pickled values: the number of records, and records as dictionaries with `primary`, the sequence, and the
target, which may stand in an array of one element. TAPE also offers them as JSON, `…_{split}.json`, lists
of the same dictionaries; an archive of these is read as well.
"""

import json
import re
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, cast, get_args

import lmdb
import numpy as np
from pydantic import Field

from protclip.config.base import Count
from protclip.errors import BenchmarkError
from protclip.evaluation.raw.archives import extract
from protclip.evaluation.raw.base import Format, RawTables
from protclip.evaluation.raw.examples import Example, Split, to_tables
from protclip.evaluation.raw.unpickle import loads
from protclip.evaluation.spec.base import DataSection

ROLE = "archive"
SEQUENCE = "primary"
_MEMBER = re.compile(r".*_(train|valid|test)\.(?:lmdb/data\.mdb|json)")

Record = Mapping[str, Any]


class LmdbSection(DataSection):
    """A task of TAPE or PEER; the file has the role `archive`."""

    format: Literal["lmdb"]
    target: str = Field(description="field of a record that is to be predicted")
    classes: tuple[str, ...] | Count | None = Field(
        default=None,
        description="names of the classes by their number, or how many there are where they have none; null: "
        "the target is no class but a number",
    )


def read(section: LmdbSection, files: Mapping[str, Path]) -> RawTables:
    """Reads all splits. A class that has no name keeps its number, also one that should not be.

    Raises:
        BenchmarkError: The archive lacks the role or a split, is damaged, or a record is not of this form.
    """
    if set(files) != {ROLE}:
        raise BenchmarkError(f"data.files: the format lmdb reads the role {ROLE!r}, not {', '.join(files)}")
    examples: list[Example] = []
    with tempfile.TemporaryDirectory(prefix="protclip-") as folder:
        members = extract(files[ROLE], lambda name: _MEMBER.fullmatch(name) is not None, Path(folder))
        for split, path in _by_split(members, files[ROLE]).items():
            where = f"{files[ROLE]}, {split}"
            records = _json_records(path, where) if path.suffix == ".json" else _lmdb_records(path, where)
            examples += [_example(i, r, split, section, where) for i, r in enumerate(records)]
    if section.classes is None:
        return to_tables(examples, "number", (), [])
    return to_tables(examples, "label", _names(section.classes), [])


def _names(classes: tuple[str, ...] | int) -> tuple[str, ...]:
    """Names of all classes."""
    return classes if isinstance(classes, tuple) else tuple(map(str, range(classes)))


def _by_split(members: list[Path], archive: Path) -> dict[Split, Path]:
    """Which file holds which split."""
    found: dict[Split, Path] = {}
    for path in members:
        match = _MEMBER.fullmatch(str(path))
        assert match is not None, "only these were taken"
        split = cast("Split", match[1])
        if split in found:
            raise BenchmarkError(f"{archive}: holds {split} twice; is it the official file?")
        found[split] = path
    return {split: found[split] for split in get_args(Split) if split in found}


def _lmdb_records(path: Path, where: str) -> Iterator[Record]:
    """Records of an LMDB, in order."""
    try:
        with lmdb.open(str(path.parent), readonly=True, lock=False, readahead=False) as env:
            pages = env.info()["last_pgno"] + 1
            if pages * env.stat()["psize"] > path.stat().st_size:
                # Reading behind the end of the mapped file would kill the process.
                raise BenchmarkError(f"{where}: {path.name} is cut off; fetch the archive anew")
            with env.begin() as transaction:
                count = loads(_value(transaction, "num_examples", where), f"{where}, num_examples")
                if not isinstance(count, int | np.integer):
                    raise BenchmarkError(f"{where}: num_examples is {count!r}, which is no number")
                for index in range(int(count)):
                    record = loads(_value(transaction, str(index), where), f"{where}, record {index}")
                    yield cast("Record", record)
    except lmdb.Error as error:
        raise BenchmarkError(f"{where}: no LMDB ({error}); fetch the archive anew") from error


def _value(transaction: lmdb.Transaction, key: str, where: str) -> bytes:
    """What is stored under a key."""
    value = transaction.get(key.encode())
    if value is None:
        raise BenchmarkError(f"{where}: has no key {key!r}; is it a task of TAPE or PEER?")
    return bytes(value)


def _json_records(path: Path, where: str) -> Iterator[Record]:
    """Records of a JSON list."""
    try:
        records = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise BenchmarkError(f"{where}: no JSON ({error}); fetch the archive anew") from error
    if not isinstance(records, list):
        raise BenchmarkError(f"{where}: {path.name} is no list of records; is it a task of TAPE?")
    yield from records


def _example(index: int, record: Record, split: Split, section: LmdbSection, where: str) -> Example:
    """What a record says."""
    name = f"{split} {index}"
    if not isinstance(record, dict) or not isinstance(record.get(SEQUENCE), str):
        raise BenchmarkError(
            f"{where}: record {index} is no dictionary with a text {SEQUENCE!r}: {record!r:.200}"
        )
    if section.target not in record:
        raise BenchmarkError(
            f"{where}: record {index} has no {section.target!r}; it has {', '.join(map(str, record))}. Check "
            "data.target"
        )
    value = np.asarray(record[section.target])
    if value.size != 1 or value.dtype.kind not in "fiub":
        raise BenchmarkError(f"{where}: {section.target} of record {index} is no number: {value!r:.200}")
    target: float = value.reshape(()).item()
    if section.classes is None:
        return Example(name, split, record[SEQUENCE], float(target))
    if not float(target).is_integer():
        raise BenchmarkError(f"{where}: {section.target} of record {index} is no class: {target}")
    names = _names(section.classes)
    return Example(
        name, split, record[SEQUENCE], names[int(target)] if 0 <= target < len(names) else str(int(target))
    )


FORMAT = Format(LmdbSection, read, ("classification", "zero_shot", "few_shot", "regression"))
