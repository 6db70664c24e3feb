import pickle
from pathlib import Path

import pytest

from protclip.errors import BenchmarkError
from protclip.evaluation.registry import load_benchmark, load_suite

CONF = Path(__file__).resolve().parents[3] / "conf"
GOOD = """name: mine
title: t
group: g
kind: classification
metric: mcc
citation: c
licence: l
data: {format: table, target: label, target_type: label, files: {train: {path: a.csv}, test: {path: b.csv}}}
published: {mcc: {somebody: 0.5}}
baselines: [majority, untouched]
"""
RETRIEVAL = "kind: retrieval\nmetric: t2p_r1\ndata: {format: pairs}\n"


@pytest.fixture
def conf(tmp_path):
    (tmp_path / "benchmarks").mkdir()
    return tmp_path


def write(conf, text, name="mine"):
    (conf / "benchmarks" / f"{name}.yaml").write_text(text)


def test_load_benchmark_reads_a_file(conf):
    write(conf, GOOD)
    spec = load_benchmark("mine", conf)
    assert (spec.name, spec.kind, spec.published) == ("mine", "classification", {"mcc": {"somebody": 0.5}})
    assert (spec.data.format, spec.data.target, spec.baselines) == (
        "table",
        "label",
        ("majority", "untouched"),
    )


def test_load_benchmark_knows_the_data_that_is_not_prepared(conf):
    write(conf, "name: mine\ntitle: t\ngroup: g\ncitation: c\nlicence: l\n" + RETRIEVAL)
    assert load_benchmark("mine", conf).data.split == "test"


@pytest.mark.parametrize("name", ["made_location", "heldout_retrieval"])
def test_a_benchmark_survives_being_pickled(name):
    """Its class is made of two and has no name of its own."""
    spec = load_benchmark(name, CONF)
    again = pickle.loads(pickle.dumps(spec))
    assert again == spec
    assert type(again) is type(spec)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("metric: mcc", "metrik: mcc", r"mine\.yaml:5: unknown key 'metrik'; did you mean 'metric'"),
        ("metric: mcc", "metric: aupr", r"metric: kind classification has no 'aupr'; known: accuracy, mcc"),
        ("kind: classification", "kind: magic", r"unknown kind 'magic'; known: .*retrieval"),
        ("kind: classification\n", "", "missing key 'kind'"),
        (
            "kind: classification",
            "kind: retrieval",
            r"'table' is none that kind retrieval can use; known: pairs",
        ),
        (
            "kind: classification",
            "kind: ppi",
            r"'table' is none that kind ppi can use; known: string_actions",
        ),
        ("name: mine", "name: other", "name is 'other'; it must be that of the file, 'mine'"),
        ("{mcc:", "{mmc:", "published: kind classification has no 'mmc'"),
        ("somebody: 0.5", "somebody: high", "published"),
        ("untouched]", "untuched]", "baselines: kind classification has no 'untuched'; known: .*untouched"),
        (
            "format: table",
            "format: tabel",
            "'tabel' is none that kind classification can use; known: .*table",
        ),
        ("test: {path: b.csv}", "test: {paht: b.csv}", "unknown key 'data.files.test.paht'"),
        ("target: label,", "", "missing key 'data.target'"),
        ("name: mine", "name: mine\nname: mine", "duplicate key 'name'"),
        ("name: mine", ": [", "not valid YAML"),
    ],
)
def test_load_benchmark_explains_a_wrong_file(conf, old, new, message):
    assert old in GOOD
    write(conf, GOOD.replace(old, new))
    with pytest.raises(BenchmarkError, match=message) as caught:
        load_benchmark("mine", conf)
    assert caught.value.exit_code == 5


def test_load_benchmark_lists_the_known_names(conf):
    write(conf, GOOD)
    write(conf, GOOD, "deeploc_sub")
    with pytest.raises(BenchmarkError, match=r"did you mean 'deeploc_sub'\? known: deeploc_sub, mine"):
        load_benchmark("deeploc_subb", conf)


def test_load_benchmark_says_so_when_there_are_none(tmp_path):
    with pytest.raises(BenchmarkError, match="known: none"):
        load_benchmark("mine", tmp_path)


def test_load_suite_gives_the_benchmarks_of_a_file(tmp_path):
    (tmp_path / "suites").mkdir()
    (tmp_path / "suites" / "few.yaml").write_text("benchmarks: [a, b]\nseeds: [0, 1]\n")
    assert load_suite("few", tmp_path) == ("a", "b")
    with pytest.raises(BenchmarkError, match=r"no suite 'fwe' in .*suites; known: few"):
        load_suite("fwe", tmp_path)
    (tmp_path / "suites" / "few.yaml").write_text("seeds: [0, 1]\n")
    with pytest.raises(BenchmarkError, match="benchmarks"):
        load_suite("few", tmp_path)
