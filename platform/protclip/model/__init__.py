"""The two encoders, the heads, and their weights."""
