"""A tracker that a test can look into."""

from protclip.tracking.base import NullTracker


class Notebook(NullTracker):
    """A tracker that takes down what it is told."""

    run_id = "parent"

    def __init__(self) -> None:
        self.told: dict[str, object] = {}
        self.opened: list[dict[str, object]] = []

    def log_params(self, params):
        self.told |= params

    def log_metrics(self, metrics, step=None):
        self.told |= metrics

    def log_file(self, path, folder=""):
        self.told[f"{folder}/{path.name}"] = path.read_bytes()

    def log_table(self, columns, rows, name):
        self.told[name] = [dict(zip(columns, row, strict=True)) for row in rows]

    def set_tags(self, tags):
        self.told |= tags

    def close(self, status="FINISHED"):
        self.told["status"] = status
