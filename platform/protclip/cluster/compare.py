"""`protclip compare`: results of several checkpoints side by side, remembered as a run."""

import logging
import math
from collections import Counter
from datetime import UTC, datetime

from protclip import storage
from protclip.cluster.publish import FOLDER, publish
from protclip.config.benchmarks import CompareConfig
from protclip.config.keys import flatten
from protclip.data.picture import render
from protclip.evaluation import compare_report
from protclip.evaluation.compare import compare, fewest_resamples, read_reports
from protclip.provenance import git_sha
from protclip.tracking.ending import closing
from protclip.tracking.mlflow import DESCRIPTION_TAG, open_run

log = logging.getLogger(__name__)


def compare_reports(config: CompareConfig) -> dict[str, object]:
    """Holds reports of `protclip benchmark` against the first; writes `compare.{html,md,json,png}`.

    Args:
        config: What to compare.

    Returns:
        The output URI, verdicts by candidate, and the MLflow run id.

    Raises:
        BenchmarkError: Something given is no report.
        DataError: A report is missing, or the output cannot be written.
        TrackingError: The tracking server does not answer.
    """
    reports = read_reports(config.reports)
    tracker = open_run(config.tracking, f"compare-{storage.basename(config.output)}", tags={"job": "compare"})
    with closing(tracker):
        tracker.log_params(flatten(config))
        compared = compare_report.Compared(
            reports=reports,
            rows=compare(reports, config.resamples, config.level, config.seed),
            resamples=config.resamples,
            level=config.level,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            git_sha=git_sha(),
        )
        for candidate in reports[1:]:
            title = f"{candidate.name} against {reports[0].name}"
            headings = compare_report.headings(compared, candidate)
            log.info("%s", render(title, headings, map(compare_report.cells, compared.of(candidate)))[0])
        _warn_of_few(compared)
        publish(compare_report.files(compared), config.output, [tracker])
        columns, rows = compare_report.TABLE_COLUMNS, compare_report.table(compared)
        tracker.log_table(columns, rows, f"{FOLDER}/compare_table.json")
        tracker.set_tags({DESCRIPTION_TAG: compare_report.summary_markdown(compared)})
        tracker.log_metrics(
            {
                f"compare/{row.candidate}/{row.task.name}/{row.protocol}/{name}": value
                for row in compared.rows
                for name, value in (("difference", row.difference), ("corrected_p", row.corrected_p))
                if math.isfinite(value)
            }
        )
    verdicts = {r.name: Counter(row.verdict for row in compared.of(r)) for r in reports[1:]}
    return {"output": config.output, "verdicts": verdicts, "run_id": tracker.run_id}


def _warn_of_few(compared: compare_report.Compared) -> None:
    """Says when resamples cannot show a difference among so many benchmarks."""
    most = max(sum(math.isfinite(row.p) for row in compared.of(r)) for r in compared.reports[1:])
    if compared.resamples < (needed := fewest_resamples(most, compared.level)):
        log.warning(
            "%d resamples cannot show a difference among %d benchmarks at level %g; give resamples=%d",
            compared.resamples, most, compared.level, needed,
        )  # fmt: skip
