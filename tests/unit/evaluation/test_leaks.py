from pathlib import Path

import pytest

from protclip.errors import BenchmarkError, DataError
from protclip.evaluation.leaks import held_out_sequences

REPO = Path(__file__).resolve().parents[3]
COMMON = "title: t\ngroup: g\ncitation: c\nlicence: l\nmetric: accuracy\n"


@pytest.fixture
def conf(tmp_path: Path) -> Path:
    folder = tmp_path / "conf" / "benchmarks"
    folder.mkdir(parents=True)
    (folder / "some.yaml").write_text(
        f"name: some\nkind: classification\n{COMMON}"
        "data: {format: csv, files: {train: a.csv, test: a.csv}}\n"
    )
    retrieval = (REPO / "conf" / "benchmarks" / "heldout_retrieval.yaml").read_text()
    (folder / "heldout_retrieval.yaml").write_text(retrieval)
    (tmp_path / "a.csv").write_text("sequence,label,split\nmkv,x,test\nMAA,y,train\nMCC,x,test\n")
    return tmp_path / "conf"


def test_held_out_sequences_are_those_of_the_test_split(conf: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    found = held_out_sequences(["some", "heldout_retrieval", "some"], str(conf.parent), conf)
    assert found == {"some": ["MKV", "MCC"]}
    assert "heldout_retrieval is about held-out pairs" in caplog.text


def test_held_out_sequences_refuses_what_is_not_there(conf: Path, tmp_path: Path) -> None:
    with pytest.raises(BenchmarkError, match=r"no benchmark 'somme'.*did you mean 'some'"):
        held_out_sequences(["somme"], str(tmp_path), conf)
    with pytest.raises(DataError, match=r"a\.csv"):
        held_out_sequences(["some"], str(tmp_path / "nowhere"), conf)


def test_held_out_sequences_of_real_deeploc(real_data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "benchmarks"
    folder.mkdir()
    (folder / "deep.yaml").write_text(
        f"name: deep\nkind: classification\n{COMMON}data: {{format: deeploc_fasta, label: location, "
        "files: {train: deeploc_our_val_set.fasta, test: deeploc_test_set.fasta.gz}}\n"
    )
    found = held_out_sequences(["deep"], str(real_data / "localization"), tmp_path)["deep"]
    assert len(found) > 100
    assert all(sequence.isalpha() and sequence.isupper() for sequence in found)
