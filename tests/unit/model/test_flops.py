from collections.abc import Callable

import pytest
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from protclip.config.schema import LoraConfig, LossConfig, ModelConfig, PdaConfig, ProteinEncoderConfig
from protclip.model.adapters import Adapters
from protclip.model.flops import training_flops
from protclip.model.protclip import ProtCLIP
from protclip.tensors import Batch
from protclip.training import freezing

GC_ONLY = LossConfig(bsr=0, mlm=0, pda=PdaConfig(weight=0))
MLM_ONLY = LossConfig(gc=0, bsr=0, pda=PdaConfig(weight=0))


def counted(model: ProtCLIP, batches: list[Batch]) -> int:
    """Operations, as torch counts them, of both encoders on the inputs that the model gives them."""
    calls: list[tuple[nn.Module, tuple]] = []
    towers = (model.protein_encoder, model.text_encoder)
    hooks = [
        t.register_forward_pre_hook(lambda module, inputs: calls.append((module, inputs))) for t in towers
    ]
    for batch in batches:
        model(batch, None)
    for hook in hooks:
        hook.remove()
    # Other kernels of attention compute the scores anew in the backward pass.
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        for tower, inputs in calls:
            total = tower(*inputs).sum()
            if total.requires_grad:
                total.backward()
    return counter.get_total_flops()


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("loss", [LossConfig(), GC_ONLY, MLM_ONLY])
def test_training_flops_are_those_torch_counts(
    make_model: Callable, make_batch: Callable, loss: LossConfig, shared: bool
) -> None:
    model = make_model(loss, text_trainable=True).train()
    batches = [make_batch(lengths=(30, 12, 50), seed=0), make_batch(lengths=(9, 41), absent=(), seed=1)]
    for batch in batches:
        batch.shared = shared
    assert training_flops(model, batches) == counted(model, batches)


@pytest.mark.parametrize(
    "protein",
    [
        ProteinEncoderConfig(source="esm2-tiny", trainable=False),
        ProteinEncoderConfig(source="esm2-tiny", train_layers=1),
        ProteinEncoderConfig(source="esm2-tiny", unfreeze_at=10),
    ],
)
def test_training_flops_leave_out_the_gradients_of_what_is_frozen(
    make_model: Callable, make_batch: Callable, protein: ProteinEncoderConfig
) -> None:
    model, batch = make_model().train(), make_batch()
    everything = training_flops(model, [batch])
    freezing.apply(model, ModelConfig(protein=protein), step=0)
    assert training_flops(model, [batch]) == counted(model, [batch]) < everything


def test_training_flops_of_adapters_have_no_gradient_of_what_they_adapt(
    make_model: Callable, make_batch: Callable
) -> None:
    model, batch = make_model().train(), make_batch()
    lora = LoraConfig(rank=2, targets=("q_proj",))
    model.adapt(Adapters(lora.rank, lora.alpha, lora.targets))
    config = ModelConfig(protein=ProteinEncoderConfig(source="esm2-tiny", lora=lora))
    freezing.apply(model, config, step=0)
    # In the lowest adapted layer torch takes no gradient below the adapters; the rule is by whole layers.
    exact = counted(model, [batch])
    assert exact <= training_flops(model, [batch]) < 1.2 * exact


def test_training_flops_do_not_grow_with_padding(make_model: Callable, make_batch: Callable) -> None:
    model = make_model().train()
    apart = [make_batch(lengths=(n,), absent=()) for n in (8, 60)]
    together = make_batch(lengths=(8, 60), absent=())
    assert training_flops(model, [together]) == training_flops(model, apart)
