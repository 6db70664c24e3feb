"""Every benchmark and suite in conf/ can be loaded and run by what is in the package."""

from pathlib import Path

import pytest

from protclip.config.load import load_config
from protclip.config.schema import SuiteConfig
from protclip.evaluation.formats import FORMATS, Sources
from protclip.evaluation.kinds import classification, retrieval
from protclip.evaluation.registry import KINDS, load_benchmark
from protclip.evaluation.runner import read_data

CONF = Path(__file__).resolve().parents[2] / "conf"
BENCHMARKS = sorted(path.stem for path in (CONF / "benchmarks").glob("*.yaml"))
SUITES = sorted((CONF / "suites").glob("*.yaml"))
BASELINES = {"classification": classification.BASELINES, "retrieval": retrieval.BASELINES}


@pytest.mark.parametrize("name", BENCHMARKS)
def test_benchmark_file_loads_and_names_what_exists(name):
    spec = load_benchmark(name, CONF)
    assert isinstance(spec, KINDS[spec.kind].spec)
    assert spec.data.format in FORMATS
    assert set(spec.baselines) <= BASELINES[spec.kind].keys()


@pytest.mark.parametrize("path", SUITES, ids=lambda path: path.stem)
def test_suite_file_names_known_benchmarks(path):
    suite = load_config(SuiteConfig, path, ["checkpoint=runs/x", "output=report"])
    assert set(suite.benchmarks) <= set(BENCHMARKS)


def test_smoke_suite_is_the_embedded_default():
    suite = load_config(SuiteConfig, CONF / "suites" / "smoke.yaml", ["checkpoint=c", "output=o"])
    assert suite.benchmarks == ("heldout_retrieval", "made_location")


def test_made_location_reads_what_synthesize_writes(tmp_path):
    from protclip.data.synthetic import write_sample

    write_sample(str(tmp_path), num_reviewed=20, num_unreviewed=20, seed=0)
    spec = load_benchmark("made_location", CONF)
    splits = read_data(spec, Sources(str(tmp_path / "benchmarks"), "", ""))
    assert set(splits) == {"train", "valid", "test"}
    assert len(set(splits["train"].targets)) > 1


@pytest.mark.parametrize(("name", "classes", "tests"), [("deeploc_sub", 10, 2768), ("deeploc_bin", 2, 1746)])
def test_deeploc_benchmarks_read_the_real_files(real_data, name, classes, tests):
    splits = read_data(load_benchmark(name, CONF), Sources(str(real_data / "localization"), "", ""))
    assert len(splits["test"]) == tests
    assert len(set(splits["train"].targets) | set(splits["test"].targets)) == classes
    assert not set(splits["train"].sequences) & set(splits["test"].sequences)
