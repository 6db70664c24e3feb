"""Names of parameters in fair-esm, which are ours, and in Hugging Face's `EsmModel`."""

TO_FAIR_ESM: tuple[tuple[str, str], ...] = (
    ("embeddings.word_embeddings.", "embed_tokens."),
    ("encoder.emb_layer_norm_after.", "emb_layer_norm_after."),
    ("encoder.layer.", "layers."),
    (".attention.self.query.", ".self_attn.q_proj."),
    (".attention.self.key.", ".self_attn.k_proj."),
    (".attention.self.value.", ".self_attn.v_proj."),
    (".attention.output.dense.", ".self_attn.out_proj."),
    (".attention.LayerNorm.", ".self_attn_layer_norm."),
    (".intermediate.dense.", ".fc1."),
    (".output.dense.", ".fc2."),
    (".LayerNorm.", ".final_layer_norm."),
)
"""Replacements, in this order, that turn `EsmModel`'s parameter names into fair-esm's."""


def to_fair_esm(name: str) -> str:
    """An `EsmModel` parameter's name in fair-esm."""
    for theirs, ours in TO_FAIR_ESM:
        name = name.replace(theirs, ours)
    return name


def to_hugging_face(name: str) -> str:
    """A fair-esm parameter's name in `EsmModel`."""
    for theirs, ours in reversed(TO_FAIR_ESM):
        name = name.replace(ours, theirs)
    return name
