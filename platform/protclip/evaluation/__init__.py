"""Benchmarks: what they are, how they are run, and what they report."""
