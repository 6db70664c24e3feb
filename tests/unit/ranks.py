"""What one rank of `test_parallel` computes; run as a script it is a rank of its own process group."""

import sys
from dataclasses import fields

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from protclip import parallel
from protclip.config.schema import LossConfig, ModelConfig, ProteinEncoderConfig, TextEncoderConfig
from protclip.losses.objective import objective
from protclip.model.protclip import build
from protclip.tensors import CLS, EOS, MASK, PAD, Batch

NUM_PAIRS, LENGTH, WORDS, VOCAB, PROTOTYPES = 4, 14, 9, 40, 8

Results = dict[str, torch.Tensor]


def global_batch() -> Batch:
    """Four pairs; the last two have no MLM mask, and their properties are fewer than two."""
    generator = torch.Generator().manual_seed(0)
    tokens = torch.full((NUM_PAIRS, LENGTH), PAD)
    mlm, segment = (torch.zeros(NUM_PAIRS, LENGTH, dtype=torch.bool) for _ in range(2))
    for i, length in enumerate((12, 5, 9, 1)):
        tokens[i, 0], tokens[i, length + 1] = CLS, EOS
        tokens[i, 1 : length + 1] = torch.randint(4, 24, (length,), generator=generator)
        mlm[i, 1 : 2 + length // 3] = i < 2
        segment[i, 1 : 1 + length // 2] = True
    text = torch.randint(5, VOCAB, (NUM_PAIRS, 5, WORDS), generator=generator)
    real = torch.arange(WORDS) < torch.randint(3, WORDS, (NUM_PAIRS, 5, 1), generator=generator)
    real[1, 2] = real[2:, 2:] = False
    return Batch(
        tokens_BL=tokens,
        mlm_tokens_BL=tokens.masked_fill(mlm, MASK),
        mlm_mask_BL=mlm,
        segment_tokens_BL=tokens.masked_fill(segment, MASK),
        segment_mask_BL=segment,
        text_BT=text[:, 0],
        text_mask_BT=real[:, 0],
        property_BKT=text[:, 1:],
        property_mask_BKT=real[:, 1:],
        keys_B=torch.arange(NUM_PAIRS),
    )


def training_gradients() -> Results:
    """Terms, their averages over ranks, and every gradient of one step of a small ProtCLIP."""
    config = ModelConfig(
        protein=ProteinEncoderConfig(source="esm2-tiny"),
        text=TextEncoderConfig(source="bert-tiny", trainable=True),
        projection_dim=16,
        num_prototypes=PROTOTYPES,
        fusion_heads=2,
    )
    loss = LossConfig()
    bare = build(config, loss, VOCAB, seed=0)
    model = DistributedDataParallel(bare) if parallel.is_distributed() else bare
    generator = torch.Generator().manual_seed(1)
    noise = torch.randn(NUM_PAIRS, 4, PROTOTYPES, generator=generator)
    share = NUM_PAIRS // parallel.world_size()
    mine = slice(parallel.rank() * share, (parallel.rank() + 1) * share)
    batch = global_batch()
    report = objective(
        model(Batch(*(getattr(batch, f.name)[mine] for f in fields(batch) if f.init)), noise[mine]), loss
    )
    report.total.backward()
    results = {f"loss/{name}": parallel.mean_over_ranks(value) for name, value in report.terms.items()}
    results["loss/total"] = parallel.mean_over_ranks(report.total)
    for name, parameter in bare.named_parameters():
        assert parameter.grad is not None, name
        results[f"grad/{name}"] = parameter.grad
    return results


def collectives() -> Results:
    """Rows of all ranks, and the gradient of something that weighs them differently on each."""
    rows = (torch.arange(6.0).view(2, 3) + 10 * parallel.rank()).requires_grad_()
    gathered = parallel.gather_rows(rows)
    weights = torch.arange(gathered.numel()).view(gathered.shape) * (parallel.rank() + 1.0)
    product = gathered * weights
    product.sum().backward()
    return {
        "gathered": gathered.detach(),
        "rows_grad": rows.grad,
        "mean": parallel.mean_over_ranks(torch.tensor(1.0 + parallel.rank(), requires_grad=True)),
    }


if __name__ == "__main__":
    store, index, world, target = sys.argv[1:]
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=int(index), world_size=int(world))
    torch.save(collectives() | training_gradients(), target)
    dist.destroy_process_group()
