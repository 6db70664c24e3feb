"""What entries have in common: their family by the similarity text, or their sequence."""

# pyarrow makes its compute functions when it is imported, no type checker sees them.
# pyright: reportAttributeAccessIssue=false

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

# A name may hold dots ("TC 1.A.9"), but not the end of a sentence.
FAMILY = r"\bbelongs to (?:the )?(?P<name>(?:[^.]|\.[^ ])+?) (?:super|sub)?famil(?:y|ies)\b"
TRANSPORT_NUMBER = r" ?\(tc [0-9a-z.]+\)"


def family_names(texts: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    """The family that similarity texts name first; null where none is named.

    UniProt goes from the widest unit to the narrowest ("Belongs to the protein kinase superfamily. Tyr
    protein kinase family. …"), and many entries name only the widest. The first is therefore what
    relatives agree on. A protein of several sections ("In the N-terminal section; belongs to the …")
    goes by the first one. Case, blanks and transport classification numbers, in which releases differ,
    do not count.

    Args:
        texts: SIMILARITY texts without heading, with or without evidence tags.

    Returns:
        Lower-case names without "the" and "family".
    """
    folded = pc.replace_substring_regex(pc.utf8_lower(texts), r"\s+", " ")
    names = pc.struct_field(pc.extract_regex(folded, FAMILY), "name")
    return pc.utf8_trim_whitespace(pc.replace_substring_regex(names, TRANSPORT_NUMBER, ""))


def family_ids(texts: pa.Array | pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
    """uint64 identity of each text's family, and whether it names one (the identity is 0 otherwise)."""
    texts = texts.combine_chunks() if isinstance(texts, pa.ChunkedArray) else texts
    # The same few texts stand in many entries.
    coded = texts.dictionary_encode()
    names = family_names(coded.dictionary)
    # One more than there are texts: that of an entry without one.
    ids = np.append(content_ids(names.fill_null("")), np.uint64(0))
    named = np.append(names.is_valid().to_numpy(zero_copy_only=False), False)
    places = coded.indices.fill_null(len(ids) - 1).to_numpy()
    return np.where(named, ids, np.uint64(0))[places], named[places]


def content_ids(texts: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """uint64 identity of each text or sequence, xxh3 of its bytes."""
    digest = xxhash.xxh3_64_intdigest
    contents = texts.cast(pa.large_binary()).to_pylist()
    return np.fromiter((digest(content) for content in contents), np.uint64, len(contents))
