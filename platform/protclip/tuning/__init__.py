"""Sweeps and ablations: what is tried, what came of it, what can be said; `study.py` knows Optuna."""
