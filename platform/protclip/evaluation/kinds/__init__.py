"""Benchmark protocols, one module each."""
