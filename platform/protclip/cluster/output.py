"""What the two data jobs share: claiming an output, intermediate files, and the run that remembers them."""

import logging
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from protclip import storage
from protclip.cluster.progress import LINE_EVERY_S
from protclip.config.data import PrepareConfig, SampleConfig
from protclip.data.manifest import MANIFEST_NAME, PairsManifest, StrataManifest
from protclip.errors import DataError
from protclip.tracking.base import Tracker

if TYPE_CHECKING:
    from protclip.data.picture import Panel

log = logging.getLogger(__name__)

STAGING = ".staging"


class Output:
    """The place of a data set to be written.

    Args:
        uri: Where the data set goes.
        manifest: Its kind.
        owned: Names of the files and folders that may lie beside the manifest.
        overwrite: Whether a finished data set may be replaced.

    Raises:
        DataError: Something is there that is not to be replaced, or nothing can be written.
    """

    def __init__(
        self,
        uri: str,
        manifest: type[StrataManifest | PairsManifest],
        owned: Sequence[str],
        *,
        overwrite: bool,
    ) -> None:
        self.uri = uri
        self._owned = (MANIFEST_NAME, *owned)
        if storage.exists(storage.join(uri, MANIFEST_NAME)):
            manifest.load(uri)
            if not overwrite:
                raise DataError(f"{uri}: a data set is there already; use overwrite=true or another output")
        if storage.exists(uri):
            prefix = uri.rstrip("/") + "/"
            for file in storage.list_files(uri):
                if file.uri.removeprefix(prefix).partition("/")[0] not in self._owned:
                    raise DataError(f"{file.uri}: not a file of this job; use an empty or another output")

    @contextmanager
    def staging(self) -> Iterator[str]:
        """A folder for intermediate files, removed at the end whatever happens.

        Raises:
            DataError: Nothing can be written there.
        """
        folder = storage.join(self.uri, STAGING)
        storage.remove(folder)
        # Fails here, before any work, when the place cannot be written.
        storage.write_bytes(storage.join(folder, "writable"), b"")
        try:
            yield folder
        finally:
            try:
                storage.remove(folder)
            except DataError as error:
                log.warning("intermediate files stay behind in %s: %s", folder, error)

    def clear(self) -> None:
        """Removes a previous data set, or what a failed job left; the manifest goes first."""
        for name in self._owned:
            storage.remove(storage.join(self.uri, name))


@contextmanager
def tracked(config: PrepareConfig | SampleConfig, job: str) -> Iterator[Tracker]:
    """An MLflow run that holds the configuration and ends with the block.

    Raises:
        TrackingError: The server does not answer.
    """
    # Workers import this module, but have no use for MLflow and torch.
    from protclip.tracking.mlflow import open_run
    from protclip.tracking.params import flatten

    tracker = open_run(config.tracking, f"{job}-{storage.basename(config.output)}", tags={"job": job})
    status = "FAILED"
    try:
        tracker.log_params(flatten(config))
        yield tracker
        status = "FINISHED"
    finally:
        tracker.close(status)


def publish(
    name: str,
    output: str,
    tracker: Tracker,
    *,
    title: str,
    columns: Sequence[str],
    rows: Iterable[Sequence[str]],
    panels: "Sequence[Panel]",
) -> None:
    """Shows a table of strata, and keeps it with a picture beside the data set and in the run.

    Writes `<name>.md` and `<name>.png`.
    """
    from protclip.data.picture import draw, render

    text, markdown = render(title, columns, rows)
    log.info("%s", text)
    storage.write_bytes(storage.join(output, f"{name}.md"), markdown.encode())
    tracker.log_text(markdown, f"data/{name}.md")
    with tempfile.TemporaryDirectory(prefix="protclip-") as directory:
        picture = Path(directory) / f"{name}.png"
        draw(title, panels, picture)
        storage.copy_to(picture, storage.join(output, picture.name))
        tracker.log_file(picture, "data")


def progress(description: str, unit: str, total: int | None = None) -> tqdm:
    """A bar on stderr: alive on a terminal, a line every few seconds in a log."""
    interval = 0.1 if sys.stderr.isatty() else LINE_EVERY_S
    return tqdm(
        desc=description, unit=unit, total=total, mininterval=interval, dynamic_ncols=True, file=sys.stderr
    )
