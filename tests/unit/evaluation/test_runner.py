from collections.abc import Mapping
from typing import Literal

import numpy as np
import pyarrow as pa
import pytest

from protclip.config.benchmarks import SuiteConfig
from protclip.errors import BenchmarkError, DataError
from protclip.evaluation import prepared
from protclip.evaluation.kind import FixedEncoder, Kind, Outcome
from protclip.evaluation.pairs import read_pairs
from protclip.evaluation.prepared import Prepared, PreparedManifest
from protclip.evaluation.registry import KINDS
from protclip.evaluation.runner import plan, read_data, run_trial, version_of, wanted_vectors
from protclip.evaluation.spec.base import Benchmark, DataSection
from protclip.evaluation.spec.retrieval import HeldOutPairs
from protclip.evaluation.trial import ALONE, CHECKPOINT, UNTOUCHED, Trial

DIGESTS = {CHECKPOINT: "c", UNTOUCHED: "u"}


class PlainSpec(Benchmark[DataSection]):
    kind: Literal["plain", "fixed", "broken"]
    epochs: int = 3


def spec(name="one", kind="plain", **changes) -> PlainSpec:
    values = {
        "name": name,
        "title": "t",
        "group": "g",
        "kind": kind,
        "metric": "mean",
        "citation": "c",
        "licence": "l",
        "data": {"format": "csv", "files": {"all": {"path": "a.csv"}}},
        "baselines": ["zero", UNTOUCHED],
    }
    return PlainSpec.model_validate(values | changes)


def run(spec, data, encoder, mode, seed):
    values_N = encoder.vectors("features", data.tables["examples"]["sequence"].to_pylist())[:, 0]
    return Outcome({"value": values_N + seed}, ids=["a", "b"], counts={"test": 2}, notes=[mode])


def needs(spec, data):
    if spec.kind == "broken":
        raise BenchmarkError("nothing to learn")
    sequences = data.tables["examples"]["sequence"].to_pylist()
    return {"features": [*sequences, spec.name], "texts": ["t"]}


PLAIN = Kind(
    spec=PlainSpec,
    metrics=("mean",),
    run=run,
    score=lambda units: {"mean": float(units["value"].mean())},
    needs=needs,
    test_sequences=lambda spec, data: data.tables["examples"]["sequence"].to_pylist(),
    baselines={"zero": lambda spec, data, seed: Outcome({"value": np.zeros(2)}, ids=["a", "b"])},
    modes=("frozen", "finetune"),
)
FIXED = Kind(PlainSpec, ("mean",), run, PLAIN.score, needs, PLAIN.test_sequences, {}, seeded=False)


@pytest.fixture(autouse=True)
def _kinds(monkeypatch):
    for name, kind in {"plain": PLAIN, "fixed": FIXED, "broken": PLAIN}.items():
        monkeypatch.setitem(KINDS, name, kind)


def data(digest="x") -> Prepared:
    return Prepared({"examples": pa.table({"sequence": ["MK", "A"]})}, (), digest, ("a note",))


def suite(**changes) -> SuiteConfig:
    return SuiteConfig.model_validate({"benchmarks": ["one"], "checkpoint": "c", "output": "o"} | changes)


def runs(trials: list[Trial]) -> list[tuple[str, str, int]]:
    return [(trial.model, trial.protocol, trial.seed) for trial in trials]


def test_plan_runs_every_encoder_by_every_protocol_and_baselines_alone():
    trials = plan(
        [spec()], {"one": data()}, suite(seeds=[0, 7, 0], protocols=["frozen", "finetune"]), DIGESTS
    )
    assert runs(trials) == [
        (model, protocol, seed)
        for model, protocol in (
            (CHECKPOINT, "frozen"),
            (CHECKPOINT, "finetune"),
            ("zero", ALONE),
            (UNTOUCHED, "frozen"),
            (UNTOUCHED, "finetune"),
        )
        for seed in (0, 7)
    ]
    assert {trial.model: trial.model_digest for trial in trials} == {**DIGESTS, "zero": ""}
    assert len({trial.key for trial in trials}) == len(trials)


def test_plan_leaves_out_what_is_not_asked_for_or_cannot_be():
    fixed = spec("two", "fixed", baselines=[])
    config = suite(seeds=[5, 6], protocols=["finetune"], baselines=False)
    trials = plan([spec(), fixed], {"one": data(), "two": data()}, config, DIGESTS)
    assert runs(trials) == [
        (CHECKPOINT, "finetune", 5),
        (CHECKPOINT, "finetune", 6),
        (CHECKPOINT, "frozen", 5),
    ]


def test_version_changes_with_protocol_and_data_not_with_words():
    version = version_of(spec(), data())
    assert version == version_of(
        spec(title="new", notes="n", published={"mean": {"A": 1}}, tolerance=0.5, baselines=[]), data()
    )
    assert version != version_of(spec(), data("y"))
    assert version != version_of(spec(epochs=4), data())
    files = {"all": {"path": "b.csv"}}
    assert version != version_of(spec(data={"format": "csv", "files": files}), data())


def test_wanted_vectors_are_the_union_over_frozen_trials_by_encoder():
    specs: Mapping[str, PlainSpec] = {
        "one": spec(),
        "two": spec("two", baselines=[]),
        "bad": spec("bad", "broken", baselines=[]),
    }
    datas = dict.fromkeys(specs, data())
    trials = plan(specs.values(), datas, suite(seeds=[0, 1], protocols=["frozen", "finetune"]), DIGESTS)
    assert wanted_vectors(trials, specs, datas) == {
        CHECKPOINT: {"features": ["MK", "A", "one", "two"], "texts": ["t"]},
        UNTOUCHED: {"features": ["MK", "A", "one"], "texts": ["t"]},
    }
    assert wanted_vectors([t for t in trials if t.protocol != "frozen"], specs, datas) == {}


def test_run_trial_measures_an_encoder_or_a_baseline():
    encoder = FixedEncoder("length", lambda items: np.array([[len(item)] for item in items]))
    trial = Trial("one", "v", CHECKPOINT, "c", "finetune", 3)
    result = run_trial(trial, spec(), data(), encoder)
    assert (result.trial, result.metrics, result.ids) == (trial, {"mean": 4.5}, ["a", "b"])
    assert (result.counts, result.notes, result.device) == ({"test": 2}, ["a note", "finetune"], "cpu")
    np.testing.assert_array_equal(result.units["value"], [5, 4])
    alone = run_trial(Trial("one", "v", "zero", "", ALONE, 0), spec(), data(), encoder)
    assert alone.metrics == {"mean": 0}


@pytest.mark.parametrize("outcome", [Outcome({"value": np.ones(2)}, ids=["a"]), Outcome({}, ids=[])])
def test_run_trial_refuses_units_that_do_not_go_together(monkeypatch, outcome):
    monkeypatch.setitem(PLAIN.baselines, "zero", lambda *_: outcome)
    with pytest.raises(BenchmarkError, match="nothing was measured, or units do not go together"):
        run_trial(Trial("one", "v", "zero", "", ALONE, 0), spec(), data(), FixedEncoder("none", len))


class CsvSection(DataSection):
    label: str = "label"


def stored(root, name="one", task="similarity", **settings):
    manifest = PreparedManifest(
        benchmark=name,
        task=task,
        settings=CsvSection.model_validate(
            {"format": "csv", "files": {"all": {"path": "a.csv"}}} | settings
        ).model_dump(mode="json"),
        sources=(),
        counts={},
    )
    tables = {n: schema.empty_table() for n, schema in prepared.SCHEMAS[task].items()}
    prepared.save(str(root / name), manifest, tables, [])


def similar(name="one", **section):
    values = {"format": "csv", "files": {"all": {"path": "a.csv"}}} | section
    return spec(name).model_copy(update={"kind": "similarity", "data": CsvSection.model_validate(values)})


def test_read_data_gives_what_was_prepared_by_the_same_settings(tmp_path):
    stored(tmp_path)
    found = read_data([similar(expected={"test": 3})], str(tmp_path), "", "")
    assert found["one"].digest == PreparedManifest.digest(str(tmp_path / "one"))


def test_read_data_names_every_benchmark_that_must_be_prepared(tmp_path):
    stored(tmp_path)
    stored(tmp_path, "two")
    asked = [similar(), similar("two", label="other"), similar("three")]
    with pytest.raises(DataError, match=r"two, three; run `protclip prepare-benchmarks benchmarks=two,three"):
        read_data(asked, str(tmp_path), "", "")


def test_read_pairs_reads_the_held_out_split_and_biotext_tokens(tiny_pairs):
    from protclip.data.manifest import PairsManifest
    from protclip.data.tokenizer import TextTokenizer

    tokenizer = TextTokenizer.load("builtin")
    found = read_pairs(HeldOutPairs(format="pairs"), str(tiny_pairs), tokenizer.fingerprint)
    assert found.digest == PairsManifest.digest(str(tiny_pairs))
    assert {name: len(found.split(name)) for name in ("train", "test")} == {"train": 48, "test": 24}
    first = found.split("test").slice(0, 1).to_pylist()[0]
    name, *_ = tokenizer.encode([f"FUNCTION: Acts by its {first['sequence'][1:5]} motif."])
    assert any(first["tokens"][i : i + len(name)] == name for i in range(len(first["tokens"])))
    few = HeldOutPairs(format="pairs", split="valid", max_pairs=5, max_train_pairs=30)
    limited = read_pairs(few, str(tiny_pairs), tokenizer.fingerprint)
    assert [len(limited.split(name)) for name in ("train", "test")] == [30, 5]


def test_read_pairs_refuses_another_tokenizer(tiny_pairs):
    with pytest.raises(DataError, match="tokenised with 'builtin'"):
        read_pairs(HeldOutPairs(format="pairs"), str(tiny_pairs), "f" * 64)
