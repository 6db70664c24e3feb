import pytest

from protclip.errors import BenchmarkError
from protclip.evaluation.registry import load_benchmark

GOOD = """name: mine
title: t
group: g
kind: classification
metric: mcc
citation: c
licence: l
data: {format: csv, files: {train: a.csv, test: a.csv}}
published: {mcc: {somebody: 0.5}}
"""


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
    assert spec.baselines == ("majority", "composition")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("metric: mcc", "metrik: mcc", r"mine\.yaml:5: unknown key 'metrik'; did you mean 'metric'"),
        ("metric: mcc", "metric: aupr", r"mine\.yaml:5: metric: expected one of accuracy, mcc, macro_f1"),
        (
            "kind: classification",
            "kind: zero_shot",
            "unknown kind 'zero_shot'; known: retrieval, classification",
        ),
        ("kind: classification\n", "", "missing key 'kind'"),
        ("kind: classification", "kind: retrieval", r"mine\.yaml:\d+: .*data"),
        ("name: mine", "name: other", "name is 'other'; it must be that of the file, 'mine'"),
        ("{mcc:", "{mmc:", "published"),
        ("somebody: 0.5", "somebody: high", "published"),
        ("format: csv", "format: lmdb", "format: expected one of csv, deeploc_fasta, got 'lmdb'"),
        ("test: a.csv", "tset: a.csv", "unknown key 'data.files.tset'"),
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
