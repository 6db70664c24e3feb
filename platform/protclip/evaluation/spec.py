"""What a benchmark file may say: one frozen model per kind, data only, no code names."""

from typing import Annotated, Literal

from pydantic import Field

from protclip.config.base import Config, Count, Share

RetrievalMetric = Literal[
    "p2t_r1",
    "p2t_r5",
    "p2t_r10",
    "p2t_mrr",
    "p2t_median_rank",
    "t2p_r1",
    "t2p_r5",
    "t2p_r10",
    "t2p_mrr",
    "t2p_median_rank",
]
ClassificationMetric = Literal["accuracy", "mcc", "macro_f1"]
Positive = Annotated[float, Field(gt=0)]


class _Benchmark(Config):
    """What every benchmark states, whatever its kind."""

    name: str = Field(pattern=r"^[a-z0-9_]+$", description="the file's name without .yaml")
    title: str = Field(description="one line for people")
    group: str = Field(description="heading under which reports list it")
    higher_is_better: bool = Field(default=True, description="whether more of the primary metric is better")
    notes: str = Field(default="", description="what a reader must know to judge the numbers")
    citation: str = Field(description="where task and data come from")
    licence: str = Field(description="licence of the data")


PUBLISHED = Field(default={}, description="published values: metric, then model, then the value in our unit")


class HeldOutPairs(Config):
    """Pairs that pre-training did not see."""

    format: Literal["pairs"] = Field(description="pairs written by sample_data")
    split: Literal["valid", "test"] = Field(default="test", description="the held-out split")
    max_pairs: Count = Field(default=10_000, description="most pairs in the pool (they are stored shuffled)")
    max_train_pairs: Count = Field(default=20_000, description="most training pairs a baseline learns from")


class RetrievalSpec(_Benchmark):
    """Text-protein retrieval among held-out pairs."""

    kind: Literal["retrieval"]
    metric: RetrievalMetric = Field(description="the primary metric, by which models are compared")
    published: dict[RetrievalMetric, dict[str, float]] = PUBLISHED
    data: HeldOutPairs
    baselines: tuple[Literal["chance", "composition"], ...] = Field(
        default=("chance", "composition"), description="what the model is held against"
    )


class SplitFiles(Config):
    """Files of the splits, relative to the suite's data_root; csv rows are also picked by `split`."""

    train: str = Field(description="what the head learns from")
    valid: str | None = Field(default=None, description="what selects the best epoch; null: cut from train")
    test: str = Field(description="what the numbers are measured on")


class LabelledSequences(Config):
    """Sequences with one class each."""

    format: Literal["csv", "deeploc_fasta"] = Field(description="a key of evaluation.formats.FORMATS")
    label: str = Field(default="label", description="a csv's column; location or membrane of a DeepLoc FASTA")
    files: SplitFiles
    valid_share: Share = Field(
        default=0.1, description="share of each class cut from train when valid is null"
    )


class HeadProtocol(Config):
    """How a two-layer head is trained (Linear, ReLU, Linear; Adam, as in ProtST's protocol)."""

    mode: Literal["frozen", "finetune"] = Field(
        default="frozen", description="train the head only, or the protein encoder too"
    )
    features: Literal["pooled", "projected"] = Field(
        default="pooled", description="mean of the encoder's residue states, or the projected embedding"
    )
    max_residues: Count = Field(default=1022, description="longer sequences are cut at their C-terminal end")
    hidden: Count | None = Field(
        default=None, description="width of the hidden layer; null: that of the features"
    )
    lr: Positive = Field(default=1e-3, description="learning rate of the head")
    encoder_lr_factor: Positive = Field(default=0.02, description="factor on lr for the encoder (finetune)")
    batch: Count = Field(default=32, description="sequences per update")
    epochs: Count = Field(default=100, description="most epochs")
    patience: Count = Field(
        default=10, description="epochs without a better validation metric before stopping"
    )


class ClassificationSpec(_Benchmark):
    """One class per sequence, by a head on the protein encoder."""

    kind: Literal["classification"]
    metric: ClassificationMetric = Field(
        description="the primary metric, by which epochs are selected and models compared"
    )
    published: dict[ClassificationMetric, dict[str, float]] = PUBLISHED
    data: LabelledSequences
    protocol: HeadProtocol = HeadProtocol()
    baselines: tuple[Literal["majority", "composition"], ...] = Field(
        default=("majority", "composition"), description="what the model is held against"
    )


BenchmarkSpec = RetrievalSpec | ClassificationSpec
"""Any benchmark; `kind` tells them apart."""
