"""What a benchmark file may say: one frozen model per kind, data only, no code names."""
