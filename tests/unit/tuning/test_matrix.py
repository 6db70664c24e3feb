"""The trainings of an ablation: what is checked, in which order they come, what a later submission finds."""

from pathlib import Path

import pytest

from protclip import storage
from protclip.config.load import load_config
from protclip.config.study import AblationConfig
from protclip.errors import ConfigError, DataError
from protclip.evaluation.registry import load_benchmark
from protclip.tuning.ablation import series
from protclip.tuning.candidate import Outcome, Template
from protclip.tuning.matrix import Matrix

CONF = Path(__file__).resolve().parents[3] / "conf"
READY = sorted((CONF / "ablations").glob("*.yaml"))
VARIANTS = {"paper": (), "weak": ("loss.bsr=0.1",), "none": ("loss.bsr=0", "loss.pda.theta=0.5")}


def config(place, variants=VARIANTS, **keys):
    plain = {
        "name": "abl",
        "storage": str(place),
        "pretrain": ("quickstart",),
        "data": "data/pairs",
        "variants": variants,
        "reference": "paper",
        "seeds": (0, 1),
        "metrics": ("valid/t2p_r10",),
    }
    return AblationConfig(**{**plain, **keys})


def matrix(place, variants=VARIANTS, **keys):
    study = config(place, variants, **keys)
    return Matrix(study, Template(study, CONF))


def begun(made, states):
    """Remembers it, and runs as many as there are states."""
    made.begin("run-1")
    names = []
    for state in states:
        candidate = made.next()
        metrics, best = {"valid/t2p_r10": 0.5}, {"valid/t2p_r10": (0.6, 3)}
        checkpoint = None if state == "failed" else "step-9"
        made.finish(Outcome(candidate.name, state, 9, metrics, best, checkpoint, error="why"))
        names.append(candidate.name)
    return names


def names(made):
    return [candidate.name for candidate in iter(made.next, None)]


def test_matrix_goes_round_all_variants_before_the_next_seed(tmp_path):
    made = matrix(tmp_path, {"weak": ("loss.bsr=0.1",), "paper": ()})
    assert (made.total, made.finished) == (4, 0)
    assert names(made) == ["abl-paper-s0", "abl-weak-s0", "abl-paper-s1", "abl-weak-s1"]


def test_matrix_candidates_have_their_settings_and_say_what_varies(tmp_path):
    made = matrix(tmp_path)
    weak, none = made.candidates["weak", 1], made.candidates["none", 0]
    assert (weak.pretrain.loss.bsr, weak.pretrain.train.seed, weak.pretrain.loss.pda.theta) == (0.1, 1, 0.3)
    assert weak.varied == {"variant": "weak", "train.seed": 1, "loss.bsr": 0.1, "loss.pda.theta": 0.3}
    assert none.varied == {"variant": "none", "train.seed": 0, "loss.bsr": 0.0, "loss.pda.theta": 0.5}
    assert made.varied["paper"] == {"loss.bsr": 0.7, "loss.pda.theta": 0.3}


@pytest.mark.parametrize(
    ("variants", "message"),
    [
        ({"paper": (), "odd": ("loss.brs=1",)}, r"variants\.odd: .*'loss\.brs'; did you mean 'loss\.bsr'"),
        ({"paper": (), "odd": ("loss.bsr=-1",)}, r"variants\.odd: .*loss\.bsr: expected number ≥ 0"),
        ({"paper": (), "odd": ("loss.bsr",)}, r"variants\.odd: .*expected key=value"),
        ({"paper": (), "odd": ("train.seed=4",)}, r"variants\.odd: train\.seed is decided by seeds"),
        ({"paper": (), "odd": ("run.name=x",)}, r"variants\.odd: .*run\.name is decided by the study"),
        ({"paper": (), "odd": ("sampling.max_confidence=5",)}, r"variants\.odd: .*give sample=FILE"),
        ({"paper": (), "an odd one": ("loss.bsr=1",)}, r"variants: 'an odd one' cannot be part of"),
        ({"paper": (), "odd": ("loss.bsr=0.7",)}, r"variants: paper and odd are the same training"),
    ],
)  # fmt: skip
def test_matrix_refuses_wrong_variants_before_anything_starts(tmp_path, variants, message):
    with pytest.raises(ConfigError, match=message):
        matrix(tmp_path / "study", variants)
    assert not (tmp_path / "study").exists()


def test_matrix_refuses_to_compare_by_nothing(tmp_path):
    with pytest.raises(ConfigError, match="nothing to compare"):
        matrix(tmp_path, metrics=())


def test_matrix_draws_pairs_once_for_each_setting_that_differs(tmp_path):
    made = matrix(
        tmp_path,
        {"paper": (), "flat": ("sampling.exponents.confidence=0",), "weak": ("loss.bsr=0.1",)},
        data=None,
        sample=("sample", "source=s", "target_pairs=100"),
        suite=("smoke",),
    )
    paper, flat, weak = (made.candidates[v, 0] for v in ("paper", "flat", "weak"))
    assert paper.pretrain.data == weak.pretrain.data == made.candidates["paper", 1].pretrain.data
    assert paper.pretrain.data != flat.pretrain.data
    assert {c.sample.target_pairs for c in (paper, flat)} == {100}
    assert {c.suite.pairs for c in (paper, flat, weak)} == {paper.pretrain.data}
    assert made.varied["flat"] == {"loss.bsr": 0.7, "sampling.exponents.confidence": 0.0}


def test_matrix_keeps_what_is_complete_and_tries_the_rest_again(tmp_path):
    first = matrix(tmp_path)
    done = begun(first, ["complete", "failed", "stopped", "complete"])
    assert first.finished == 2
    assert names(first) == ["abl-weak-s1", "abl-none-s1"]
    again = matrix(tmp_path)
    assert (again.run_id, again.finished) == ("run-1", 2)
    assert set(again.complete()) == {("paper", 0), ("paper", 1)}
    outcome = again.complete()["paper", 0]
    assert outcome == Outcome(
        done[0], "complete", 9, {"valid/t2p_r10": 0.5}, {"valid/t2p_r10": (0.6, 3)}, "step-9", error="why"
    )
    assert again.incomplete() == {
        "abl-weak-s0": "why",
        "abl-none-s0": "why",
        "abl-weak-s1": "not run yet",
        "abl-none-s1": "not run yet",
    }
    assert names(again) == ["abl-weak-s0", "abl-none-s0", "abl-weak-s1", "abl-none-s1"]


def test_matrix_takes_more_variants_and_seeds_later_and_other_ways_to_compute(tmp_path):
    begun(matrix(tmp_path), ["complete"] * 6)
    more = matrix(
        tmp_path,
        {**VARIANTS, "strong": ("loss.bsr=1",)},
        seeds=(0, 1, 2),
        reference="weak",
        pretrain=("quickstart", "scaling.num_workers=1", "train.log_every=1"),
    )
    assert (more.total, more.finished) == (12, 6)
    assert names(more) == [
        *("abl-strong-s0", "abl-strong-s1"),
        *("abl-weak-s2", "abl-paper-s2", "abl-none-s2", "abl-strong-s2"),
    ]
    more.begin(None)
    assert matrix(tmp_path).run_id == "run-1"


def test_matrix_refuses_other_settings_under_the_same_name(tmp_path):
    begun(matrix(tmp_path), ["complete", "stopped", "failed"])
    with pytest.raises(
        ConfigError, match=r"json: abl-weak-s0 was .* settings: loss\.bsr is 0\.2, was 0\.1\. Take"
    ):
        matrix(tmp_path, {**VARIANTS, "weak": ("loss.bsr=0.2",)})
    with pytest.raises(ConfigError, match=r"abl-paper-s0 was .*: optim\.lr is 0\.1, was 0\.001"):
        matrix(tmp_path, pretrain=("quickstart", "optim.lr=0.1"))
    with pytest.raises(ConfigError, match=r"data is .*other, was .*pairs"):
        matrix(tmp_path, data="data/other")
    with pytest.raises(ConfigError, match=r"\(and \d+ more\)"):
        matrix(tmp_path, pretrain=("local",))


def test_matrix_lets_settings_be_mended_that_failed_before_the_first_checkpoint(tmp_path):
    begun(matrix(tmp_path), ["complete", "complete", "failed"])
    mended = matrix(tmp_path, {**VARIANTS, "none": ("loss.bsr=0", "loss.pda.theta=0.6")})
    assert mended.incomplete()["abl-none-s0"] == "not run yet"
    assert names(mended)[0] == "abl-none-s0"


def test_matrix_evaluates_again_when_the_suite_has_changed(tmp_path):
    begun(matrix(tmp_path, suite=("smoke",)), ["complete"] * 6)
    assert matrix(tmp_path, suite=("smoke", "batch_size=8")).finished == 6
    more = matrix(tmp_path, suite=("smoke", "seeds=0,1"))
    assert (more.finished, len(names(more))) == (0, 6)


def test_matrix_says_what_an_earlier_submission_left_that_cannot_be_read(tmp_path):
    (name,) = begun(matrix(tmp_path), ["complete"])
    uri = str(tmp_path / "abl" / "outcomes" / f"{name}.json")
    storage.write_bytes(uri, b'{"outcome": 1}')
    with pytest.raises(DataError, match=rf"{name}\.json: not a file that this release can read"):
        matrix(tmp_path)


def test_observe_wants_the_metrics_that_are_compared(tmp_path):
    made = matrix(tmp_path, metrics=("valid/t2p_r10", "valid/mlm_accuracy"))
    full = {"valid/t2p_r10": 0.1, "valid/mlm_accuracy": 0.2}
    assert made.observe("abl-weak-s0", full, 1) is False
    with pytest.raises(
        ConfigError, match=r"abl-weak-s0 does not report valid/mlm_accuracy; it reports valid/t2p_r10"
    ):
        made.observe("abl-weak-s0", {"valid/t2p_r10": 0.1}, 1)
    with pytest.raises(ConfigError, match="reports nothing"):
        made.observe("abl-weak-s0", {}, 1)


@pytest.mark.parametrize("path", READY, ids=lambda path: path.stem)
def test_ready_ablation_makes_valid_candidates(path, tmp_path):
    drawn = path.stem in {"sampling", "confidence_flips", "sampling_factors"}
    given = "sample=sample_paper,source=s,target_pairs=9" if drawn else "data=d"
    study = load_config(AblationConfig, path, (given, f"storage={tmp_path}", "seeds=0,1"))
    made = Matrix(study, Template(study, CONF))
    assert study.name == path.stem
    assert made.total == 2 * len(study.variants)
    comment = path.read_text().splitlines()
    assert comment[0].endswith("?") or "? " in comment[0]
    assert comment[1].startswith(f"# protclip ablate --config conf/ablations/{path.name} ")
    assert given.split(",")[0] in " ".join(comment[:3])
    reference = made.candidates[study.reference, 0]
    for benchmark in reference.suite.benchmarks:
        load_benchmark(benchmark, CONF)
    # What is compared beside the suite is comparable: measured on the same pairs, and reported by all.
    assert drawn == (not study.metrics)
    for candidate in made.candidates.values():
        assert "valid/mlm_accuracy" not in study.metrics or candidate.pretrain.loss.mlm
        assert candidate.sample is None or candidate.sample.target_pairs == 9


def test_ready_ablations_are_what_the_paper_asks():
    varied = {}
    for path in READY:
        given = (
            ("sample=sample_paper,source=s", "data=null")
            if "sampl" in path.stem or "flips" in path.stem
            else ("data=d",)
        )
        study = load_config(AblationConfig, path, given)
        varied[path.stem] = Matrix(study, Template(study, CONF)).varied
    assert series(varied["lambda1"])[1] == {f"{n / 10}": n / 10 for n in range(1, 11)}
    assert series(varied["theta"])[1] == {f"{n / 10}": n / 10 for n in range(1, 10)}
    assert list(series(varied["confidence_flips"])[1].values()) == [0, 0.05, 0.1, 0.2, 0.4]
    for variant, own in varied["theta_per_property"].items():
        moved = [key for key, value in own.items() if value != 0.3]
        assert len(moved) == (variant != "all_0.3")
    assert varied["corruption"] == {v: {"masking.corruption": v} for v in ("separate", "shared")}
    alone = {
        v: [k for k, x in own.items() if x and k != "loss.mlm"]
        for v, own in varied["objectives_alone"].items()
    }
    assert alone == {"mlm": [], "gc": ["loss.gc"], "bsr": ["loss.bsr"], "pda": ["loss.pda.weight"]}
    added = [sum(map(bool, own.values())) for own in varied["objectives_added"].values()]
    assert added == [0, 1, 2, 3]


def test_uniform_sampling_is_that_of_the_file_for_it():
    study = load_config(
        AblationConfig, CONF / "ablations/sampling.yaml", ("sample=sample,source=s,target_pairs=9",)
    )
    drawn = Matrix(study, Template(study, CONF)).candidates["uniform", 0].sample
    alone = replace_sample(study, "sample_uniform")
    assert drawn.sampling == alone.sampling


def replace_sample(study, file):
    return Template(
        study.model_copy(update={"sample": (file, "source=s", "target_pairs=9")}), CONF
    ).base.sample
