"""What can be configured about training and evaluation: one frozen model per job.

Every field's description is what `--help` prints. Values marked [P] are the paper's, [R] the
authors' code's, [D] ours (see `docs/fidelity.md`). The data jobs are in `config.data`.
"""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from protclip.config.base import Config, Count, Share, TrackingConfig, Uri, Weight
from protclip.records import Property


class LoraConfig(Config):
    """Low-rank adapters (Hu et al. 2021), trained instead of the encoder's own weights."""

    rank: int = Field(
        default=0, ge=0, description="rank of the adapters; 0: none, the encoder's own weights are trained"
    )
    alpha: Annotated[float, Field(gt=0)] = Field(
        default=16, description="scale of the adapters, divided by the rank"
    )
    targets: tuple[Literal["q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"], ...] = Field(
        default=("q_proj", "v_proj"), min_length=1, description="matrices adapted in every layer"
    )


class EncoderConfig(Config):
    """What can be said of either tower."""

    source: str
    trainable: bool
    unfreeze_at: int = Field(default=0, ge=0, description="step from which on a trainable encoder is trained")
    train_layers: Count | None = Field(
        default=None, description="only the last so many layers are trained; null: all"
    )
    checkpointing: bool = Field(default=False, description="recompute activations per layer to save memory")

    @model_validator(mode="after")
    def _what_is_frozen_has_no_schedule(self) -> Self:
        if not self.trainable and (self.unfreeze_at or self.train_layers):
            raise ValueError(
                "unfreeze_at and train_layers have no effect with trainable=false; drop them or set it true"
            )
        return self


class ProteinEncoderConfig(EncoderConfig):
    """The protein tower."""

    source: str = Field(
        default="esm2_t33_650M_UR50D",
        description="architecture preset, a fair-esm .pt file, or a Hugging Face directory or name",
    )
    trainable: bool = Field(default=True, description="train the encoder [R]")
    lora: LoraConfig = LoraConfig()
    max_tokens: Annotated[int, Field(ge=3)] = Field(
        default=1024, description="most residue tokens, <cls> and <eos> included [P]"
    )

    @model_validator(mode="after")
    def _adapters_replace_training(self) -> Self:
        if self.lora.rank and self.train_layers:
            raise ValueError(
                "beside lora the encoder's own layers stay frozen; drop train_layers or lora.rank"
            )
        if self.lora.rank and not self.trainable:
            raise ValueError(
                "lora.rank trains the encoder's adapters, trainable=false freezes them; drop one"
            )
        return self


class TextEncoderConfig(EncoderConfig):
    """The biotext tower."""

    source: str = Field(
        default="microsoft/BiomedNLP-BiomedBERT-base-uncased-abstract",
        description="architecture preset (bert-tiny), or a Hugging Face directory or name",
    )
    trainable: bool = Field(default=False, description="train the encoder; frozen by default [R]")
    max_tokens: Annotated[int, Field(ge=3)] = Field(
        default=512, description="most biotext tokens, [CLS] and [SEP] included [P]"
    )


class ModelConfig(Config):
    """ProtCLIP's architecture."""

    init: Uri | None = Field(
        default=None,
        description="start from a whole model instead of the encoders' sources: URI of a checkpoint or run, "
        "of an exported model, or of the authors' config.json and model.safetensors",
    )
    protein: ProteinEncoderConfig = ProteinEncoderConfig()
    text: TextEncoderConfig = TextEncoderConfig()
    projection_dim: Count = Field(default=512, description="width of the shared space [R]")
    num_prototypes: Count = Field(default=512, description="size of PDA's prototype bank [R]")
    fusion_heads: Count = Field(default=8, description="heads of BSR's cross-attention [D]")


Theta = Annotated[float, Field(ge=0, lt=1)]


class PdaConfig(Config):
    """Property-grouped dynamic segment alignment."""

    weight: Weight = Field(default=1.0, description="weight of the PDA loss [P]")
    theta: Theta | dict[Property, Theta] = Field(
        default=0.3, description="similarity threshold, one number or one per property [P]"
    )
    gumbel_temperature: Annotated[float, Field(gt=0)] = Field(
        default=0.9, description="temperature of the prototype mixture [R]"
    )
    temperature: Annotated[float, Field(gt=0)] = Field(
        default=0.1, description="initial contrastive temperature [R]"
    )

    @model_validator(mode="after")
    def _theta_for_every_property(self) -> Self:
        if isinstance(self.theta, dict) and set(self.theta) != set(Property):
            missing = ", ".join(p for p in Property if p not in self.theta)
            raise ValueError(f"theta given per property must name all four; missing: {missing}")
        return self

    @property
    def thetas(self) -> tuple[float, ...]:
        """θ of each property, in biotext order."""
        if isinstance(self.theta, dict):
            return tuple(self.theta[p] for p in Property)
        return (self.theta,) * len(Property)


class LossConfig(Config):
    """L = gc·L_GC + bsr·L_BSR + mlm·L_MLM + pda.weight·L_PDA (paper: λ1 = bsr, λ2 = mlm)."""

    gc: Weight = Field(default=1.0, description="weight of the global contrastive loss [P]")
    bsr: Weight = Field(default=0.7, description="weight λ1 of segment reconstruction [P]")
    mlm: Weight = Field(default=0.3, description="weight λ2 of masked-residue modelling [P]")
    pda: PdaConfig = PdaConfig()
    temperature: Annotated[float, Field(gt=0)] = Field(
        default=0.07, description="initial temperature of the global contrastive loss [P]"
    )
    contrastive: Literal["infonce", "sigmoid"] = Field(
        default="infonce",
        description="form of the global contrastive loss: infonce [P], or sigmoid (SigLIP, Zhai et al. 2023)",
    )

    @property
    def weights(self) -> dict[str, float]:
        """Weight of every term by its name; a term of weight 0 is switched off."""
        return {"gc": self.gc, "bsr": self.bsr, "mlm": self.mlm, "pda": self.pda.weight}

    @model_validator(mode="after")
    def _something_to_learn(self) -> Self:
        if not any(self.weights.values()):
            raise ValueError("every loss weight is 0; give at least one of gc, bsr, mlm, pda.weight")
        return self


class MaskingConfig(Config):
    """Which residues are hidden."""

    corruption: Literal["separate", "shared"] = Field(
        default="separate",
        description="separate: a pass with masked residues and one with segments [P]; shared: one has both",
    )
    mlm_rate: Share = Field(default=0.15, description="share of residues masked one by one [P]")
    segment_rate: Share = Field(default=0.15, description="share of residues masked in segments [P]")
    segment_min: Count = Field(default=5, description="shortest masked segment [P]")
    segment_max: Count = Field(default=10, description="longest masked segment [P]")

    @model_validator(mode="after")
    def _segment_bounds_in_order(self) -> Self:
        if self.segment_min > self.segment_max:
            raise ValueError("segment_min is above segment_max; swap them")
        return self


class OptimConfig(Config):
    """AdamW with linear warm-up and cosine decay."""

    lr: Annotated[float, Field(gt=0)] = Field(default=1e-5, description="peak learning rate [P]")
    encoder_lr_factor: Weight = Field(
        default=0.1, description="factor on lr for both encoders; intended by [R], applied here"
    )
    layer_decay: Annotated[float, Field(gt=0, le=1)] = Field(
        default=1.0, description="factor on the learning rate from each encoder layer to the one below it"
    )
    weight_decay: Weight = Field(default=0.0, description="decoupled weight decay of matrices [P]")
    betas: tuple[Share, Share] = Field(default=(0.9, 0.999), description="Adam's moment decays")
    eps: Annotated[float, Field(gt=0)] = Field(default=1e-8, description="Adam's epsilon")
    warmup_share: Share = Field(default=0.03, description="share of the steps spent warming up [P]")
    final_lr_share: Share = Field(default=0.0, description="learning rate at the last step over the peak")
    clip_norm: Annotated[float, Field(gt=0)] = Field(default=1.0, description="gradient norm limit [D]")


class TrainConfig(Config):
    """The loop."""

    global_batch: Count = Field(default=2048, description="pairs per step over all workers [P]")
    micro_batch: Count | None = Field(
        default=None,
        description="most pairs a worker computes at once (less memory, the same result); null: all",
    )
    max_steps: Count = Field(default=10_000, description="optimisation steps")
    seed: int = Field(default=0, ge=0, description="seed of weights, masks and order")
    precision: Literal["auto", "fp32", "bf16"] = Field(
        default="auto",
        description="bf16 autocast with fp32 weights; auto: bf16 on GPUs that compute in it, else fp32",
    )
    compile: bool = Field(default=False, description="compile the encoder layers with torch.compile")
    log_every: Count = Field(default=10, description="steps between logged metrics")
    valid_every: Count = Field(default=500, description="steps between validations")
    valid_pairs: Count = Field(default=2048, description="most validation pairs used")
    checkpoint_every: Count = Field(default=500, description="steps between checkpoints")
    keep_checkpoints: Count = Field(default=2, description="newest checkpoints kept")
    keep_best: int = Field(default=0, ge=0, description="best checkpoints kept beside the newest")
    best_metric: str = Field(
        default="valid/t2p_r10",
        description="decides which are best; lower is better for losses, ranks and mismatched_cosine",
    )
    nonfinite_limit: int = Field(
        default=10,
        ge=0,
        description="updates left out for a loss or gradient that is not finite, before giving up",
    )
    peak_tflops: Annotated[float, Field(gt=0)] | None = Field(
        default=None, description="peak of one device for train/mfu; null: looked up for known GPUs"
    )


class RunConfig(Config):
    """Name and place of a run."""

    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$",
        description="name; submitting the same name and storage again continues the run",
    )
    storage: Uri = Field(default="outputs/runs", description="URI under which runs keep their checkpoints")


class ScalingConfig(Config):
    """Ray Train workers."""

    num_workers: Count = Field(default=1, description="data-parallel workers")
    min_workers: Count | None = Field(
        default=None, description="go on with as few workers as this while the others are away; null: wait"
    )
    strategy: Literal["ddp", "fsdp"] = Field(
        default="ddp",
        description="ddp: every worker holds the whole model; fsdp: workers share out parameters and state",
    )
    timeout_s: Annotated[float, Field(gt=0)] = Field(
        default=1800, description="seconds without a step after which a hanging worker is named and replaced"
    )
    start_timeout_s: Annotated[float, Field(gt=0)] = Field(
        default=1800,
        description="seconds without room for the workers after which a run gives up; an autoscaler may need "
        "many minutes for a node",
    )
    use_gpu: bool | None = Field(
        default=None, description="one GPU per worker; null: when the cluster has GPUs"
    )
    cpus_per_worker: Annotated[float, Field(gt=0)] = Field(default=1, description="CPUs reserved per worker")
    max_failures: int = Field(
        default=3, ge=-1, description="worker failures recovered from; -1 for any number"
    )


class PretrainConfig(Config):
    """Pre-training (`protclip pretrain`)."""

    data: Uri = Field(description="URI of the pairs")
    run: RunConfig
    model: ModelConfig = ModelConfig()
    loss: LossConfig = LossConfig()
    masking: MaskingConfig = MaskingConfig()
    optim: OptimConfig = OptimConfig()
    train: TrainConfig = TrainConfig()
    scaling: ScalingConfig = ScalingConfig()
    tracking: TrackingConfig = TrackingConfig()

    @model_validator(mode="after")
    def _a_pair_for_everyone(self) -> Self:
        batch, workers = self.train.global_batch, self.scaling.num_workers
        if batch < workers:
            raise ValueError(
                f"train.global_batch={batch} leaves some of scaling.num_workers={workers} without a pair; "
                "use fewer workers or a larger batch"
            )
        if (fewest := self.scaling.min_workers) and fewest > workers:
            raise ValueError(f"scaling.min_workers={fewest} is above scaling.num_workers={workers}; lower it")
        return self

    @model_validator(mode="after")
    def _unfreezing_before_the_end(self) -> Self:
        last = self.train.max_steps - 1
        for name, tower in (("protein", self.model.protein), ("text", self.model.text)):
            if tower.unfreeze_at > last:
                raise ValueError(
                    f"model.{name}.unfreeze_at={tower.unfreeze_at} is past the last step, {last}: it would "
                    f"never be trained; lower it or set model.{name}.trainable=false"
                )
        return self


class ReplayConfig(Config):
    """A training step looked at again (`protclip replay`)."""

    run: Uri = Field(description="URI of the run")
    step: Count = Field(description="the step, as in metrics and warnings; the first is 1")
    pairs: Uri | None = Field(default=None, description="pairs of the run; null: where they were")
    top: Count = Field(default=10, description="most pairs and parameters listed for their gradients")


class EmbedConfig(Config):
    """Embeddings and protein-text consistency of many entries (`protclip embed`)."""

    source: Uri = Field(description="URI of strata, or of pairs (their three splits)")
    checkpoint: Uri = Field(description="URI of a checkpoint or of a run, whose newest one is used")
    output: Uri = Field(description="URI of the embeddings to write")
    what: tuple[Literal["protein", "text", "consistency"], ...] = Field(
        default=("consistency",),
        min_length=1,
        description="columns to write, comma-separated: protein (protein_embedding), text (text_embedding), "
        "consistency (cosine of the two)",
    )
    embedding_type: Literal["float16", "float32"] = Field(
        default="float16", description="type of the numbers in an embedding; computed in float32"
    )
    max_confidence: Annotated[int, Field(ge=1, le=5)] = Field(
        default=5, description="entries with a worse (higher) C are left out"
    )
    min_coverage: Annotated[int, Field(ge=1, le=4)] = Field(
        default=1, description="entries with fewer properties are left out"
    )
    evidence: Literal["strip", "keep"] | None = Field(
        default=None,
        description="evidence tags in the texts of strata; null: as in the checkpoint's training pairs",
    )
    batch_size: Count = Field(default=512, description="most entries computed at once")
    batch_tokens: Count = Field(
        default=32_768, description="most tokens computed at once, padding included; lower it for less memory"
    )
    precision: Literal["auto", "fp32", "bf16"] = Field(
        default="auto", description="bf16 autocast; auto: bf16 on GPUs that compute in it, else fp32"
    )
    num_workers: Count | None = Field(
        default=None, description="workers, each with the model; null: as many as the cluster has room for"
    )
    cpus_per_worker: Count = Field(default=1, description="CPUs a worker holds")
    gpus_per_worker: Annotated[float, Field(ge=0)] | None = Field(
        default=None, description="GPUs a worker holds, a fraction shares one; null: 1 if the cluster has any"
    )
    overwrite: bool = Field(default=False, description="replace an output that is already there")
    tracking: TrackingConfig = TrackingConfig()


class QuickstartConfig(Config):
    """The whole path on a made sample (`protclip quickstart`)."""

    output: Uri = Field(default="outputs/quickstart", description="directory for everything that is made")
    seed: int = Field(default=0, ge=0, description="seed of the sample, the weights and the order")
    num_workers: Count = Field(default=2, description="data-parallel workers")
    num_reviewed: Count = Field(default=3000, description="made entries of the reviewed section")
    num_unreviewed: Count = Field(default=6000, description="made entries of the unreviewed section")
    max_steps: Count = Field(default=300, description="optimisation steps")
