"""Configurations as tracked parameters, without what must not be remembered."""

import re

from pydantic import BaseModel

from protclip.config.keys import show
from protclip.tracking.base import Param


def flatten(config: BaseModel) -> dict[str, Param]:
    """A configuration as dotted keys and plain values, lists joined by commas."""

    def walk(value: object, name: str) -> dict[str, Param]:
        if isinstance(value, dict):
            inner = (walk(v, f"{name}.{k}" if name else str(k)) for k, v in value.items())
            return {k: v for flat in inner for k, v in flat.items()}
        return {name: value if isinstance(value, Param) else show(value)}

    return walk(config.model_dump(mode="json"), "")


def masked(text: str) -> str:
    """Text without the user names and passwords of its URIs."""
    return re.sub(r"://[^/@\s]+@", "://***@", text)
