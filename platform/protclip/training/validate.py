"""What is measured on held-out pairs while training.

Retrieval both ways and matched against mismatched cosine (paper, open checks), masked-residue
accuracy, and the reconstruction loss of segments with and without the biotext.
"""

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from protclip import parallel
from protclip.config.schema import TrainConfig
from protclip.data.collate import Collator
from protclip.data.dataset import PairsDataset
from protclip.evaluation.metrics import retrieval_metrics
from protclip.model.protclip import ProtCLIP
from protclip.tensors import uses_bf16

BATCH_PAIRS = 64


class _Mean:
    """A running mean of masked positions, added up over ranks."""

    def __init__(self, device: torch.device) -> None:
        self._total_count = torch.zeros(2, dtype=torch.float64, device=device)

    def add(self, values: Tensor) -> None:
        """Adds one value per masked position."""
        self._total_count += torch.stack([values.double().sum(), values.new_tensor(values.numel()).double()])

    def value(self) -> float:
        """The mean, NaN when nothing was added."""
        total, count = parallel.mean_over_ranks(self._total_count).tolist()
        return total / count if count else float("nan")


@torch.no_grad()
def validate(
    model: ProtCLIP, dataset: PairsDataset, collate: Collator, config: TrainConfig
) -> dict[str, float]:
    """Metrics on the first `valid_pairs` pairs of the split, the same pairs and masks every time.

    Every rank takes an equal, consecutive share; embeddings are gathered, so that the retrieval pool
    does not depend on the number of ranks (but for a remainder smaller than it).

    Returns:
        Metric name (without prefix) to value; the same on every rank.
    """
    device = next(model.parameters()).device
    share = min(config.valid_pairs, len(dataset)) // parallel.world_size()
    if share == 0:
        return {}
    first = parallel.rank() * share
    bf16 = uses_bf16(config.precision, device)
    mlm_hits, bsr_with, bsr_without = _Mean(device), _Mean(device), _Mean(device)
    proteins, texts = [], []
    was_training = model.training
    model.eval()
    for start in range(first, first + share, BATCH_PAIRS):
        batch = collate(dataset.rows(0, start, min(start + BATCH_PAIRS, first + share)), epoch=0).to(device)
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16):
            output = model(batch, None)
            blind_MV = model.bsr_logits(batch, use_text=False) if "bsr" in model.terms else None
        proteins.append(output.protein_BD)
        texts.append(output.text_BD)
        if output.mlm_logits_MV is not None and output.mlm_targets_M is not None:
            mlm_hits.add((output.mlm_logits_MV.argmax(-1) == output.mlm_targets_M).float())
        if output.bsr_logits_MV is not None and output.bsr_targets_M is not None and blind_MV is not None:
            bsr_with.add(cross_entropy(output.bsr_logits_MV, output.bsr_targets_M, reduction="none"))
            bsr_without.add(cross_entropy(blind_MV, output.bsr_targets_M, reduction="none"))
    model.train(was_training)
    protein_ND = parallel.gather_rows(torch.cat(proteins)).float().cpu().numpy()
    text_ND = parallel.gather_rows(torch.cat(texts)).float().cpu().numpy()
    metrics = retrieval_metrics(protein_ND, text_ND)
    metrics |= {
        "mlm_accuracy": mlm_hits.value(),
        "bsr_loss": bsr_with.value(),
        "bsr_loss_without_text": bsr_without.value(),
    }
    return {name: value for name, value in metrics.items() if value == value}
