"""Remembers runs; `mlflow.py` is the only importer of MLflow, `base.py` is what others see.

MLflow reads its settings when it is imported or called, so what a user has not set is set here: a
server that is away costs seconds, not the minutes of MLflow's defaults, no usage data is sent, and
nothing is printed.
"""

import os

for _name, _value in {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}.items():
    os.environ.setdefault(_name, _value)
