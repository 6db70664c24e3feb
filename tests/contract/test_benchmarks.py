"""Every benchmark and suite in conf/ loads, and runs on made official files by what is in the package."""

from pathlib import Path

import numpy as np
import pytest

import made_graphs
import made_primekg
import made_raw
from protclip.config.base import Config
from protclip.config.benchmarks import SuiteConfig
from protclip.config.load import load_config
from protclip.data.manifest import PairsManifest
from protclip.evaluation.embed import Embedder
from protclip.evaluation.encoders import ModelEncoder
from protclip.evaluation.pairs import read_pairs
from protclip.evaluation.prepare import prepare_one
from protclip.evaluation.prepared import load, save
from protclip.evaluation.registry import FORMATS, KINDS, load_benchmark
from protclip.evaluation.runner import run_trial
from protclip.evaluation.spec.retrieval import HeldOutPairs
from protclip.evaluation.store import ResultStore, VectorStore
from protclip.evaluation.trial import ALONE, CHECKPOINT, UNTOUCHED, Trial

CONF = Path(__file__).resolve().parents[2] / "conf"
BENCHMARKS = sorted(path.stem for path in (CONF / "benchmarks").glob("*.yaml"))
SUITES = sorted((CONF / "suites").glob("*.yaml"))
WRITERS = made_raw.WRITERS | made_graphs.WRITERS
WRITERS |= {"primekg": made_primekg.write_primekg, "links": made_primekg.write_links}
PAPER = (
    *("bin", "sub", "ec", "go_bp", "go_mf", "go_cc"),
    *("beta_lactamase", "aav", "thermostability", "fluorescence", "stability"),
    *("prot2bp", "prot2mf", "prot2cc", "prot2drug", "disease2prot"),
    *("similarity_mf", "similarity_bp", "similarity_cc"),
    *("ppi_shs27k", "ppi_shs148k", "ppi_string"),
)
SMALL = {
    **{"epochs": 1, "width": 24, "hidden": 16, "layers": 1, "heads": 2, "feedforward": 32},
    "max_residues": 20,
}
"""What every protocol is cut down to, where it says more."""


def small(config: Config) -> Config:
    """The same with protocols that take no time."""
    changes = {}
    for name, value in config:
        if isinstance(value, Config) and name != "data":
            changes[name] = small(value)
        elif name in SMALL and isinstance(value, int):
            changes[name] = min(value, SMALL[name])
    return config.model_copy(update=changes)


class Watched(ModelEncoder):
    """A model that notes what it is asked for."""

    def __init__(self, embedder: Embedder, store: VectorStore) -> None:
        super().__init__("tiny", lambda: embedder, store)
        self.asked: dict[str, set[str]] = {}

    def vectors(self, what, items):
        self.asked.setdefault(what, set()).update(items)
        return super().vectors(what, items)


@pytest.fixture(scope="module")
def embedder(tiny_checkpoint):
    return Embedder.from_checkpoint(str(tiny_checkpoint))


@pytest.mark.parametrize("name", BENCHMARKS)
def test_benchmark_runs_from_official_files_to_metrics(name, tmp_path, embedder, tiny_pairs):
    spec = small(load_benchmark(name, CONF))
    kind = KINDS[spec.kind]
    if isinstance(spec.data, HeldOutPairs):
        data = read_pairs(
            spec.data, str(tiny_pairs), PairsManifest.load(str(tiny_pairs)).tokenizer.fingerprint
        )
    else:
        paths = {role: tmp_path / "raw" / file.path for role, file in spec.data.files.items()}
        for path in paths.values():
            path.parent.mkdir(parents=True, exist_ok=True)
        WRITERS[spec.data.format](spec.data, paths, np.random.default_rng(0))
        content = prepare_one(name, spec.kind, spec.data, paths, FORMATS[spec.data.format].read)
        save(
            str(tmp_path / name),
            content.manifest(name, spec.kind, spec.data, []),
            content.tables,
            content.odd,
        )
        data = load(str(tmp_path), name)
    encoder = Watched(embedder, VectorStore(str(tmp_path), "none"))
    runs = [(CHECKPOINT, mode) for mode in kind.modes]
    runs += [(baseline, ALONE) for baseline in spec.baselines if baseline != UNTOUCHED]
    store = ResultStore(str(tmp_path / "results"))
    ids = None
    for model, protocol in runs:
        result = run_trial(Trial(name, "v", model, "", protocol, 0), spec, data, encoder)
        assert result.metrics.keys() <= set(kind.metrics), (model, protocol)
        assert np.isfinite(result.metrics[spec.metric]), (model, protocol)
        # So that two models are compared unit by unit.
        ids = ids or result.ids
        assert result.ids == ids
        assert len(set(ids)) == len(ids)
        store.add(result)
    # What is computed once for all seeds is all that is used; only examples that a seed draws come on top.
    for what, items in kind.needs(spec, data).items():
        extra = encoder.asked.pop(what) - set(items)
        assert not extra or spec.kind == "few_shot"
    assert not encoder.asked
    # Whole, for they are looked for among those of pre-training.
    tested = set(kind.test_sequences(spec, data))
    columns = [table["sequence"] for table in data.tables.values() if "sequence" in table.column_names]
    assert tested
    assert tested <= {sequence for column in columns for sequence in column.to_pylist()}


def test_the_papers_22_benchmarks_are_a_suite():
    suite = load_config(SuiteConfig, CONF / "suites" / "paper22.yaml", ["checkpoint=c", "output=o"])
    assert suite.benchmarks == PAPER


@pytest.mark.parametrize("path", SUITES, ids=lambda path: path.stem)
def test_suite_file_names_known_benchmarks(path):
    suite = load_config(SuiteConfig, path, ["checkpoint=runs/x", "output=report"])
    assert set(suite.benchmarks) <= set(BENCHMARKS)


def test_every_format_has_a_made_fixture():
    assert WRITERS.keys() == FORMATS.keys()


def test_made_location_reads_what_synthesize_writes(tmp_path):
    from protclip.data.synthetic import write_sample

    write_sample(str(tmp_path), num_reviewed=20, num_unreviewed=20, seed=0)
    spec = load_benchmark("made_location", CONF)
    paths = {role: tmp_path / "benchmarks" / file.path for role, file in spec.data.files.items()}
    content = prepare_one("made_location", spec.kind, spec.data, paths, FORMATS[spec.data.format].read)
    assert {"train", "valid", "test"} <= content.counts.keys()
    assert len(content.labels) > 1
    assert content.odd == []
