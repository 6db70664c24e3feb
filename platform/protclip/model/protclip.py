"""ProtCLIP: two towers, their projections, and the heads of the four objectives.

The forward pass computes everything the objectives need and no loss. All parameters always exist,
so that a checkpoint fits whatever the objectives; `training.freezing` says which are trained. Shape
suffixes as in `tensors.py`; N texts, H encoder width.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize, pad

from protclip.config.schema import LossConfig
from protclip.model import adapters
from protclip.model.adapters import Adapters
from protclip.model.esm2 import Esm2, Esm2Sizes
from protclip.model.heads import (
    Fusion,
    Prototypes,
    gather_masked,
    masked_mean,
    positions,
    precise,
    projection,
    residue_head,
    spread,
    take,
)
from protclip.model.text import BertSizes, TextEncoder
from protclip.tensors import Batch, ModelOutput, residue_mask

INITIAL_BIAS = -10.0
"""Start of the sigmoid loss's bias: almost all pairs are no match (SigLIP)."""

MAX_SCALE = 100.0
"""Upper bound of both inverse temperatures, CLIP's [D]."""

USED_BY: dict[str, frozenset[str]] = {
    "protein_encoder": frozenset({"gc", "bsr", "mlm", "pda"}),
    "text_encoder": frozenset({"gc", "bsr", "pda"}),
    "protein_projection": frozenset({"gc", "bsr", "pda"}),
    "text_projection": frozenset({"gc", "bsr", "pda"}),
    "log_scale": frozenset({"gc"}),
    "logit_bias": frozenset({"gc"}),
    "fusion": frozenset({"bsr"}),
    "bsr_head": frozenset({"bsr"}),
    "mlm_head": frozenset({"mlm"}),
    "prototypes": frozenset({"pda"}),
    "log_pda_scale": frozenset({"pda"}),
}
"""Part of the model to the objectives that train it; the bias only in the sigmoid form of its own."""


@dataclass(frozen=True, slots=True)
class Architecture:
    """All sizes, so that a checkpoint's model is rebuilt without its encoders' sources.

    Attributes:
        protein: ESM-2's sizes.
        text: BERT's sizes.
        projection_dim: Width of the shared space (D).
        num_prototypes: Size of PDA's bank (P).
        fusion_heads: Heads of BSR's cross-attention.
        adapters: The protein tower's low-rank adapters, if it has any.
    """

    protein: Esm2Sizes
    text: BertSizes
    projection_dim: int
    num_prototypes: int
    fusion_heads: int
    adapters: Adapters | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Architecture":
        """The inverse of `to_dict`."""
        parts: dict[str, Any] = {
            "protein": Esm2Sizes(**values["protein"]),
            "text": BertSizes(**values["text"]),
            "adapters": values["adapters"] and Adapters.from_dict(values["adapters"]),
        }
        return cls(**(values | parts))


class ProtCLIP(nn.Module):
    """The model.

    Args:
        architecture: Sizes.
        loss: Objectives with a weight above 0 decide which passes run; initial temperatures. The
            default has all four.
        checkpointing: Recompute the protein tower's activations in the backward pass.
        text_checkpointing: The same for the text tower.

    Attributes:
        terms: Objectives with a weight above 0.
        used: Parts of the model, of those in `USED_BY`, that they train.
    """

    def __init__(
        self,
        architecture: Architecture,
        loss: LossConfig | None = None,
        *,
        checkpointing: bool = False,
        text_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        loss = loss or LossConfig()
        dim = architecture.projection_dim
        self.architecture = architecture
        self.terms = frozenset(name for name, weight in loss.weights.items() if weight)
        self.protein_encoder = Esm2(architecture.protein, checkpointing=checkpointing)
        self.text_encoder = TextEncoder(architecture.text, checkpointing=text_checkpointing)
        self.protein_projection = projection(architecture.protein.width, dim)
        self.text_projection = projection(architecture.text.width, dim)
        self.mlm_head = residue_head(architecture.protein.width, dim)
        self.fusion = Fusion(dim, architecture.fusion_heads)
        self.bsr_head = residue_head(dim, dim)
        self.prototypes = Prototypes(architecture.num_prototypes, dim, loss.pda.gumbel_temperature)
        # Of shape (1,): sharding takes no scalars.
        self.log_scale = nn.Parameter(torch.tensor([-math.log(loss.temperature)]))
        self.logit_bias = nn.Parameter(torch.tensor([INITIAL_BIAS]))
        self.log_pda_scale = nn.Parameter(torch.tensor([-math.log(loss.pda.temperature)]))
        self.limit_scales()
        self.used = frozenset(part for part, terms in USED_BY.items() if not self.terms.isdisjoint(terms))
        if loss.contrastive != "sigmoid":
            self.used -= {"logit_bias"}
        if architecture.adapters:
            self.adapt(architecture.adapters)

    def adapt(self, sizes: Adapters) -> None:
        """Puts fresh adapters on the protein tower; no output changes until they are trained."""
        adapters.inject(self.protein_encoder, sizes)
        self.architecture = replace(self.architecture, adapters=sizes)

    def merge_adapters(self) -> None:
        """Folds the adapters, if there are any, into the weights they adapt, in place."""
        adapters.merge(self.protein_encoder)
        self.architecture = replace(self.architecture, adapters=None)

    def scale(self) -> Tensor:
        """Inverse temperature of the global contrastive loss, shape (1,)."""
        return self.log_scale.exp()

    def bias(self) -> Tensor:
        """Bias of the sigmoid loss's logits, shape (1,); a copy, as a sharded parameter is gone after use."""
        return self.logit_bias.clone()

    @torch.no_grad()
    def limit_scales(self) -> None:
        """Holds the temperatures in bounds; called after an update.

        Not done in `scale`, where it would stop the gradient, nor in `forward`, where a sharded
        parameter is a copy.
        """
        for log_scale in (self.log_scale, self.log_pda_scale):
            log_scale.clamp_(max=math.log(MAX_SCALE))

    def protein_features(self, tokens_BL: Tensor, lengths: Sequence[int] | None = None) -> Tensor:
        """Mean last-layer residue state (B, H), float32; `<cls>`, `<eos>` and padding left out."""
        return masked_mean(self.protein_encoder(tokens_BL, lengths), residue_mask(tokens_BL))

    def embed_protein(self, tokens_BL: Tensor, lengths: Sequence[int] | None = None) -> Tensor:
        """L2-normalised protein embeddings (B, D), float32."""
        return _unit(self.protein_projection(self.protein_features(tokens_BL, lengths)))

    def embed_text(self, text_BT: Tensor, mask_BT: Tensor, lengths: Sequence[int] | None = None) -> Tensor:
        """L2-normalised text embeddings (B, D), float32."""
        text_BH = masked_mean(self.text_encoder(text_BT, mask_BT, lengths), mask_BT)
        return _unit(self.text_projection(text_BH))

    def mix_prototypes(self, text_BT: Tensor, mask_BT: Tensor) -> Tensor:
        """PDA's mixtures of prototypes (B, D) that stand for property texts, without noise, float32."""
        text_BH = masked_mean(self.text_encoder(text_BT, mask_BT), mask_BT)
        return precise(self.prototypes(precise(self.text_projection(text_BH)), None))

    def forward(self, batch: Batch, noise_BKP: Tensor | None) -> ModelOutput:
        """Every pass of the active objectives, one call of each tower.

        Args:
            batch: This device's pairs.
            noise_BKP: Gumbel(0, 1) samples for PDA's prototype mixture; None for no noise.

        Returns:
            Float32 outputs. The two embeddings are there when GC is active, and always in evaluation
            mode.
        """
        embeds = "gc" in self.terms or not self.training
        present_BK = batch.property_mask_BKT.any(-1)
        states = self._encode_proteins(batch, clean=embeds or "pda" in self.terms)
        text_states = self._encode_texts(batch, present_BK, biotext=embeds or "bsr" in self.terms)
        residue_mask_BL = residue_mask(batch.tokens_BL)
        output = ModelOutput(protein_BD=None, text_BD=None, scale=self.scale(), bias=self.bias())
        if embeds:
            protein_BH = masked_mean(states["clean"], residue_mask_BL)
            text_BH = masked_mean(text_states["biotext"], batch.text_mask_BT)
            output.protein_BD = _unit(self.protein_projection(protein_BH))
            output.text_BD = _unit(self.text_projection(text_BH))
        if "mlm" in self.terms:
            at_M = positions(batch.mlm_mask_BL, batch.counts.mlm)
            output.mlm_logits_MV = precise(self.mlm_head(take(states["mlm"], at_M)))
            output.mlm_targets_M = take(batch.tokens_BL, at_M)
        if "bsr" in self.terms:
            output.bsr_logits_MV = self._reconstruct(
                states["segment"], batch, text_states["biotext"], batch.text_mask_BT
            )
            output.bsr_targets_M = take(
                batch.tokens_BL, positions(batch.segment_mask_BL, batch.counts.segment)
            )
        if "pda" in self.terms:
            property_at_N = positions(present_BK, batch.counts.properties)
            property_mask_NT = take(batch.property_mask_BKT, property_at_N)
            property_NH = masked_mean(text_states["property"], property_mask_NT)
            property_ND = precise(self.text_projection(property_NH))
            properties_BKD = spread(property_ND, property_at_N, present_BK.numel())
            properties_BKD = properties_BKD.unflatten(0, present_BK.shape)
            residue_at_N = positions(residue_mask_BL, batch.counts.residues)
            residues_ND = precise(self.protein_projection(take(states["clean"], residue_at_N)))
            residues_BLD = spread(residues_ND, residue_at_N, residue_mask_BL.numel())
            output.residues_BLD = residues_BLD.unflatten(0, residue_mask_BL.shape)
            output.residue_mask_BL = residue_mask_BL
            output.prototypes_BKD = precise(self.prototypes(properties_BKD, noise_BKP))
            output.present_BK = present_BK
            output.pda_scale = self.log_pda_scale.exp()
        return output

    @torch.no_grad()
    def embed(self, batch: Batch) -> ModelOutput:
        """What the global contrastive loss needs and nothing else: the first phase of gradient caching."""
        return ModelOutput(
            protein_BD=self.embed_protein(batch.tokens_BL, batch.counts.protein_lengths),
            text_BD=self.embed_text(batch.text_BT, batch.text_mask_BT, batch.counts.text_lengths),
            scale=self.scale(),
            bias=self.bias(),
        )

    def bsr_logits(self, batch: Batch, *, use_text: bool) -> Tensor:
        """Residue logits (M, V) at the masked segments, float32.

        Args:
            batch: This device's pairs.
            use_text: False puts an empty text, `[CLS][SEP]`, in the place of every biotext.
        """
        text_BT, mask_BT = batch.text_BT, batch.text_mask_BT
        if not use_text:
            last_B1 = mask_BT.sum(1, keepdim=True) - 1
            text_BT = torch.cat((text_BT[:, :1], text_BT.gather(1, last_B1)), dim=1)
            mask_BT = torch.ones_like(text_BT, dtype=torch.bool)
        return self._reconstruct(
            self.protein_encoder(batch.segment_tokens_BL),
            batch,
            self.text_encoder(text_BT, mask_BT),
            mask_BT,
        )

    def _encode_proteins(self, batch: Batch, *, clean: bool) -> dict[str, Tensor]:
        """Residue states (B, L, H) of the passes that are needed, by name; two names may share one."""
        passes = {"clean": batch.tokens_BL} if clean else {}
        if "mlm" in self.terms:
            passes["mlm"] = batch.mlm_tokens_BL
        if "bsr" in self.terms:
            passes["segment"] = batch.segment_tokens_BL
        shared = batch.shared and passes.keys() >= {"mlm", "segment"}
        if shared:
            del passes["mlm"]
        lengths = batch.counts.protein_lengths * len(passes)
        encoded = self.protein_encoder(torch.cat(list(passes.values())), lengths)
        states = dict(zip(passes, encoded.chunk(len(passes)), strict=True))
        return states | {"mlm": states["segment"]} if shared else states

    def _encode_texts(self, batch: Batch, present_BK: Tensor, *, biotext: bool) -> dict[str, Tensor]:
        """Token states of the biotexts (B, T, H) and of the present properties (N, T, H), as needed."""
        texts = {"biotext": (batch.text_BT, batch.text_mask_BT)} if biotext else {}
        if "pda" in self.terms:
            at_N = positions(present_BK, batch.counts.properties)
            texts["property"] = (take(batch.property_BKT, at_N), take(batch.property_mask_BKT, at_N))
        if not texts:
            return {}
        width = max(tokens.shape[1] for tokens, _ in texts.values())
        tokens_NT, mask_NT = (
            torch.cat([pad(part, (0, width - part.shape[1])) for part in parts])
            for parts in zip(*texts.values(), strict=True)
        )
        known = {"biotext": batch.counts.text_lengths, "property": batch.counts.property_lengths}
        lengths = [n for name in texts for n in known[name]]
        states = self.text_encoder(tokens_NT, mask_NT, lengths).split([len(t) for t, _ in texts.values()])
        return {name: s[:, : texts[name][0].shape[1]] for name, s in zip(texts, states, strict=True)}

    def _reconstruct(
        self, states_BLH: Tensor, batch: Batch, text_states_BTH: Tensor, text_mask_BT: Tensor
    ) -> Tensor:
        """Residue logits (M, V) at the masked segments, in the order of `tokens[mask]`."""
        counts = batch.counts
        masked_BMH, real_BM = gather_masked(states_BLH, batch.segment_mask_BL, counts.most_segment)
        fused_BMD = self.fusion(
            self.protein_projection(masked_BMH), self.text_projection(text_states_BTH), text_mask_BT
        )
        return precise(self.bsr_head(take(fused_BMD, positions(real_BM, counts.segment))))


def _unit(rows_ND: Tensor) -> Tensor:
    """Rows of length 1, float32."""
    return normalize(precise(rows_ND), dim=-1)
