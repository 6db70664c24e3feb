"""ProtCLIP: two towers, their projections, and the heads of the four objectives.

The forward pass computes everything the objectives need and no loss. All parameters always exist,
so that a checkpoint fits whatever the objectives; those that no active objective uses are frozen,
so that data-parallel training waits for no gradient that never comes. Shape suffixes as in
`tensors.py`; N texts, H encoder width.
"""

import math
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize, pad

from protclip.config.schema import LossConfig, ModelConfig
from protclip.errors import ConfigError
from protclip.model import weights
from protclip.model.esm2 import Esm2, Esm2Sizes
from protclip.model.heads import (
    Fusion,
    Prototypes,
    gather_masked,
    masked_mean,
    positions,
    projection,
    residue_head,
    spread,
    take,
)
from protclip.model.text import BertSizes, TextEncoder
from protclip.tensors import Batch, ModelOutput, residue_mask

MAX_SCALE = 100.0
"""Upper bound of both inverse temperatures, CLIP's [D]."""

USED_BY: dict[str, frozenset[str]] = {
    "protein_encoder": frozenset({"gc", "bsr", "mlm", "pda"}),
    "text_encoder": frozenset({"gc", "bsr", "pda"}),
    "protein_projection": frozenset({"gc", "bsr", "pda"}),
    "text_projection": frozenset({"gc", "bsr", "pda"}),
    "log_scale": frozenset({"gc"}),
    "fusion": frozenset({"bsr"}),
    "bsr_head": frozenset({"bsr"}),
    "mlm_head": frozenset({"mlm"}),
    "prototypes": frozenset({"pda"}),
    "log_pda_scale": frozenset({"pda"}),
}
"""Part of the model to the objectives that train it."""


@dataclass(frozen=True, slots=True)
class Architecture:
    """All sizes, so that a checkpoint's model is rebuilt without its encoders' sources.

    Attributes:
        protein: ESM-2's sizes.
        text: BERT's sizes.
        projection_dim: Width of the shared space (D).
        num_prototypes: Size of PDA's bank (P).
        fusion_heads: Heads of BSR's cross-attention.
    """

    protein: Esm2Sizes
    text: BertSizes
    projection_dim: int
    num_prototypes: int
    fusion_heads: int

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Architecture":
        """The inverse of `to_dict`."""
        towers = {"protein": Esm2Sizes(**values["protein"]), "text": BertSizes(**values["text"])}
        return cls(**(values | towers))


class ProtCLIP(nn.Module):
    """The model.

    Args:
        architecture: Sizes.
        loss: Objectives with a weight above 0 decide which passes run and which parameters are
            trained; initial temperatures. The default has all four.
        checkpointing: Recompute the protein tower's activations in the backward pass.
    """

    def __init__(
        self, architecture: Architecture, loss: LossConfig | None = None, *, checkpointing: bool = False
    ) -> None:
        super().__init__()
        loss = loss or LossConfig()
        dim = architecture.projection_dim
        self.architecture = architecture
        self.terms = frozenset(name for name, weight in loss.weights.items() if weight)
        self.protein_encoder = Esm2(architecture.protein, checkpointing=checkpointing)
        self.text_encoder = TextEncoder(architecture.text)
        self.protein_projection = projection(architecture.protein.width, dim)
        self.text_projection = projection(architecture.text.width, dim)
        self.mlm_head = residue_head(architecture.protein.width, dim)
        self.fusion = Fusion(dim, architecture.fusion_heads)
        self.bsr_head = residue_head(dim, dim)
        self.prototypes = Prototypes(architecture.num_prototypes, dim, loss.pda.gumbel_temperature)
        self.log_scale = nn.Parameter(torch.tensor(-math.log(loss.temperature)))
        self.log_pda_scale = nn.Parameter(torch.tensor(-math.log(loss.pda.temperature)))
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(not self.terms.isdisjoint(USED_BY[name.partition(".")[0]]))

    def scale(self) -> Tensor:
        """Inverse temperature of the global contrastive loss, scalar."""
        return self.log_scale.exp()

    def protein_features(self, tokens_BL: Tensor) -> Tensor:
        """Mean last-layer residue state (B, H), float32; `<cls>`, `<eos>` and padding left out."""
        return masked_mean(self.protein_encoder(tokens_BL), residue_mask(tokens_BL))

    def embed_protein(self, tokens_BL: Tensor) -> Tensor:
        """L2-normalised protein embeddings (B, D), float32."""
        return _unit(self.protein_projection(self.protein_features(tokens_BL)))

    def embed_text(self, text_BT: Tensor, mask_BT: Tensor) -> Tensor:
        """L2-normalised text embeddings (B, D), float32."""
        return _unit(self.text_projection(masked_mean(self.text_encoder(text_BT, mask_BT), mask_BT)))

    def forward(self, batch: Batch, noise_BKP: Tensor | None) -> ModelOutput:
        """Every pass of the active objectives, one call of each tower.

        Args:
            batch: This device's pairs.
            noise_BKP: Gumbel(0, 1) samples for PDA's prototype mixture; None for no noise.

        Returns:
            Float32 outputs. The two embeddings are there when GC is active, and always in evaluation
            mode.
        """
        if self.training:
            self._limit_scales()
        embeds = "gc" in self.terms or not self.training
        present_BK = batch.property_mask_BKT.any(-1)
        states = self._encode_proteins(batch, clean=embeds or "pda" in self.terms)
        text_states = self._encode_texts(batch, present_BK, biotext=embeds or "bsr" in self.terms)
        residue_mask_BL = residue_mask(batch.tokens_BL)
        output = ModelOutput(protein_BD=None, text_BD=None, scale=self.scale())
        if embeds:
            protein_BH = masked_mean(states["clean"], residue_mask_BL)
            text_BH = masked_mean(text_states["biotext"], batch.text_mask_BT)
            output.protein_BD = _unit(self.protein_projection(protein_BH))
            output.text_BD = _unit(self.text_projection(text_BH))
        if "mlm" in self.terms:
            at_M = positions(batch.mlm_mask_BL, batch.counts.mlm)
            output.mlm_logits_MV = self.mlm_head(take(states["mlm"], at_M)).float()
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
            property_ND = self.text_projection(property_NH).float()
            properties_BKD = spread(property_ND, property_at_N, present_BK.numel())
            properties_BKD = properties_BKD.unflatten(0, present_BK.shape)
            residue_at_N = positions(residue_mask_BL, batch.counts.residues)
            residues_ND = self.protein_projection(take(states["clean"], residue_at_N)).float()
            residues_BLD = spread(residues_ND, residue_at_N, residue_mask_BL.numel())
            output.residues_BLD = residues_BLD.unflatten(0, residue_mask_BL.shape)
            output.residue_mask_BL = residue_mask_BL
            output.prototypes_BKD = self.prototypes(properties_BKD, noise_BKP).float()
            output.present_BK = present_BK
            output.pda_scale = self.log_pda_scale.exp()
        return output

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

    def _limit_scales(self) -> None:
        """Holds the temperatures in bounds; here and not in `scale`, where it would stop the gradient."""
        with torch.no_grad():
            self.log_scale.clamp_(max=math.log(MAX_SCALE))
            self.log_pda_scale.clamp_(max=math.log(MAX_SCALE))

    def _encode_proteins(self, batch: Batch, *, clean: bool) -> dict[str, Tensor]:
        """Residue states (B, L, H) of the passes that are needed, by name."""
        passes = {"clean": batch.tokens_BL} if clean else {}
        if "mlm" in self.terms:
            passes["mlm"] = batch.mlm_tokens_BL
        if "bsr" in self.terms:
            passes["segment"] = batch.segment_tokens_BL
        states = self.protein_encoder(torch.cat(list(passes.values())))
        return dict(zip(passes, states.chunk(len(passes)), strict=True))

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
        states = self.text_encoder(tokens_NT, mask_NT).split([len(t) for t, _ in texts.values()])
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
        return self.bsr_head(take(fused_BMD, positions(real_BM, counts.segment))).float()


def _unit(rows_ND: Tensor) -> Tensor:
    """Rows of length 1, float32."""
    return normalize(rows_ND.float(), dim=-1)


def build(config: ModelConfig, loss: LossConfig, vocab_size: int, seed: int) -> ProtCLIP:
    """The model of a configuration, pre-trained encoders loaded, frozen ones frozen, on the CPU.

    Args:
        config: Encoders and sizes.
        loss: Objectives.
        vocab_size: Vocabulary of the text tokenizer.
        seed: Seed of all random weights; torch's global random state is left as it was.

    Raises:
        ConfigError: A source does not exist, or sizes do not go together.
        CheckpointError: An encoder's weights are damaged or of another kind.
    """
    if config.projection_dim % config.fusion_heads:
        raise ConfigError(
            f"model.fusion_heads={config.fusion_heads} does not divide "
            f"model.projection_dim={config.projection_dim}; choose a divisor"
        )
    protein = weights.protein_encoder(config.protein.source)
    text = weights.text_encoder(config.text.source, vocab_size)
    if config.text.max_tokens > text.sizes.max_tokens:
        raise ConfigError(
            f"model.text.max_tokens={config.text.max_tokens}: {config.text.source} takes at most "
            f"{text.sizes.max_tokens} tokens; lower it"
        )
    architecture = Architecture(
        protein.sizes, text.sizes, config.projection_dim, config.num_prototypes, config.fusion_heads
    )
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        model = ProtCLIP(architecture, loss, checkpointing=config.protein.checkpointing)
    protein.load_into(model.protein_encoder)
    text.load_into(model.text_encoder)
    if not config.protein.trainable:
        model.protein_encoder.requires_grad_(False)
    if not config.text.trainable:
        model.text_encoder.requires_grad_(False)
    return model
