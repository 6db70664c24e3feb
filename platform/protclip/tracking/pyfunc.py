"""A checkpoint as an MLflow model; MLflow stores this file with the model and runs it to load one."""

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel, PythonModelContext

from protclip.errors import DataError
from protclip.evaluation.embed import Embedder


class CheckpointModel(PythonModel):
    """Embeds proteins and texts with the checkpoint that was logged as artifact `checkpoint`."""

    def load_context(self, context: PythonModelContext) -> None:
        """Loads the checkpoint, once per model."""
        self._embedder = Embedder.from_checkpoint(context.artifacts["checkpoint"])

    def predict(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, context: PythonModelContext, model_input: pd.DataFrame
    ) -> pd.DataFrame:
        """Embeds each row.

        Args:
            context: Not used.
            model_input: Column `sequence` (residue letters), `text` (biotext), or both; cells may be empty.

        Returns:
            For each column given `protein_embedding` or `text_embedding`: lists of D floats with norm 1,
            None for an empty cell.

        Raises:
            DataError: Neither column is there.
        """
        columns = {
            "sequence": ("protein_embedding", self._embedder.embed_proteins),
            "text": ("text_embedding", self._embedder.embed_texts),
        }
        found = {
            name: _embed(model_input.loc[:, column], embed)
            for column, (name, embed) in columns.items()
            if column in model_input
        }
        if not found:
            raise DataError("no column 'sequence' or 'text' in the input; give one of them, or both")
        return pd.DataFrame(found, index=model_input.index)


def _embed(cells: pd.Series, embed: Callable[[Sequence[str]], np.ndarray]) -> pd.Series:
    """Embeddings of the cells that are not empty, as lists."""
    filled = np.flatnonzero(cells.notna())
    embedded: list[list[float] | None] = [None] * len(cells)
    for position, vector in zip(filled, embed(cells.iloc[filled].tolist()), strict=True):
        embedded[position] = vector.tolist()
    return pd.Series(embedded, index=cells.index, dtype=object)


set_model(CheckpointModel())
