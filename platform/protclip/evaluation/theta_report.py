"""`protclip theta-report`: which θ is best per property and family, as page, Markdown, JSON and picture."""

import json
import logging
import math

import numpy as np

from protclip import checkpoint, storage
from protclip.config.report import ThetaReportConfig
from protclip.errors import CheckpointError, DataError
from protclip.evaluation.charts import png
from protclip.evaluation.embed import Embedder
from protclip.evaluation.segments import evidence_of
from protclip.evaluation.theta import KINDS, draw, families, mean_and_error, measure
from protclip.evaluation.theta_choice import Contrast, Findings, PropertyAnswer, choose
from protclip.evaluation.theta_page import conclusions, to_html, to_markdown
from protclip.evaluation.theta_picture import draw_thetas

log = logging.getLogger(__name__)

PAGE, REPORT, NUMBERS, PICTURE = "theta.html", "theta.md", "theta.json", "theta.png"


def theta_report(config: ThetaReportConfig) -> dict[str, object]:
    """Measures the alignment at every θ and writes the report.

    Returns:
        URIs of the files, numbers of proteins and families, and the best θ of each property.

    Raises:
        CheckpointError: The checkpoint cannot be used, or was trained without PDA.
        DataError: The entries cannot be read, or lack what the criterion needs.
    """
    loaded = checkpoint.load(config.checkpoint)
    if not loaded.config.loss.pda.weight:
        raise CheckpointError(
            f"{loaded.uri}: trained without PDA (loss.pda.weight=0), so its prototypes are as random as they "
            "were at first; give a checkpoint trained with PDA"
        )
    evidence = evidence_of(loaded, config.evidence)
    training = loaded.config.loss.pda.thetas
    pool_rng, choice_rng = np.random.default_rng(config.seed).spawn(2)
    proteins = draw(config.entries, evidence, config.limit)
    thetas = sorted({*config.thetas, *training})
    measured = measure(Embedder(loaded), proteins, thetas, config.pool, pool_rng)
    if np.isnan(measured.of(config.criterion)).all():
        missing = "an annotated site (FT lines)" if config.criterion == "enrichment" else "texts that differ"
        raise DataError(
            f"{config.entries}: no property has {missing}, so criterion={config.criterion} says nothing; "
            "give other entries or criterion=accuracy"
        )
    family_N, names = families(proteins, config.min_family, config.max_families)
    answer = choose(measured, config.criterion, training, family_N, names, config.resamples, choice_rng)
    findings = Findings(config, loaded.uri, loaded.meta.step, training, measured, family_N, names, answer)
    for name, data in files(findings).items():
        storage.write_bytes(storage.join(config.output, name), data)
    for sentence in conclusions(findings):
        log.info("%s", sentence)
    return {
        "report": storage.join(config.output, PAGE),
        "picture": storage.join(config.output, PICTURE),
        "proteins": len(proteins),
        "families": len(names),
        "best": {best.prop: _best(best) for best in answer.properties},
    }


def files(findings: Findings) -> dict[str, bytes]:
    """The report in all forms, by file name."""
    figure = draw_thetas(findings)
    return {
        PAGE: to_html(findings, figure).encode(),
        REPORT: to_markdown(findings, PICTURE).encode(),
        NUMBERS: (json.dumps(to_json(findings), indent=1, allow_nan=False) + "\n").encode(),
        PICTURE: png(figure),
    }


def to_json(findings: Findings) -> dict[str, object]:
    """Every number; undefined ones are null."""
    config, measured, answer = findings.config, findings.measured, findings.answer
    found = {}
    for k, best in enumerate(answer.properties):
        scores_NT = measured.of(config.criterion)[:, k]
        found[best.prop] = {
            "proteins": int(measured.present_NK[:, k].sum()),
            "training_theta": best.training,
            "best_theta": best.peak._asdict(),
            "at_training": _finite(best.before),
            "at_best": _finite(best.after),
            "chance": best.chance,
            "verdict": best.verdict,
            "over_training": _contrast(best.over_training),
            "over_chance": _contrast(best.over_chance),
            "families_over_property": _contrast(best.over_property),
            "pool": measured.pools[k],
            "alike": _finite(measured.alike[k]),
            "alignment": {name: _curve(values[:, k]) for name, values in measured.alignment.items()},
            "sites": {
                kind: {name: _curve(values[:, k, s]) for name, values in measured.overlap.items()}
                for s, kind in enumerate(KINDS)
                if not np.isnan(measured.overlap["recall"][:, k, s]).all()
            },
            "families": {
                family.name: {
                    config.criterion: _curve(scores_NT[findings.family_N == f]),
                    "best_theta": family.peak._asdict(),
                    "over_property": _contrast(family.over_property),
                }
                for f, family in enumerate(best.families)
            },
        }
    return {
        "checkpoint": findings.checkpoint,
        "step": findings.step,
        "config": config.model_dump(mode="json"),
        "proteins": len(findings.family_N),
        "thetas": list(measured.thetas),
        "common_theta": answer.common,
        "properties_over_common": _contrast(answer.over_common),
        "properties": found,
        "conclusions": conclusions(findings),
    }


def _best(best: PropertyAnswer) -> dict[str, object]:
    """What is told of a property on the command line."""
    return {"theta": best.peak.theta, "gain": _finite(best.over_training.gain), "verdict": best.verdict}


def _curve(values_NT: np.ndarray) -> dict[str, object]:
    """Means and standard errors over θ, and how many proteins have them."""
    mean_T, error_T = mean_and_error(values_NT)
    count = int((~np.isnan(values_NT[:, 0])).sum())
    return {
        "mean": [_finite(v) for v in mean_T.tolist()],
        "error": [_finite(v) for v in error_T.tolist()],
        "proteins": count,
    }


def _contrast(contrast: Contrast) -> dict[str, object]:
    """A contrast as JSON has it."""
    gain = _finite(contrast.gain)
    return contrast._asdict() | {"gain": gain, "verdict": contrast.verdict if contrast.proteins else None}


def _finite(value: float) -> float | None:
    """A number as JSON has it."""
    return value if math.isfinite(value) else None
