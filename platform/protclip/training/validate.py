"""What is measured on held-out pairs while training.

Retrieval both ways and matched against mismatched cosine (paper, open checks), masked-residue
accuracy, the reconstruction loss of segments with and without the biotext, and every term of the loss.
"""

import logging
import math
import time
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from protclip import parallel
from protclip.config.schema import PretrainConfig
from protclip.data.collate import Collator
from protclip.data.dataset import PairsDataset
from protclip.evaluation.metrics.retrieval import retrieval_metrics
from protclip.losses.contrastive import global_contrastive
from protclip.losses.objective import TERMS, Totals
from protclip.tensors import Batch, ModelOutput
from protclip.training.replica import Replica

log = logging.getLogger(__name__)

BATCH_PAIRS = 64


class Validation:
    """Measures a model on the first `train.valid_pairs` pairs of the split, always the same pairs and masks.

    Every rank computes a share, consecutive and as even as can be, in equally many batches, as sharded
    layers ask for. Sums and embeddings of all are put together, so the numbers do not depend on the
    number of ranks but for rounding. A rank's rows are read once and kept as they are stored, some
    hundred bytes each; tensors, fifteen times larger, are made anew each time.

    Args:
        config: The run.
        collate: Makes tensors.

    Raises:
        DataError: The split cannot be read.
    """

    def __init__(self, config: PretrainConfig, collate: Collator) -> None:
        dataset = PairsDataset(config.data, "valid", config.train.seed)
        self._loss = config.loss
        self._collate = collate
        self._total = min(config.train.valid_pairs, len(dataset))
        if self._total < parallel.world_size():
            log.warning(
                "%s: %d validation pairs are fewer than workers, so nothing is measured on them; sample more",
                *(config.data, self._total),
            )
            self._total = 0
        else:
            self._rows = dataset.rows(0, *parallel.bounds(self._total))

    @torch.no_grad()
    def __call__(self, replica: Replica) -> dict[str, float]:
        """Measures; every rank calls it.

        Args:
            replica: The model; its mode is left as it was.

        Returns:
            Metric name (without prefix) to value, the same on every rank but for `seconds`. What no pair
            has, or is not finite, is left out; nothing is there when pairs are fewer than ranks.
        """
        if not self._total:
            return {}
        began = time.perf_counter()
        was_training = replica.bare.training
        replica.bare.eval()
        device = next(replica.bare.parameters()).device
        embedded, sums = [], []
        for batch in self._batches(device):
            output = replica.forward(batch, None)
            embedded.append(ModelOutput(output.protein_BD, output.text_BD, output.scale, output.bias))
            sums.append(self._sums(replica, batch, output))
        replica.bare.train(was_training)
        metrics = self._retrieval(embedded) | _means(sums)
        metrics["loss/total"] = sum(
            weight * metrics.get(f"loss/{term}", 0.0) for term, weight in self._loss.weights.items()
        )
        metrics["seconds"] = time.perf_counter() - began
        return {name: value for name, value in metrics.items() if math.isfinite(value)}

    def _batches(self, device: torch.device) -> Iterator[Batch]:
        """This rank's pairs; equally many batches on every rank, none of them empty."""
        most = -(-self._total // parallel.world_size())
        parts = -(-most // BATCH_PAIRS)
        for index in range(parts):
            start, stop = parallel.part(len(self._rows), index, parts)
            yield self._collate(self._rows.slice(start, stop - start), epoch=0).to(device)

    def _retrieval(self, embedded: list[ModelOutput]) -> dict[str, float]:
        """Retrieval among all pairs, and their contrastive loss where it is trained."""
        whole = ModelOutput(
            torch.cat([output.protein_BD for output in embedded if output.protein_BD is not None]),
            torch.cat([output.text_BD for output in embedded if output.text_BD is not None]),
            embedded[0].scale,
            embedded[0].bias,
        )
        assert whole.protein_BD is not None
        assert whole.text_BD is not None
        protein_ND, text_ND = (
            parallel.gather_rows(rows_BD, self._total).float().cpu().numpy()
            for rows_BD in (whole.protein_BD, whole.text_BD)
        )
        metrics = retrieval_metrics(protein_ND, text_ND)
        if self._loss.gc:
            share = global_contrastive(whole, self._loss, self._total)
            metrics["loss/gc"] = parallel.mean_over_ranks(share).item()
        return metrics

    def _sums(self, replica: Replica, batch: Batch, output: ModelOutput) -> dict[str, Tensor]:
        """Of this batch, sum and number (2,) of what is averaged over residues or properties, by name."""
        # Each one's share of a mean over as many things as there are ranks is its sum.
        ranks = torch.tensor(parallel.world_size(), device=batch.tokens_BL.device)
        totals = Totals(parallel.world_size(), ranks, ranks, ranks)
        counts, sums = batch.counts, {}
        if output.mlm_logits_MV is not None:
            right_M = output.mlm_logits_MV.argmax(-1) == output.mlm_targets_M
            sums["mlm_accuracy"] = (right_M.sum(), counts.mlm)
            sums["loss/mlm"] = (TERMS["mlm"](output, self._loss, totals), counts.mlm)
        if output.bsr_targets_M is not None:
            with replica.autocast():
                blind_MV = replica.bare.bsr_logits(batch, use_text=False)
            blind = cross_entropy(blind_MV, output.bsr_targets_M, reduction="sum")
            sums["loss/bsr"] = (TERMS["bsr"](output, self._loss, totals), counts.segment)
            sums["loss/bsr_without_text"] = (blind, counts.segment)
        if output.present_BK is not None:
            sums["loss/pda"] = (TERMS["pda"](output, self._loss, totals), counts.aligned)
        return {
            name: torch.stack((total.double(), torch.full_like(total, count, dtype=torch.float64)))
            for name, (total, count) in sums.items()
        }


def _means(sums: list[dict[str, Tensor]]) -> dict[str, float]:
    """Means over all batches of all ranks; what there is none of is left out."""
    names = list(sums[0])
    if not names:
        return {}
    sum_and_number_N2 = torch.stack([torch.stack(list(of_batch.values())) for of_batch in sums]).sum(0)
    pairs = parallel.sum_over_ranks(sum_and_number_N2).tolist()
    return {name: total / number for name, (total, number) in zip(names, pairs, strict=True) if number}
