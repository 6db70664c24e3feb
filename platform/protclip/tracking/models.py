"""Checkpoints as models in MLflow: logged with their run, registered under a name and an alias."""

import logging
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path

import mlflow.pyfunc
import pandas as pd
from mlflow import MlflowClient
from mlflow.entities import LoggedModel, LoggedModelOutput
from mlflow.exceptions import MlflowException
from mlflow.models import Model, ModelSignature
from mlflow.types import ColSpec, DataType, Schema
from mlflow.types.schema import Array

from protclip import __version__, checkpoint
from protclip.errors import DataError
from protclip.tracking.base import Tracker
from protclip.tracking.mlflow import MlflowTracker
from protclip.tracking.params import masked
from protclip.tracking.server import FAILURES, patiently, reason

log = logging.getLogger(__name__)

MODEL_SIGNATURE = ModelSignature(
    Schema([ColSpec(DataType.string, column, required=False) for column in ("sequence", "text")]),
    Schema(
        [
            ColSpec(Array(DataType.float), column, required=False)
            for column in ("protein_embedding", "text_embedding")
        ]
    ),
)
MODEL_EXAMPLE = {"sequence": ["MKWVTFISLLFLFSSAYS"], "text": ["SUBCELLULAR LOCATION: Secreted."]}


def log_checkpoint_model(
    tracker: Tracker, checkpoint_uri: str, name: str = "protclip", *, wait_s: float = 0.0
) -> str | None:
    """Logs a checkpoint as a model of the run that `mlflow.pyfunc.load_model` can load.

    Its `predict` takes a table with a column `sequence`, `text` or both (see `pyfunc.py`). Unlike a
    tracker's methods this one waits for the server, for seconds when it is away and `wait_s` is 0.

    Args:
        tracker: The run; nothing happens with one that remembers nothing.
        checkpoint_uri: A checkpoint or a run, whose newest one is taken.
        name: The model's name within the run.
        wait_s: How long to wait for a server that is away.

    Returns:
        The model's URI, or None when it was not logged; a warning then says why.

    Raises:
        CheckpointError: There is no checkpoint.
    """
    if not isinstance(tracker, MlflowTracker):
        return None
    client, run_id = MlflowClient(tracker.uri), tracker.run_id

    def create() -> LoggedModel:
        return client.create_logged_model(client.get_run(run_id).info.experiment_id, name, run_id)

    try:
        with tempfile.TemporaryDirectory(prefix="protclip-") as directory:
            source = Path(directory) / "checkpoint"
            checkpoint.copy_for_inference(checkpoint_uri, source)
            logged = patiently(create, tracker.uri, wait_s)
            path = str(Path(directory) / "model")
            mlflow.pyfunc.save_model(
                path,
                python_model=str(Path(__file__).with_name("pyfunc.py")),
                artifacts={"checkpoint": str(source)},
                signature=MODEL_SIGNATURE,
                input_example=pd.DataFrame(MODEL_EXAMPLE),
                pip_requirements=[f"protclip=={__version__}"],
                mlflow_model=Model(
                    artifact_path=logged.artifact_location,
                    run_id=run_id,
                    model_uuid=logged.model_id,
                    model_id=logged.model_id,
                ),
            )

            def deliver() -> None:
                client.log_model_artifacts(logged.model_id, path)
                client.finalize_logged_model(logged.model_id, "READY")
                client.log_outputs(run_id, [LoggedModelOutput(logged.model_id, step=0)])

            patiently(deliver, tracker.uri, wait_s)
    except (*FAILURES, DataError) as error:
        log.warning("%s is not logged as a model: %s", checkpoint_uri, reason(error))
        return None
    return f"models:/{logged.model_id}"


def register(
    tracker: Tracker,
    model_uri: str,
    name: str,
    alias: str,
    tags: Mapping[str, str] | None = None,
    *,
    wait_s: float = 0.0,
) -> str | None:
    """Registers a logged model as a version of a registered model and sets an alias to it.

    A model that is registered already keeps its version, to which alias and tags are moved.

    Args:
        tracker: A run of the same server; nothing happens with one that remembers nothing.
        model_uri: As `log_checkpoint_model` has returned it.
        name: Of the registered model, which is created when there is none.
        alias: Characters that MLflow does not take are replaced by `-`.
        tags: Of the version.
        wait_s: How long to wait for a server that is away.

    Returns:
        The URI `models:/NAME/VERSION`, or None when it was not registered; a warning then says why and
        how to do it later.
    """
    if not isinstance(tracker, MlflowTracker):
        return None
    client, alias = MlflowClient(tracker.uri), re.sub(r"[^\w-]", "-", alias)

    def place() -> str:
        version = _version(client, model_uri.removeprefix("models:/"), name)
        for key, value in (tags or {}).items():
            client.set_model_version_tag(name, version, key, masked(value))
        client.set_registered_model_alias(name, alias, version)
        return version

    try:
        return f"models:/{name}/{patiently(place, tracker.uri, wait_s)}"
    except FAILURES as error:
        log.warning(
            '%s is not registered as %s: %s; do it later by MLFLOW_TRACKING_URI=%s python -c "import mlflow; '
            "version = mlflow.register_model('%s', '%s').version; "
            "mlflow.MlflowClient().set_registered_model_alias('%s', '%s', version)\"",
            *(model_uri, name, reason(error), masked(tracker.uri), model_uri, name, name, alias),
        )
        return None


def _version(client: MlflowClient, model_id: str, name: str) -> str:
    """The version that a logged model has in a registered model, a new one where it has none."""
    model = client.get_logged_model(model_id)
    found = client.search_model_versions(f"run_id = '{model.source_run_id}'")
    for version in found:
        if (version.name, version.source) == (name, model.artifact_location):
            return str(version.version)
    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    # By its place, because MLflow looks for a `models:/` source on the default server, not this client's.
    created = client.create_model_version(
        name, model.artifact_location, model.source_run_id, model_id=model_id, await_creation_for=0
    )
    return str(created.version)
