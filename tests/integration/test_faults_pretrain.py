"""Pre-training when one of its workers is killed."""

import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
import ray
import torch

from protclip import checkpoint
from protclip.cluster import pretrain as pretrain_module
from protclip.cluster.pretrain import pretrain
from protclip.config.schema import PretrainConfig

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.usefixtures("ray_cluster")]

# Workers cannot import tests.
ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])


def config(pairs: Path, name: str, place: Path) -> PretrainConfig:
    return PretrainConfig.model_validate(
        {
            "data": str(pairs),
            "run": {"name": name, "storage": str(place)},
            "model": {
                "protein": {"source": "esm2-tiny", "max_tokens": 128},
                "text": {"source": "bert-tiny", "trainable": True, "max_tokens": 64},
                "projection_dim": 32,
                "num_prototypes": 16,
                "fusion_heads": 4,
            },
            "train": {
                "global_batch": 8,
                "max_steps": 4,
                "log_every": 1,
                "valid_every": 4,
                "checkpoint_every": 2,
            },
            "scaling": {"num_workers": 2, "use_gpu": False},
            "tracking": {"enabled": False},
        }
    )


def test_pretrain_gives_the_same_weights_when_a_worker_is_killed(
    tiny_pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = pretrain(config(tiny_pairs, "whole", tmp_path))
    marker, work = tmp_path / "killed", pretrain_module._worker

    def worker(given: dict[str, Any]) -> None:
        post = given["post"]

        def deadly(step: int, text: str) -> None:
            if step == 3 and not marker.exists():
                marker.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            post(step, text)

        work(given | {"post": deadly})

    monkeypatch.setattr(pretrain_module, "_worker", worker)
    result = pretrain(config(tiny_pairs, "killed", tmp_path))
    assert marker.exists()
    assert result["metrics"] == pytest.approx(expected["metrics"])
    one, two = (checkpoint.load(str(r["checkpoint"])) for r in (expected, result))
    assert (two.meta.step, two.meta.epoch, two.meta.batch_index) == (4, 0, 4)
    assert one.weights.keys() == two.weights.keys()
    for name, tensor in one.weights.items():
        torch.testing.assert_close(two.weights[name], tensor, rtol=0, atol=0, msg=name)
