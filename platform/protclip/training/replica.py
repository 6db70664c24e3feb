"""ProtCLIP as one rank computes it: sharded or whole, its precision, compiled or not.

The choices meet here and nowhere else. Gradients are averages over the ranks, by DDP as by FSDP, so
every loss is scaled for that. Under FSDP the ranks run the encoder layers in step: every rank needs
the same number of forward calls, whatever its share of the batch.
"""

import logging
import warnings
from collections.abc import Collection, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import (
    FSDPModule,
    MixedPrecisionPolicy,
    fully_shard,
    register_fsdp_forward_method,
)
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from protclip import parallel
from protclip.config.schema import PretrainConfig
from protclip.errors import ConfigError
from protclip.model.protclip import ProtCLIP
from protclip.tensors import Batch, ModelOutput, uses_bf16
from protclip.training.freezing import trained_since

log = logging.getLogger(__name__)

RECOMPILE_LIMIT = 32
"""Variants of a layer: with gradient or not, trained or frozen, training or not, each type; not shapes."""


class Replica:
    """A model placed on this rank's device and prepared for `scaling.strategy`.

    One process computes with the model as it is. `ddp` keeps it whole on every rank. `fsdp` shards
    each encoder layer and the rest (FSDP2), the fp32 weights included; a layer is whole only while
    it computes. In bf16 the forward pass runs under autocast with fp32 weights; on CUDA, FSDP's layers
    are gathered as bf16, which halves what is sent, all else stays fp32, so that both strategies
    compute the same but for the rounding of the layers' norms.

    The optimizer is made afterwards: sharding replaces the parameters.

    Args:
        model: From `build`, on the CPU, equal on every rank; it is changed in place.
        config: Strategy, precision, compilation.
        device: Where this rank computes.

    Attributes:
        bare: The model itself, for names, parameters and `terms`. Under FSDP its parameters are
            sharded outside `forward`, `embed` and `bsr_logits`; its other methods do not compute.

    Raises:
        ConfigError: The model does not fit the device, or `train.compile` finds no compiler.
    """

    def __init__(self, model: ProtCLIP, config: PretrainConfig, device: torch.device) -> None:
        self.bare = model
        self._device = device
        self._bf16 = uses_bf16(config.train.precision, device)
        self._sharded = parallel.is_distributed() and config.scaling.strategy == "fsdp"
        _check_memory(model, config, device, parallel.world_size() if self._sharded else 1)
        if config.train.compile:
            _compile(model, device)
        self._wrapped: nn.Module = model
        if self._sharded:
            _shard(model, device, bf16=self._bf16)
        else:
            model.to(device)
            self.rewrap()

    def rewrap(self) -> None:
        """Takes note that other parameters are trained than before; gradients must be cleared.

        DDP is made anew. FSDP follows by itself but for the type in which it reduces gradients, which
        it fixes for the parameters trained at the first forward pass; gathering once renews that.
        """
        if self._sharded:
            for module in self.bare.modules():
                if isinstance(module, FSDPModule):
                    module.unshard()
                    module.reshard()
        elif parallel.is_distributed():
            # The old wrapper goes first: its gradient buckets are as large as what is trained.
            self._wrapped = self.bare
            self._wrapped = DistributedDataParallel(
                self.bare, forward_sync_buffers=False, gradient_as_bucket_view=True
            )

    def autocast(self) -> torch.autocast:
        """The precision of the forward pass; `forward` and `embed` enter it themselves."""
        return torch.autocast(self._device.type, dtype=torch.bfloat16, enabled=self._bf16)

    def forward(self, batch: Batch, noise_BKP: Tensor | None) -> ModelOutput:
        """All passes; see `ProtCLIP.forward`."""
        with self.autocast():
            return self._wrapped(batch, noise_BKP)

    def embed(self, batch: Batch) -> ModelOutput:
        """Both embeddings without gradient, the first phase of gradient caching; see `ProtCLIP.embed`."""
        with self.autocast():
            return self.bare.embed(batch)

    def reducing(self, last: bool) -> AbstractContextManager[None]:
        """Surrounds forward and backward of a microbatch; DDP exchanges gradients in the last only.

        FSDP reduces each microbatch's gradient at once: waiting would keep it whole on every rank,
        which is what sharding avoids.
        """
        if last or not isinstance(self._wrapped, DistributedDataParallel):
            return nullcontext()
        return self._wrapped.no_sync()

    def part_norms(self) -> dict[str, Tensor]:
        """Norm of the gradient of each part (`protein_encoder`, `fusion`, …), the same on all ranks.

        Plain scalars on the device; parts without a trained parameter are left out.
        """
        parts: dict[str, list[Tensor]] = {}
        for name, gradient in self._gradients():
            parts.setdefault(name.partition(".")[0], []).append(gradient)
        norms_N = torch.stack([nn.utils.get_total_norm(gradients) for gradients in parts.values()])
        if self._sharded:
            squares_N = norms_N.square()
            dist.all_reduce(squares_N)
            norms_N = squares_N.sqrt()
        return dict(zip(parts, norms_N.unbind(), strict=True))

    def clip(self, max_norm: float, part_norms: Mapping[str, Tensor]) -> Tensor:
        """Scales the gradient down to `max_norm` where it is longer.

        Args:
            max_norm: Its longest length.
            part_norms: From `part_norms`.

        Returns:
            Its norm before, a plain scalar on the device.
        """
        norm = torch.stack(list(part_norms.values())).norm()
        nn.utils.clip_grads_with_norm_(self.bare.parameters(), max_norm, norm)
        return norm

    def _gradients(self) -> Iterator[tuple[str, Tensor]]:
        """This rank's piece of every gradient by parameter name."""
        for name, parameter in self.bare.named_parameters():
            if (gradient := parameter.grad) is not None:
                yield name, gradient.to_local() if isinstance(gradient, DTensor) else gradient


def encoder_layers(model: ProtCLIP) -> list[nn.Module]:
    """The repeated layers of both towers: the units of sharding and of compilation."""
    return [*model.protein_encoder.layers, *model.text_encoder.bert.encoder.layer]


def state_bytes(model: ProtCLIP, trained: Collection[str], num_shards: int) -> int:
    """Least memory of a rank: weights, gradients and Adam's two moments, all fp32; activations come on top.

    Args:
        model: Not yet sharded, on any device, `meta` too.
        trained: Names of the parameters that are ever trained.
        num_shards: Ranks that share the state out; 1 when each holds all of it. Sharded, the two
            largest layers and everything outside of layers are counted whole besides, as in use.
    """
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters()}
    kept = 4 * sum(sizes.values()) + 12 * sum(sizes[name] for name in trained)
    if num_shards == 1:
        return kept
    layers = sorted(sum(p.numel() for p in layer.parameters()) for layer in encoder_layers(model))
    return kept // num_shards + 4 * (sum(sizes.values()) - sum(layers) + sum(layers[-2:]))


def _check_memory(model: ProtCLIP, config: PretrainConfig, device: torch.device, num_shards: int) -> None:
    """Logs what the state takes and refuses what cannot fit, before anything is placed."""
    needed = state_bytes(model, trained_since(model, config.model), num_shards)
    log.info("weights, gradients and optimizer state take %.2f GB of each device", needed / 1e9)
    if device.type == "cuda" and needed > (room := torch.cuda.get_device_properties(device).total_memory):
        raise ConfigError(
            f"weights, gradients and optimizer state take {needed / 1e9:.1f} GB of each device, but it has "
            f"{room / 1e9:.1f} GB; set scaling.strategy=fsdp with more scaling.num_workers, train less of "
            "the model (train_layers, lora.rank), or choose a smaller model.protein.source"
        )


def _shard(model: ProtCLIP, device: torch.device, *, bf16: bool) -> None:
    """Shards over all ranks; the mesh is the process group that is there, with its timeout."""
    world = dist.group.WORLD
    assert world is not None
    mesh = DeviceMesh.from_group(world, device.type)
    layers = MixedPrecisionPolicy(
        # The CPU's layer norm takes no bf16 parameters beside an fp32 residual stream; CUDA's autocast does.
        param_dtype=torch.bfloat16 if bf16 and device.type == "cuda" else None,
        reduce_dtype=torch.float32 if bf16 else None,
        # Autocast decides what computes in bf16, so that the residual stream is as without sharding.
        cast_forward_inputs=False,
    )
    for layer in encoder_layers(model):
        fully_shard(layer, mesh=mesh, mp_policy=layers)
    # Resharded after every forward pass, lest validation leave whole parameters behind in the model.
    fully_shard(model, mesh=mesh, reshard_after_forward=True)
    # Outputs are views, which only an operation in place could hurt, and the losses have none.
    warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view tensor", UserWarning)
    for method in ("embed", "bsr_logits"):
        register_fsdp_forward_method(model, method)


def _compile(model: ProtCLIP, device: torch.device) -> None:
    """Compiles each layer's forward, equal layers once; hooks of DDP and FSDP stay outside."""
    from torch._dynamo.exc import BackendCompilerFailed  # takes a second, which others need not wait

    try:
        torch.compile(torch.neg)(torch.ones(2, device=device))
    except BackendCompilerFailed as error:
        detail = " ".join(str(error).split())[:200]
        raise ConfigError(
            f"train.compile=true finds no working compiler for {device.type} ({detail}); "
            "install g++ (CPU) or gcc and triton (CUDA), or set train.compile=false"
        ) from error
    for layer in encoder_layers(model):
        layer.forward = torch.compile(  # pyright: ignore[reportCallIssue] the overloads lack the limit
            layer.forward, dynamic=True, recompile_limit=RECOMPILE_LIMIT
        )
