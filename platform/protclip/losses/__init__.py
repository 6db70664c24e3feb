"""The four objectives as pure functions, and their weighted sum."""
