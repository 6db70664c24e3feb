"""Held-out pairs as the data of a benchmark: the one data that is not prepared, for sampling made it."""

from itertools import chain

import pyarrow as pa

from protclip.data.dataset import PairsDataset
from protclip.data.manifest import PairsManifest
from protclip.errors import BenchmarkError, DataError
from protclip.evaluation.prepared import Prepared
from protclip.evaluation.spec.retrieval import HeldOutPairs
from protclip.records import PROPERTIES

SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("split", pa.string()),
        ("sequence", pa.large_string()),
        ("tokens", pa.list_(pa.uint16())),
    ]
)


def read_pairs(data: HeldOutPairs, pairs: str, tokenizer: str) -> Prepared:
    """Reads the held-out split as "test", and training pairs as "train".

    Args:
        data: Which split, and how many pairs.
        pairs: URI of the pairs.
        tokenizer: Fingerprint of the checkpoint's text tokenizer.

    Returns:
        A table "examples" of `SCHEMA`: accession, split, sequence, and the tokens of the biotext.

    Raises:
        DataError: There are no such pairs, or another tokenizer made them.
        BenchmarkError: The split is empty.
    """
    made_by = PairsManifest.load(pairs).tokenizer
    if made_by.fingerprint != tokenizer:
        raise DataError(
            f"{pairs}: tokenised with {made_by.source!r} ({made_by.fingerprint[:12]}), but the checkpoint "
            f"reads {tokenizer[:12]}; give the pairs it was trained on or sample again"
        )
    wanted = {"train": ("train", data.max_train_pairs), "test": (data.split, data.max_pairs)}
    tables = []
    for role, (split, limit) in wanted.items():
        dataset = PairsDataset(pairs, split, seed=0, columns=("accession", "sequence", *map(str, PROPERTIES)))
        if not len(dataset):
            raise BenchmarkError(f"{pairs}: split {split} is empty; sample with a larger share of it")
        rows = dataset.rows(0, 0, min(limit, len(dataset)))
        pieces = zip(*(rows[str(p)].to_pylist() for p in PROPERTIES), strict=True)
        columns = {
            "id": rows["accession"].to_pylist(),
            "split": [role] * len(rows),
            "sequence": rows["sequence"].to_pylist(),
            "tokens": [list(chain(*p)) for p in pieces],
        }
        tables.append(pa.table(columns, SCHEMA))
    return Prepared({"examples": pa.concat_tables(tables)}, labels=(), digest=PairsManifest.digest(pairs))
