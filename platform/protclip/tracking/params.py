"""What must not be remembered of tracked parameters."""

import re


def masked(text: str) -> str:
    """Text without the user names and passwords of its URIs."""
    return re.sub(r"://[^/@\s]+@", "://***@", text)
