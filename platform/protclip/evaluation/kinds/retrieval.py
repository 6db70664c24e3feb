"""Retrieval: which text belongs to a protein, and which protein to a text, among held-out pairs.

Pairs with an identical sequence or an identical biotext count as one candidate with several right
answers (homologues often share their annotation word for word), so no right answer is punished.
"""

from collections.abc import Callable

import numpy as np
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from protclip.evaluation.composition import composition
from protclip.evaluation.embed import Embedder
from protclip.evaluation.formats import Splits
from protclip.evaluation.metrics import retrieval_chance, retrieval_metrics
from protclip.evaluation.results import Outcome
from protclip.evaluation.spec import RetrievalSpec

TEXT_COMPONENTS = 64


def run_retrieval(spec: RetrievalSpec, splits: Splits[list[int]], embedder: Embedder, seed: int) -> Outcome:
    """Embeds the held-out pairs and ranks them against each other; nothing is trained."""
    train, test = splits["train"], splits["test"]
    texts = [tuple(tokens) for tokens in test.targets]
    seen = len(set(texts) & set(map(tuple, train.targets)))
    ids = _ids(test.sequences), _ids(texts)
    metrics = retrieval_metrics(
        embedder.embed_proteins(test.sequences), embedder.embed_text_tokens(test.targets), *ids
    )
    return Outcome(
        metrics=metrics,
        baselines={name: BASELINES[name](splits, *ids, seed) for name in spec.baselines},
        counts={
            "pairs": len(test),
            "proteins": len(set(ids[0].tolist())),
            "texts": len(set(texts)),
        },
        notes=[f"{seen} of the texts also stand, word for word, among {len(train)} training pairs"]
        if seen
        else [],
    )


def _ids(items: list) -> np.ndarray:
    """The same number for equal items."""
    seen: dict[object, int] = {}
    return np.array([seen.setdefault(item, len(seen)) for item in items])


def _chance(
    splits: Splits[list[int]], protein_ids_N: np.ndarray, text_ids_N: np.ndarray, seed: int
) -> dict[str, float]:
    """What a random order scores."""
    return retrieval_chance(protein_ids_N, text_ids_N)


def _composition(
    splits: Splits[list[int]], protein_ids_N: np.ndarray, text_ids_N: np.ndarray, seed: int
) -> dict[str, float]:
    """Ridge regression from amino-acid composition to the main components of the texts' TF-IDF."""
    train, test = splits["train"], splits["test"]
    tfidf = TfidfVectorizer(analyzer=list, sublinear_tf=True)  # pyright: ignore[reportArgumentType]
    train_NV = tfidf.fit_transform(train.targets)
    components = min(TEXT_COMPONENTS, *(side - 1 for side in train_NV.shape))
    svd = TruncatedSVD(components, random_state=seed)
    regression = make_pipeline(StandardScaler(), Ridge())
    regression.fit(composition(train.sequences), svd.fit_transform(train_NV))
    protein_ND = regression.predict(composition(test.sequences))
    return retrieval_metrics(
        protein_ND, svd.transform(tfidf.transform(test.targets)), protein_ids_N, text_ids_N
    )


Baseline = Callable[[Splits[list[int]], np.ndarray, np.ndarray, int], dict[str, float]]

BASELINES: dict[str, Baseline] = {"chance": _chance, "composition": _composition}
"""Metrics of each baseline by name, from splits, protein ids, text ids and a seed."""
