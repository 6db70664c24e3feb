"""`protclip ablate`: named configurations by seeds, trained, evaluated and held against a reference."""

import logging
import math
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from protclip import storage
from protclip.cluster.claim import claimed
from protclip.cluster.publish import FOLDER, publish
from protclip.cluster.study import check_inputs, draw_held_out, remembered
from protclip.cluster.tune import run_candidates
from protclip.config.study import AblationConfig
from protclip.data.manifest import MANIFEST_NAME, PairsManifest
from protclip.data.picture import render
from protclip.errors import TrainingError
from protclip.provenance import git_sha
from protclip.tracking.base import Tracker
from protclip.tracking.mlflow import DESCRIPTION_TAG
from protclip.tuning import ablation_report
from protclip.tuning.ablation import Row, compare_variants
from protclip.tuning.ablation_report import Ablated
from protclip.tuning.candidate import Template
from protclip.tuning.matrix import Matrix

log = logging.getLogger(__name__)


def ablate(config: AblationConfig, conf_dir: Path = Path("conf")) -> dict[str, object]:
    """Trains every variant with every seed and writes `ablation.{html,md,json,png}`.

    Submitting the same name and storage again continues: what is complete is kept, what failed is tried
    again, variants and seeds may be added.

    Args:
        config: What to compare.
        conf_dir: Directory of `pretrain/`, `data/`, `suites/` and `benchmarks/`.

    Returns:
        The output URI, verdicts by variant, and the MLflow run id.

    Raises:
        ConfigError: A variant or a metric is wrong, or other than in an earlier submission.
        DataError: Pairs are missing, another job works on it, or the storage fails.
        TrackingError: The tracking server does not answer.
        TrainingError: Trainings failed; the others are reported.
        StoppedError: It was asked to stop, and can be continued.
    """
    template = Template(config, conf_dir)
    check_inputs(template, conf_dir)
    with claimed(template.place):
        matrix = Matrix(config, template)
        with remembered(config, template, "ablate", matrix.run_id) as tracker:
            matrix.begin(tracker.run_id)
            draw_held_out(template, conf_dir)
            try:
                run_candidates(matrix, template, config, conf_dir, tracker.run_id)
            finally:
                ablated = _compare(config, matrix)
                if matrix.complete():
                    _report(ablated, template.place, tracker)
            if failed := matrix.incomplete():
                lines = "".join(f"\n- {name}: {why}" for name, why in failed.items())
                raise TrainingError(
                    f"{len(failed)} of {matrix.total} trainings failed; what succeeded is reported in "
                    f"{template.place}, and the same command repeats only these:{lines}"
                )
    verdicts = {
        variant: Counter(row.effects[variant].verdict for row in ablated.rows)
        for variant in config.variants
        if variant != config.reference
    }
    return {"output": template.place, "verdicts": verdicts, "run_id": tracker.run_id}


def _compare(config: AblationConfig, matrix: Matrix) -> Ablated:
    """What can be said of the trainings that are complete."""
    pairs = {variant: candidate.pretrain.data for (variant, _), candidate in matrix.candidates.items()}
    return Ablated(
        name=config.name,
        reference=config.reference,
        varied=matrix.varied,
        seeds=config.seeds,
        rows=compare_variants(
            matrix.complete(), pairs, config.reference, config.metrics, config.resamples, config.level
        ),
        incomplete=matrix.incomplete(),
        num_pairs=_num_pairs(pairs) if len(set(pairs.values())) > 1 else {},
        resamples=config.resamples,
        level=config.level,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        git_sha=git_sha(),
    )


def _num_pairs(pairs: Mapping[str, str]) -> dict[str, int]:
    """Training pairs by variant, of those that were drawn."""
    return {
        variant: PairsManifest.load(uri).splits["train"].rows
        for variant, uri in pairs.items()
        if storage.exists(storage.join(uri, MANIFEST_NAME))
    }


def _report(ablated: Ablated, place: str, tracker: Tracker) -> None:
    """Shows what came out, writes it, and tells the tracker."""
    headings, rows = ablation_report.overview_headings(ablated), ablation_report.overview(ablated)
    log.info("%s", render(ablated.title, headings, rows)[0])
    for remark in ablated.remarks:
        log.warning("%s", remark)
    publish(ablation_report.files(ablated), place, [tracker])
    columns, table = ablation_report.TABLE_COLUMNS, ablation_report.table(ablated)
    tracker.log_table(columns, table, f"{FOLDER}/ablation_table.json")
    tracker.set_tags({DESCRIPTION_TAG: ablation_report.summary_markdown(ablated)})
    tracker.log_metrics(
        {
            f"ablation/{variant}/{row.name}/{name}": value
            for row in ablated.rows
            for variant in ablated.varied
            for name, value in _numbers(row, variant).items()
            if math.isfinite(value)
        }
    )


def _numbers(row: Row, variant: str) -> dict[str, float]:
    """What is remembered of a variant as metrics."""
    found = {"mean": row.mean(variant)}
    if (effect := row.effects.get(variant)) is not None:
        found |= {"difference": effect.difference, "corrected_p": effect.corrected_p}
    return found
