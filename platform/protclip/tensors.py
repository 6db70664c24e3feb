"""What crosses between data, model and losses: residue tokens, batches, outputs, loss reports.

Shape suffixes: B pairs on this device, G pairs of the global batch, L residue tokens, T text
tokens, K = 4 properties, M masked positions, P prototypes, D embedding width, H encoder width,
V = 33 residue tokens.
"""

from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import InitVar, dataclass, field, fields

import numpy as np
import torch
from torch import Tensor

RESIDUE_TOKENS: tuple[str, ...] = (
    *("<cls>", "<pad>", "<eos>", "<unk>"),
    *"LAGVSERTIDPKQNFYMHWCXBUZO.-",
    *("<null_1>", "<mask>"),
)
"""The ESM-2 alphabet in fair-esm's order; a test holds it against the installed package."""

CLS, PAD, EOS, UNK = 0, 1, 2, 3
MASK = len(RESIDUE_TOKENS) - 1
VOCAB_SIZE = len(RESIDUE_TOKENS)
STANDARD_RESIDUES: tuple[int, ...] = tuple(RESIDUE_TOKENS.index(r) for r in "ACDEFGHIKLMNPQRSTVWY")


def _lookup() -> np.ndarray:
    table = np.full(256, UNK, dtype=np.uint8)
    for index, token in enumerate(RESIDUE_TOKENS):
        if len(token) == 1:
            table[ord(token)] = table[ord(token.lower())] = index
    return table


RESIDUE_LOOKUP = _lookup()
"""uint8 token of each of the 256 byte values; a byte outside the alphabet becomes `<unk>`."""


def tokenize_residues(sequence: str | bytes, max_tokens: int, start: int = 0) -> np.ndarray:
    """Residue tokens with `<cls>` and `<eos>`, cut at the C-terminal end.

    Args:
        sequence: Residue letters.
        max_tokens: Upper bound of the result's length, `<cls>` and `<eos>` included.
        start: First residue taken.

    Returns:
        uint8 array of at most `max_tokens` tokens.
    """
    raw = sequence.encode() if isinstance(sequence, str) else sequence
    residues = RESIDUE_LOOKUP[np.frombuffer(raw[start : start + max_tokens - 2], dtype=np.uint8)]
    return np.concatenate(([np.uint8(CLS)], residues, [np.uint8(EOS)]))


def residue_mask(tokens_BL: Tensor) -> Tensor:
    """True where a token stands for a residue (masked or not): not padding, `<cls>` or `<eos>`."""
    return (tokens_BL != PAD) & (tokens_BL != CLS) & (tokens_BL != EOS)


def on_device(values: Sequence[float], like: Tensor) -> Tensor:
    """Numbers of the host (N,) beside a tensor, in its type; copying them would wait for the device."""
    return torch.stack([like.new_full((), value) for value in values])


def uses_bf16(precision: str, device: torch.device) -> bool:
    """Whether the forward pass runs under bf16 autocast; by "auto" where CUDA hardware computes in it."""
    if precision != "auto":
        return precision == "bf16"
    return device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)


def _lengths(mask_NL: Tensor) -> tuple[int, ...]:
    """True positions of each row."""
    return tuple(mask_NL.sum(1).tolist())


@dataclass(frozen=True, slots=True)
class Counts:
    """How much of a batch is masked or present, so that the device need not be asked for a size.

    Attributes:
        residues: Residues of the clean tokens.
        mlm: Positions MLM predicts.
        segment: Positions BSR predicts.
        most_segment: The most of them in one protein.
        properties: Properties that are present.
        aligned: Of these, the ones PDA counts: a protein with a single one has nothing to tell apart.
        cropped: Proteins cut to the longest allowed.
        cut_texts: Biotexts cut to the longest allowed.
        protein_lengths: Tokens of each protein, `<cls>` and `<eos>` included.
        text_lengths: Tokens of each biotext.
        property_lengths: Tokens of each present property's text, in the order of `property_BKT`.
    """

    residues: int
    mlm: int
    segment: int
    most_segment: int
    properties: int
    aligned: int
    cropped: int
    cut_texts: int
    protein_lengths: tuple[int, ...]
    text_lengths: tuple[int, ...]
    property_lengths: tuple[int, ...]


@dataclass(slots=True)
class Batch:
    """One device's pairs, and which residues are hidden.

    Attributes:
        tokens_BL: Clean residue tokens, int64, right-padded with `<pad>`.
        mlm_mask_BL: bool, the single residues MLM hides and predicts.
        segment_mask_BL: bool, the contiguous segments BSR hides and predicts.
        text_BT: Biotext tokens `[CLS] … [SEP]`, int64, right-padded.
        text_mask_BT: bool, True on real text tokens.
        property_BKT: Each property's own text tokens `[CLS] … [SEP]`; absent rows are padding.
        property_mask_BKT: bool, True on real tokens; all False for an absent property.
        keys_B: int64 view of the sampling keys, to trace a batch back to its records.
        shared: Whether one corrupted copy has both masks, which are then disjoint.
        counts: Taken when the batch is made, which is on the host.
    """

    tokens_BL: Tensor
    mlm_mask_BL: Tensor
    segment_mask_BL: Tensor
    text_BT: Tensor
    text_mask_BT: Tensor
    property_BKT: Tensor
    property_mask_BKT: Tensor
    keys_B: Tensor
    shared: bool = False
    cropped: InitVar[int] = 0
    cut_texts: InitVar[int] = 0
    counts: Counts = field(init=False)

    def __post_init__(self, cropped: int, cut_texts: int) -> None:
        segment_B = self.segment_mask_BL.sum(1)
        present_B = self.property_mask_BKT.any(-1).sum(1)
        self.counts = Counts(
            residues=int(residue_mask(self.tokens_BL).sum()),
            mlm=int(self.mlm_mask_BL.sum()),
            segment=int(segment_B.sum()),
            most_segment=int(segment_B.max()),
            properties=int(present_B.sum()),
            aligned=int(present_B[present_B > 1].sum()),
            cropped=cropped,
            cut_texts=cut_texts,
            protein_lengths=_lengths(self.tokens_BL != PAD),
            text_lengths=_lengths(self.text_mask_BT),
            property_lengths=tuple(n for n in _lengths(self.property_mask_BKT.flatten(0, 1)) if n),
        )

    @property
    def mlm_tokens_BL(self) -> Tensor:
        """The tokens MLM sees."""
        return self.segment_tokens_BL if self.shared else self.tokens_BL.masked_fill(self.mlm_mask_BL, MASK)

    @property
    def segment_tokens_BL(self) -> Tensor:
        """The tokens BSR sees."""
        hidden_BL = self.segment_mask_BL | self.mlm_mask_BL if self.shared else self.segment_mask_BL
        return self.tokens_BL.masked_fill(hidden_BL, MASK)

    def to(self, device: torch.device) -> "Batch":
        """The same batch on `device`, copied without blocking where the memory is pinned."""
        return self._mapped(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> "Batch":
        """The same batch in page-locked host memory, for asynchronous copies to a GPU."""
        return self._mapped(Tensor.pin_memory)

    def _mapped(self, change: Callable[[Tensor], Tensor]) -> "Batch":
        """A copy with every tensor changed and all else kept."""
        changed = copy(self)
        for each in fields(self):
            if isinstance(value := getattr(self, each.name), Tensor):
                setattr(changed, each.name, change(value))
        return changed

    @property
    def num_pairs(self) -> int:
        """Number of pairs on this device (B)."""
        return self.tokens_BL.shape[0]


@dataclass(slots=True)
class ModelOutput:
    """Everything the objectives need from one forward call; terms switched off are None.

    Attributes:
        protein_BD: L2-normalised protein embeddings, float32; in evaluation mode always there.
        text_BD: L2-normalised biotext embeddings, likewise.
        scale: exp of the learnable log temperature of GC (1 / temperature), shape (1,).
        bias: Learnable bias of GC's logits in its sigmoid form, shape (1,).
        mlm_logits_MV: Residue logits at the MLM positions.
        mlm_targets_M: int64 residue tokens at those positions.
        bsr_logits_MV: Residue logits at the masked segments.
        bsr_targets_M: int64 residue tokens at those positions.
        residues_BLD: Projected residue states of the clean pass (PDA).
        residue_mask_BL: bool, True on residues.
        prototypes_BKD: Prototype mixture that stands for each property's text (PDA).
        present_BK: bool, True where the property is present.
        pda_scale: exp of the learnable log temperature of PDA, shape (1,).
    """

    protein_BD: Tensor | None
    text_BD: Tensor | None
    scale: Tensor
    bias: Tensor
    mlm_logits_MV: Tensor | None = None
    mlm_targets_M: Tensor | None = None
    bsr_logits_MV: Tensor | None = None
    bsr_targets_M: Tensor | None = None
    residues_BLD: Tensor | None = None
    residue_mask_BL: Tensor | None = None
    prototypes_BKD: Tensor | None = None
    present_BK: Tensor | None = None
    pda_scale: Tensor | None = None


@dataclass(slots=True)
class LossReport:
    """The weighted sum to differentiate, and each unweighted term, detached, for logging.

    Attributes:
        total: Scalar with gradient.
        terms: Term name ("gc", "bsr", "pda", "mlm") to scalar; only terms that are switched on.
    """

    total: Tensor
    terms: dict[str, Tensor]
