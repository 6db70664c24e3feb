from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest
from huggingface_hub.errors import LocalEntryNotFoundError

from protclip import storage
from protclip.errors import DataError


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, object]:
    """What the library is asked for; the hub has `some/model` with weights in two forms."""
    asked: dict[str, object] = {}

    def info(_: object, name: str, *, timeout: float) -> SimpleNamespace:
        asked.update(timeout=timeout)
        files = (
            "config.json",
            "pytorch_model.bin",
            *(("model.safetensors",) if name == "some/model" else ()),
        )
        return SimpleNamespace(siblings=[SimpleNamespace(rfilename=file) for file in files])

    def download(name: str, **options: object) -> str:
        asked.update(options)
        if options["local_files_only"]:
            raise LocalEntryNotFoundError("nothing here")
        return str(tmp_path / name)

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", info)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    return asked


def test_hub_directory_takes_safetensors_or_what_there_is(asked: dict[str, object], tmp_path: Path) -> None:
    assert storage.hub_directory("some/model") == tmp_path / "some/model"
    assert asked["allow_patterns"] == ["*.json", "*.txt", "*.safetensors"]
    assert asked["timeout"] == huggingface_hub.constants.HF_HUB_ETAG_TIMEOUT
    storage.hub_directory("some/old-model")
    assert asked["allow_patterns"] == ["*.json", "*.txt", "*.bin"]
    storage.hub_directory("some/model", weights=False)
    assert asked["allow_patterns"] == ["*.json", "*.txt"]


def test_hub_directory_without_the_hub_uses_what_is_here(
    asked: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object, **__: object) -> None:
        raise OSError("the hub is away\nfor a while")

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", away)
    with pytest.raises(DataError, match=r"not in the cache of this node.*\(the hub is away\)"):
        storage.hub_directory("some/model")
    assert asked["local_files_only"] is True
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(DataError, match="HF_HUB_OFFLINE is set"):
        storage.hub_directory("some/model")


@pytest.mark.usefixtures("asked")
def test_hub_directory_hides_no_bug(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise TypeError("a bug")

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", broken)
    with pytest.raises(TypeError, match="a bug"):
        storage.hub_directory("some/model")
