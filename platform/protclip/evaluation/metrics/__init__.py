"""Metrics in plain numpy and scipy, one module per sort of task."""
