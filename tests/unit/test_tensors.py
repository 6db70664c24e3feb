"""What all layers share about tensors."""

import pytest
import torch

from protclip.tensors import uses_bf16


@pytest.mark.parametrize(
    ("precision", "device", "in_hardware", "expected"),
    [
        ("auto", "cuda", True, True),
        ("auto", "cuda", False, False),
        ("auto", "cpu", True, False),
        ("bf16", "cpu", False, True),
        ("fp32", "cuda", True, False),
    ],
)
def test_bf16_is_chosen_where_hardware_computes_in_it(
    monkeypatch: pytest.MonkeyPatch, precision: str, device: str, in_hardware: bool, expected: bool
) -> None:
    def supported(including_emulation: bool = True) -> bool:
        return including_emulation or in_hardware

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", supported)
    assert uses_bf16(precision, torch.device(device)) is expected
