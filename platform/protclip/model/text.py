"""The biotext tower: a BERT encoder, PubMedBERT in the paper."""

from dataclasses import dataclass

from torch import Tensor, nn
from transformers import BertConfig, BertModel

from protclip.model.lengths import by_length


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


class TextEncoder(nn.Module):
    """BERT without its pooling layer, and without dropout.

    Dropout is off even where the tower is trained [D]: ESM-2 has none, and a step then depends on
    nothing random but the masks and PDA's noise.
    """

    def __init__(self, sizes: BertSizes) -> None:
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
        )
        self.bert = BertModel(config, add_pooling_layer=False)

    def forward(self, text_BT: Tensor, mask_BT: Tensor) -> Tensor:
        """Token states (B, T, H) of right-padded texts; those at padding are unspecified."""
        return by_length(self._encode, text_BT, mask_BT)

    def _encode(self, text_BT: Tensor, mask_BT: Tensor | None) -> Tensor:
        """States of one chunk; the mask is None when nothing is padding."""
        return self.bert(input_ids=text_BT, attention_mask=mask_BT).last_hidden_state
