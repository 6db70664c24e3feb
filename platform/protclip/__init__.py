"""ProtCLIP: pre-train, sweep, evaluate and use a protein-text CLIP model."""

__version__ = "0.1.0"
