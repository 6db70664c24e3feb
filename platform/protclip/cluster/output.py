"""What the data jobs share: an output that is theirs alone, and the run that remembers them."""

import logging
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from protclip import __version__, storage
from protclip.cluster.claim import Claim, claimed
from protclip.cluster.journal import Journal
from protclip.config.data import PrepareConfig, SampleConfig
from protclip.config.schema import EmbedConfig
from protclip.data.manifest import MANIFEST_NAME, EmbeddingsManifest, PairsManifest, StrataManifest
from protclip.errors import DataError
from protclip.provenance import git_sha
from protclip.tracking.base import Tracker

log = logging.getLogger(__name__)

STAGING = ".staging"
CLEARED = "cleared"


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
        manifest: type[StrataManifest | PairsManifest | EmbeddingsManifest],
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

        self._claim: Claim | None = None

    @contextmanager
    def staging(self, settings: Mapping[str, object]) -> Iterator[Journal]:
        """Room for intermediate files while this job, and no other, writes to the output.

        What an interrupted job of the same settings and the same code finished is found there again. At
        the end the room is removed; after a failure it stays when something is finished in it.

        Args:
            settings: All that decides what the intermediate files hold.

        Raises:
            DataError: Another job is writing to the output, or nothing can be written there.
        """
        folder = storage.join(self.uri, STAGING)
        with claimed(self.uri) as self._claim:
            journal = Journal(folder, {**settings, "version": __version__, "code": git_sha()})
            try:
                yield journal
            except BaseException:
                if journal.empty:
                    _tidy(folder)
                else:
                    log.warning("what is finished stays in %s; the same command goes on from there", folder)
                raise
            storage.remove_partials(self.uri)
            _tidy(folder)

    def clear(self, journal: Journal) -> None:
        """Removes a previous data set, or what a failed job left; once per job, the manifest first."""
        self.check()
        if journal.noted(CLEARED) is None:
            for name in self._owned:
                storage.remove(storage.join(self.uri, name))
            journal.note(CLEARED, "")

    def check(self) -> None:
        """Does nothing as long as the output is this job's.

        Raises:
            DataError: Another job has taken it over.
        """
        assert self._claim is not None, "staging has begun"
        self._claim.check()


def _tidy(folder: str) -> None:
    """Removes intermediate files; that they stay behind is no reason to fail."""
    try:
        storage.remove(folder)
    except DataError as error:
        log.warning("intermediate files stay behind in %s: %s", folder, error)


@contextmanager
def tracked(
    config: PrepareConfig | SampleConfig | EmbedConfig, job: str, journal: Journal
) -> Iterator[Tracker]:
    """An MLflow run that holds the configuration and ends with the block; an interrupted job's goes on.

    Raises:
        TrackingError: The server does not answer.
    """
    # Workers import this module, but have no use for MLflow and torch.
    from protclip.config.keys import flatten
    from protclip.tracking.ending import closing
    from protclip.tracking.mlflow import open_run

    earlier = journal.noted("run")
    name = f"{job}-{storage.basename(config.output)}"
    tracker = open_run(config.tracking, name, run_id=earlier, tags={"job": job})
    with closing(tracker):
        if tracker.run_id is not None and tracker.run_id != earlier:
            tracker.log_params(flatten(config))
            journal.note("run", tracker.run_id)
        yield tracker


def publish(
    name: str,
    output: str,
    tracker: Tracker,
    *,
    title: str,
    columns: Sequence[str],
    rows: Iterable[Sequence[str]],
    draw: Callable[[Path], None],
    notes: Sequence[str] = (),
) -> None:
    """Shows a table, and keeps it with a picture beside the data set and in the run.

    Writes `<name>.md`, with the notes below the table, and `<name>.png`, by `draw`.
    """
    from protclip.data.picture import render

    text, markdown = render(title, columns, rows)
    listed = "".join(f"- {note}\n" for note in notes)
    log.info("%s%s", text, listed)
    markdown += f"\n{listed}" if notes else ""
    storage.write_bytes(storage.join(output, f"{name}.md"), markdown.encode())
    tracker.log_text(markdown, f"data/{name}.md")
    with tempfile.TemporaryDirectory(prefix="protclip-") as directory:
        picture = Path(directory) / f"{name}.png"
        draw(picture)
        storage.copy_to(picture, storage.join(output, picture.name))
        tracker.log_file(picture, "data")
