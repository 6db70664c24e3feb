"""The text of `--help`, made from the schema alone."""

import textwrap

from pydantic import BaseModel

from protclip.config.keys import Key, keys_of, show

WIDTH = 100

_OPTIONS = {
    "--config FILE": "YAML file with the keys below; `extends: other.yaml` in it names a parent",
    "key=value": "sets one key, after the file; lists as a,b, mappings as '{a: 1, b: 2}'",
    "--dry-run": "validates and shows the resolved configuration, does nothing",
    "-v, --verbose": "shows debug messages",
    "-h, --help": "shows this text",
    "--version": "shows the version",
}
_MARKS = "[P] the paper's value, [R] the reference code's, [D] decided here; see docs/fidelity.md."


def help_text(program: str, summary: str, schema: type[BaseModel]) -> str:
    """The help of one command: usage, options, and every key by section, at most 100 columns wide.

    Args:
        program: How the command is called.
        summary: What it does, in a sentence.
        schema: Its configuration.
    """
    keys = keys_of(schema)
    column = max(map(len, (*keys.by_name, *_OPTIONS))) + 4
    lines = [f"Usage: {program} [--config FILE] [key=value …] [--dry-run] [-v]", "", *_wrap(summary), ""]
    lines.append("Options:")
    for option, meaning in _OPTIONS.items():
        lines += _entry(option, meaning, column)
    for section, title in keys.sections.items():
        members = [key for key in keys.by_name.values() if key.section == section]
        if not members:
            continue
        lines += ["", *_wrap(f"{section}: {title}" if section else "Keys:")]
        for key in members:
            lines += _entry(key.name, f"{key.description}\n{key.expects}; {_default(key)}", column)
    if any("[" in key.description for key in keys.by_name.values()):
        lines += ["", *_wrap(_MARKS)]
    return "\n".join(lines) + "\n"


def _default(key: Key) -> str:
    """What happens when a key is not given."""
    return "required" if key.required else f"default {show(key.default) or '(empty)'}"


def _wrap(text: str, width: int = WIDTH) -> list[str]:
    return textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False)


def _entry(name: str, text: str, column: int) -> list[str]:
    """A name in the left column, wrapped text in the right one."""
    right = [line for part in text.splitlines() for line in _wrap(part, WIDTH - column)]
    return [f"{'  ' + name:<{column}}{right[0]}", *(" " * column + line for line in right[1:])]
