"""One run of one benchmark as it is planned, kept and found again."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

import numpy as np

CHECKPOINT, UNTOUCHED = "checkpoint", "untouched"
"""Names of the encoders of a suite: the checkpoint, and its protein tower before pre-training."""
ALONE = "alone"
"""Protocol of a baseline, which has no encoder."""


@dataclass(frozen=True, slots=True)
class Trial:
    """What is run.

    Attributes:
        benchmark: Its name.
        version: Digest of the benchmark's protocol and prepared data.
        model: `CHECKPOINT`, `UNTOUCHED` or a baseline of the kind.
        model_digest: What identifies the weights; empty for a baseline.
        protocol: "frozen" or "finetune"; `ALONE` for a baseline.
        seed: Seed of the run.
    """

    benchmark: str
    version: str
    model: str
    model_digest: str
    protocol: str
    seed: int

    @property
    def label(self) -> str:
        """What it is, in words."""
        return f"{self.benchmark} ({self.model}, {self.protocol}, seed {self.seed})"

    @property
    def key(self) -> str:
        """Identifies it among all trials; part of its files' names. Independent of where things lie."""
        text = json.dumps({k: v for k, v in asdict(self).items() if k != "model" or not self.model_digest})
        return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Result:
    """What a trial gave.

    Attributes:
        trial: What was run.
        metrics: Every metric of the kind.
        units: What was measured of each test unit.
        ids: Name of each unit.
        counts: Examples per split and the like.
        notes: What a reader must know.
        seconds: Wall-clock time.
        device: "cpu" or the GPU's name.
        error: What went wrong; metrics and units are empty then.
    """

    trial: Trial
    metrics: Mapping[str, float] = field(default_factory=dict)
    units: Mapping[str, np.ndarray] = field(default_factory=dict)
    ids: Sequence[str] = ()
    counts: Mapping[str, int] = field(default_factory=dict)
    notes: Sequence[str] = ()
    seconds: float = 0.0
    device: str = "cpu"
    error: str | None = None
