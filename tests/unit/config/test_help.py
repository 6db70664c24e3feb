"""`--help` is the schema, whole and readable."""

import pytest
from pydantic import BaseModel

from protclip.commands import COMMANDS
from protclip.config.help import WIDTH, help_text
from protclip.config.keys import keys_of

SCHEMAS = {name: command.schema for name, command in COMMANDS.items()}


def leaves(schema: type[BaseModel], prefix: str = "") -> list[tuple[str, str | None, bool]]:
    """Dotted name, description and whether it is required, straight from the model."""
    found = []
    for name, field in schema.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            found += leaves(field.annotation, f"{prefix}{name}.")
        else:
            found.append((prefix + name, field.description, field.is_required()))
    return found


@pytest.mark.parametrize("command", SCHEMAS)
def test_help_text_mentions_every_key(command: str) -> None:
    text = help_text(command, "Does it.", SCHEMAS[command])
    words = " ".join(text.split())
    for name, description, required in leaves(SCHEMAS[command]):
        assert f"\n  {name} " in text
        assert description, f"{name} has no description"
        assert f"{name} {' '.join(description.split())}" in words
        assert keys_of(SCHEMAS[command]).by_name[name].required is required


@pytest.mark.parametrize("command", SCHEMAS)
def test_help_text_is_aligned_and_fits(command: str) -> None:
    lines = help_text(command, "Does it.", SCHEMAS[command]).splitlines()
    assert max(map(len, lines)) <= WIDTH
    keys = [line for line in lines if line.startswith("  ") and not line.startswith("   ")]
    columns = {len(line) - len(line[2:].lstrip(" ").partition("  ")[2].lstrip(" ")) for line in keys}
    continued = {len(line) - len(line.lstrip(" ")) for line in lines if line.startswith("   ")}
    assert columns == continued
    assert len(columns) == 1


def test_help_text_gives_types_bounds_and_defaults() -> None:
    text = help_text("protclip pretrain", "Does it.", SCHEMAS["pretrain"])
    for phrase in (
        "number > 0; default 1e-05",
        "list of 2 numbers from 0 to 1; default 0.9,0.999",
        "one of auto, fp32, bf16; default auto",
        "true or false or null; default null",
        "text; required",
        "whole number ≥ -1; default 3",
        "optim: AdamW with linear warm-up and cosine decay.",
    ):
        assert phrase in text
