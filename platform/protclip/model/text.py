"""The biotext tower: a BERT encoder, PubMedBERT in the paper."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn
from transformers import AttentionInterface, BertConfig, BertModel

from protclip.model.packing import Packing


@dataclass(frozen=True, slots=True)
class BertSizes:
    """What tells one BERT from another.

    Attributes:
        vocab_size: Rows of the token embedding.
        num_layers: Transformer layers.
        width: Width of a token state.
        num_heads: Attention heads.
        feedforward: Width between the two feed-forward matrices.
        max_tokens: Rows of the position embedding.
        num_types: Rows of the token type embedding.
        activation: Name of the feed-forward non-linearity.
        norm_eps: Epsilon of the layer norms.
    """

    vocab_size: int
    num_layers: int
    width: int
    num_heads: int
    feedforward: int
    max_tokens: int
    num_types: int = 2
    activation: str = "gelu"
    norm_eps: float = 1e-12

    @classmethod
    def of(cls, config: BertConfig) -> "BertSizes":
        """The sizes in a Hugging Face configuration."""
        return cls(
            vocab_size=config.vocab_size,
            num_layers=config.num_hidden_layers,
            width=config.hidden_size,
            num_heads=config.num_attention_heads,
            feedforward=config.intermediate_size,
            max_tokens=config.max_position_embeddings,
            num_types=config.type_vocab_size,
            activation=str(config.hidden_act),
            norm_eps=config.layer_norm_eps,
        )


PRESETS: dict[str, BertSizes] = {
    "bert-tiny": BertSizes(
        vocab_size=0, num_layers=2, width=128, num_heads=2, feedforward=512, max_tokens=512
    ),
}
"""Architectures with random weights; the vocabulary is the tokenizer's."""


def _packed(
    module: nn.Module,
    query_1AN: Tensor,
    key_1AN: Tensor,
    value_1AN: Tensor,
    attention_mask: None,
    *,
    packing: Packing,
    **_: object,
) -> tuple[Tensor, None]:
    """Attention as transformers calls it: heads (1, A, N, E) in, (1, N, A, E) out, no weights."""
    heads = (x[0].transpose(0, 1) for x in (query_1AN, key_1AN, value_1AN))
    return packing.attend(*heads)[None], None


AttentionInterface.register("protclip_packed", _packed)


class TextEncoder(nn.Module):
    """BERT without its pooling layer, and without dropout.

    Dropout is off even where the tower is trained [D]: ESM-2 has none, and a step then depends on
    nothing random but the masks and PDA's noise.

    Args:
        sizes: Layers, widths, vocabulary.
        checkpointing: Recompute each layer's activations in the backward pass to save memory.
    """

    def __init__(self, sizes: BertSizes, *, checkpointing: bool = False) -> None:
        super().__init__()
        config = BertConfig(
            vocab_size=sizes.vocab_size,
            num_hidden_layers=sizes.num_layers,
            hidden_size=sizes.width,
            num_attention_heads=sizes.num_heads,
            intermediate_size=sizes.feedforward,
            max_position_embeddings=sizes.max_tokens,
            type_vocab_size=sizes.num_types,
            hidden_act=sizes.activation,
            layer_norm_eps=sizes.norm_eps,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
            attn_implementation="protclip_packed",  # pyright: ignore[reportCallIssue] every configuration takes it
        )
        self.bert = BertModel(config, add_pooling_layer=False)
        if checkpointing:
            self.bert.activation_checkpointing_enable({"use_reentrant": False, "preserve_rng_state": False})

    def forward(self, text_BT: Tensor, mask_BT: Tensor, lengths: Sequence[int] | None = None) -> Tensor:
        """Token states (B, T, H) of right-padded texts; those at padding are 0.

        Args:
            text_BT: int64 tokens.
            mask_BT: True on real tokens, at least one per text.
            lengths: Their number per text, so that the host need not wait for the device to count them.
        """
        packing = Packing.of(mask_BT, lengths)
        states_1NH = self.bert(
            input_ids=packing.pack(text_BT)[None], position_ids=packing.position_N[None], packing=packing
        ).last_hidden_state
        return packing.unpack(states_1NH[0])
