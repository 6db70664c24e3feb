"""Strata rows to pairs: each property's text as its own token list."""

from collections.abc import Callable
from itertools import pairwise
from typing import Literal, cast

import numpy as np
import pyarrow as pa

from protclip.data.biotext import property_text
from protclip.records import PAIRS_SCHEMA, PROPERTIES, Property

Encode = Callable[[list[str]], list[list[int]]]

TAKEN_COLUMNS = ("accession", "sequence", "length", "confidence", "coverage", "sampling_key")


def pairs_table(
    entries: pa.Table, encode: Encode, evidence: Literal["strip", "keep"], max_text_tokens: int
) -> pa.Table:
    """Tokenises the properties of entries.

    A property's tokens are those of its piece of the biotext, heading included, cut to
    `max_text_tokens`; an absent property has none. WordPiece never joins across the blank between two
    pieces, so the lists laid end to end are the tokens of the whole biotext.

    Args:
        entries: Rows of the strata schema.
        encode: Texts to token lists without special tokens, all under 65,536.
        evidence: Whether evidence tags stay in the texts.
        max_text_tokens: Most tokens of one property.

    Returns:
        The same rows in the pairs schema.
    """
    columns = {name: entries[name].combine_chunks() for name in TAKEN_COLUMNS}
    for prop in PROPERTIES:
        columns[prop] = _tokenised(prop, entries[prop].to_pylist(), encode, evidence, max_text_tokens)
    return pa.table({name: columns[name] for name in PAIRS_SCHEMA.names}, schema=PAIRS_SCHEMA)


def biotext_tokens(pairs: pa.Table) -> list[np.ndarray]:
    """Token ids of each pair's biotext, those of its properties laid end to end, uint16."""
    columns = [token_lists(pairs[prop]) for prop in PROPERTIES]
    return [np.concatenate(pieces) for pieces in zip(*columns, strict=True)]


def token_lists(column: pa.ChunkedArray) -> list[np.ndarray]:
    """Each list of a list<uint16> column as an array, without copying per element."""
    array = cast("pa.LargeListArray", column.combine_chunks())
    if isinstance(array, pa.ChunkedArray):
        array = pa.concat_arrays(array.chunks)
    offsets, values = array.offsets.to_numpy(), array.values.to_numpy()
    return [values[a:b] for a, b in pairwise(offsets)]


def _tokenised(
    prop: Property,
    texts: list[str | None],
    encode: Encode,
    evidence: Literal["strip", "keep"],
    max_text_tokens: int,
) -> pa.LargeListArray:
    """One property's column."""
    present = [index for index, text in enumerate(texts) if text is not None]
    pieces = [property_text(prop, text, evidence) for text in texts if text is not None]
    lists = [ids[:max_text_tokens] for ids in encode(pieces)]
    lengths = np.zeros(len(texts) + 1, dtype=np.int64)
    lengths[np.array(present, dtype=np.int64) + 1] = [len(ids) for ids in lists]
    flat = np.concatenate([np.empty(0, np.uint16), *(np.array(ids, dtype=np.uint16) for ids in lists)])
    return pa.LargeListArray.from_arrays(np.cumsum(lengths), flat)
