"""How long a save holds the training loop, as JSON lines.

    python bench/checkpoint.py --parameters 150 --directory /tmp/bench

A state of so many million random parameters with both moments of Adam (12 bytes per parameter) is saved
`--repeats` times by our store and by `torch.save` in the loop, in turn, with a step's worth of pause in
between. `hold_s` is how long the loop stood still, `write_s` until the checkpoint was complete. The first
save of the store also allocates the memory that the later ones use again; it is shown apart.
"""

import argparse
import json
import os
import shutil
import statistics
import time
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from protclip.config.schema import PretrainConfig, RunConfig
from protclip.training.state import TrainState
from protclip.training.store import CheckpointStore

WIDTH = 1280


class Sizes:
    """The part of an architecture that a checkpoint asks for."""

    def to_dict(self) -> dict[str, int]:
        """Plain values."""
        return {"width": WIDTH}


class Layers(nn.Module):
    """Feed-forward layers as wide as ESM-2 650M's."""

    def __init__(self, num_parameters: int) -> None:
        super().__init__()
        self.architecture = Sizes()
        per_layer = 8 * WIDTH**2
        self.layers = nn.ModuleList(
            layer
            for _ in range(num_parameters // per_layer)
            for layer in (nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH))
        )


def make_state(num_parameters: int) -> TrainState:
    """A state whose moments exist."""
    model = Layers(num_parameters)
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()
    optimizer.zero_grad()
    return TrainState(model, optimizer, LambdaLR(optimizer, lambda step: 1.0))  # pyright: ignore[reportArgumentType]


def torch_save(state: TrainState, path: Path) -> float:
    """Seconds of the plain way: model and optimizer by `torch.save`, on disk when it returns."""
    started = time.perf_counter()
    content: dict[str, dict[str, Tensor]] = {
        "model": state.model.state_dict(),
        "optimizer": state.optimizer.state_dict(),
    }
    with path.open("wb") as sink:
        torch.save(content, sink)
        sink.flush()
        os.fsync(sink.fileno())
    return time.perf_counter() - started


def main() -> None:
    """Saves in turn and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--parameters", type=float, default=150, help="millions")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--directory", type=Path, required=True, help="on the disk to be measured; made new")
    arguments = parser.parse_args()
    arguments.directory.mkdir(parents=True)
    state = make_state(int(arguments.parameters * 1e6))
    config = PretrainConfig(data="none", run=RunConfig(name="bench"))
    store = CheckpointStore(str(arguments.directory / "run"), keep_last=1, keep_best=0, best_metric="")
    rows = []
    for step in range(arguments.repeats + 1):
        state.step = step
        store.save(state, config, "{}", "", None, {})
        store.wait()
        row = {name.removeprefix("checkpoint/"): value for name, value in store.metrics().items()}
        row["torch_save_s"] = torch_save(state, arguments.directory / "plain.pt")
        rows.append(row)
        print(
            json.dumps({"save": step, **{name: round(value, 4) for name, value in row.items()}}), flush=True
        )
    names = ("hold_s", "write_s", "torch_save_s")
    middle = {name: statistics.median(row[name] for row in rows[1:]) for name in names}
    ratio = middle["torch_save_s"] / middle["hold_s"]
    print(json.dumps({"median": middle, "gigabytes": rows[0]["bytes"] / 1e9, "ratio": round(ratio, 1)}))
    shutil.rmtree(arguments.directory)


if __name__ == "__main__":
    main()
