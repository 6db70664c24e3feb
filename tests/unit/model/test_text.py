import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import BertConfig, BertModel

from protclip.model.text import BertSizes, TextEncoder

SIZES = BertSizes(vocab_size=50, num_layers=2, width=32, num_heads=2, feedforward=64, max_tokens=40)


def encoder(*, checkpointing: bool = False) -> TextEncoder:
    torch.manual_seed(0)
    return TextEncoder(SIZES, checkpointing=checkpointing).train()


def texts(lengths: list[int], padding: int = 0) -> tuple[Tensor, Tensor]:
    mask = torch.arange(max(lengths) + padding)[None] < torch.tensor(lengths)[:, None]
    generator = torch.Generator().manual_seed(1)
    return torch.randint(5, 50, mask.shape, generator=generator) * mask, mask


def test_text_encoder_equals_transformers_bert_in_states_and_gradients() -> None:
    ours = encoder()
    tokens, mask = texts([17, 3, 9, 1], padding=2)
    theirs = BertModel(BertConfig(**ours.bert.config.to_dict()), add_pooling_layer=False)
    assert theirs.config._attn_implementation == "sdpa"
    theirs.load_state_dict(ours.bert.state_dict())
    states = ours(tokens, mask)[mask]
    expected = theirs(input_ids=tokens, attention_mask=mask).last_hidden_state[mask]
    torch.testing.assert_close(states, expected, atol=1e-5, rtol=1e-5)
    weights = torch.randn(states.shape, generator=torch.Generator().manual_seed(2))
    (states * weights).sum().backward()
    (expected * weights).sum().backward()
    for one, other in zip(ours.bert.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, atol=1e-4, rtol=1e-3)


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(1, 30), min_size=1, max_size=6), st.integers(0, 4), st.data())
def test_text_states_do_not_change_with_padding_or_neighbours(
    lengths: list[int], padding: int, data: st.DataObject
) -> None:
    model = encoder()
    tokens, mask = texts(lengths, padding)
    row = data.draw(st.integers(0, len(lengths) - 1))
    with torch.no_grad():
        states = model(tokens, mask, lengths)
        alone = model(tokens[row : row + 1, : lengths[row]], mask[row : row + 1, : lengths[row]])
    torch.testing.assert_close(states[row, : lengths[row]], alone[0], atol=1e-5, rtol=1e-5)
    assert not states[~mask].any()


def test_text_checkpointing_saves_memory_and_changes_no_gradient() -> None:
    gradients, saved = [], []
    for checkpointing in (False, True):
        model, kept = encoder(checkpointing=checkpointing), 0

        def count(tensor: Tensor) -> Tensor:
            nonlocal kept
            kept += tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            loss = model(*texts([20, 8])).square().mean()
        loss.backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
        saved.append(kept)
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)
    assert saved[1] < saved[0] / 2
