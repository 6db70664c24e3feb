"""Retrieval: which text belongs to a protein, and which protein to a text, among held-out pairs.

Pairs with an identical sequence or an identical biotext count as one candidate with several right
answers (homologues often share their annotation word for word), so no right answer is punished. Recall
depends on the size of the pool: only equal pools compare.

Shape suffixes: N pairs, V tokens of the vocabulary, D embedding width.
"""

from collections.abc import Hashable, Iterable, Sequence
from functools import partial

import numpy as np
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from protclip.evaluation.composition import composition
from protclip.evaluation.kind import Encoder, Kind, Mode, Outcome, Units
from protclip.evaluation.metrics.resample import measure
from protclip.evaluation.metrics.retrieval import (
    RETRIEVAL,
    WAYS,
    expect_queries,
    measure_queries,
    resampled_retrieval,
)
from protclip.evaluation.prepared import Prepared
from protclip.evaluation.spec.retrieval import RetrievalSpec

TEXT_COMPONENTS = 64


def run(spec: RetrievalSpec, data: Prepared, encoder: Encoder, mode: Mode, seed: int) -> Outcome:
    """Ranks the held-out pairs against each other; nothing is trained, nothing is drawn."""
    text_ND = encoder.embedder.embed_text_tokens(data.split("test")["tokens"].to_pylist())
    protein_ND = encoder.vectors("projected", _sequences(data, "test"))
    return _outcome(data, measure_queries(protein_ND, text_ND, *_ids(data)))


def score(units: Units) -> dict[str, float]:
    """Every metric of `metrics.retrieval`."""
    return measure(partial(resampled_retrieval, units), len(units["way"]))


def _outcome(data: Prepared, units: Units) -> Outcome:
    """Queries with their names, and what was left of the pairs."""
    test = data.split("test")
    names = test["id"].to_pylist()
    firsts = [np.unique(ids_N, return_index=True)[1] for ids_N in _ids(data)]
    train, texts = set(_texts(data, "train")), set(_texts(data, "test"))
    seen = len(texts & train)
    return Outcome(
        units=units,
        ids=[f"{way} {names[i]}" for way, first in zip(WAYS, firsts, strict=True) for i in first],
        counts={"pairs": len(test), "proteins": len(firsts[0]), "texts": len(firsts[1])},
        notes=[f"{seen} of the texts also stand, word for word, among the training pairs"] if seen else [],
    )


def _chance(spec: RetrievalSpec, data: Prepared, seed: int) -> Outcome:
    """What a random order gives, exactly."""
    return _outcome(data, expect_queries(*_ids(data)))


def _composition(spec: RetrievalSpec, data: Prepared, seed: int) -> Outcome:
    """Ridge regression from amino-acid composition to the main components of the texts' TF-IDF."""
    tfidf = TfidfVectorizer(analyzer=list, sublinear_tf=True)  # pyright: ignore[reportArgumentType]
    train_NV = tfidf.fit_transform(_texts(data, "train"))
    components = min(TEXT_COMPONENTS, *(side - 1 for side in train_NV.shape))
    svd = TruncatedSVD(components, random_state=seed)
    regression = make_pipeline(StandardScaler(), Ridge())
    regression.fit(composition(_sequences(data, "train")), svd.fit_transform(train_NV))
    protein_ND = regression.predict(composition(_sequences(data, "test")))
    text_ND = svd.transform(tfidf.transform(_texts(data, "test")))
    return _outcome(data, measure_queries(protein_ND, text_ND, *_ids(data)))


def _sequences(data: Prepared, split: str) -> list[str]:
    return data.split(split)["sequence"].to_pylist()


def _texts(data: Prepared, split: str) -> list[tuple[int, ...]]:
    """Tokens of the biotexts."""
    return [tuple(tokens) for tokens in data.split(split)["tokens"].to_pylist()]


def _ids(data: Prepared) -> tuple[np.ndarray, np.ndarray]:
    """Numbers (N,) of the test proteins and of the test texts, the same for the same, from 0 as they come."""
    return _numbers(_sequences(data, "test")), _numbers(_texts(data, "test"))


def _numbers(items: Iterable[Hashable]) -> np.ndarray:
    """The same number for equal items."""
    seen: dict[Hashable, int] = {}
    return np.array([seen.setdefault(item, len(seen)) for item in items])


def _test_sequences(spec: RetrievalSpec, data: Prepared) -> Sequence[str]:
    return _sequences(data, "test")


KIND = Kind(
    spec=RetrievalSpec,
    metrics=RETRIEVAL,
    run=run,
    score=score,
    resample=resampled_retrieval,
    needs=lambda spec, data: {"projected": _sequences(data, "test")},
    test_sequences=_test_sequences,
    baselines={"chance": _chance, "composition": _composition},
    seeded=False,
)
