"""Configuration files: YAML with a single parent, command-line overrides, and messages that help.

A file holds one mapping. `extends: other.yaml`, relative to the file, names one parent: mappings are
merged, everything else, lists too, replaces the parent's value. `key.sub=value` overrides come last.

Scalars follow YAML 1.2, not PyYAML's 1.1: `1e-4` is a number; only `true` and `false` are booleans, so
`NO`, `on` and `yes` are text; `010` is ten; only decimal numbers are numbers. Where the schema wants
text, a scalar is the text as it was written (`release: 2024` needs no quotes), except `null`. A key
given twice is an error, and anchors, aliases and tags are refused.
"""

import difflib
import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from protclip.config.keys import Keys, keys_of, show
from protclip.errors import ConfigError

T = TypeVar("T", bound=BaseModel)
Scalar = str | int | float | bool | None

COMMAND_LINE = "command line"
EXTENDS = "extends"

_INT = re.compile(r"[-+]?[0-9]{1,300}")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_CONSTANTS = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}


def load_config(schema: type[T], path: str | Path | None, overrides: Sequence[str] = ()) -> T:
    """Reads a configuration file, applies overrides and validates the result.

    Args:
        schema: The frozen model to build.
        path: The YAML file; None when everything comes from `overrides`.
        overrides: `dotted.key=value`; the last one of a key wins. A value is a scalar, a flow mapping
            `{a: 1}`, a flow list `[a, b]` or quoted text; for list keys also `a,b`.

    Raises:
        ConfigError: With every problem on a line of its own, each with file and line.
    """
    keys = keys_of(schema)
    tree = _Node(COMMAND_LINE, {}) if path is None else _read(Path(path), ())
    for override in overrides:
        tree = _merge(tree, _parse_override(override, keys))
    text = json.dumps(_plain(tree, keys))
    try:
        # JSON, because pydantic's strict mode then still takes lists for tuples and text for enums.
        return schema.model_validate_json(text, strict=True)
    except ValidationError as error:
        lines = (line for detail in error.errors() for line in _explain(detail, tree, keys))
        raise ConfigError("\n".join(dict.fromkeys(lines))) from error


def dump_yaml(config: BaseModel) -> str:
    """A configuration as YAML that `load_config` reads back to the same values."""
    return yaml.dump(
        config.model_dump(mode="json"), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100
    )


@dataclass(frozen=True, slots=True)
class _Node:
    """A value and where it was given; a mapping's values are nodes again."""

    where: str
    value: "Scalar | list[_Node] | dict[str, _Node]"
    text: str | None = None


class _Loader(yaml.SafeLoader):
    """Refuses the parts of YAML that hide where a value comes from."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:  # pyright: ignore[reportIncompatibleMethodOverride]
        event = cast("Any", self.peek_event())  # pyright: ignore[reportUnknownMemberType]
        if getattr(event, "anchor", None) or getattr(event, "tag", None):
            raise yaml.MarkedYAMLError(
                problem=f"anchors, aliases and tags are not supported; share keys through {EXTENDS!r}",
                problem_mark=event.start_mark,
            )
        return super().compose_node(parent, index)


class _Dumper(yaml.SafeDumper):
    """Quotes text that this module's rules would not read back as text."""


def _represent_text(_: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    # PyYAML itself quotes what YAML 1.1 would misread, but not numbers like 1e-4.
    return yaml.ScalarNode(
        "tag:yaml.org,2002:str", text, style=None if isinstance(_scalar(text), str) else '"'
    )


_Dumper.add_representer(str, _represent_text)


def _scalar(text: str) -> Scalar:
    """The value of an unquoted scalar."""
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    if _INT.fullmatch(text):
        return int(text)
    return float(text) if _FLOAT.fullmatch(text) else text


def _read(path: Path, children: tuple[Path, ...]) -> _Node:
    """The tree of a file, merged into that of the file it extends."""
    name = os.path.normpath(path)
    try:
        tree = _compose(path.read_bytes().decode(), name)
    except OSError as error:
        raise ConfigError(f"{name}: cannot be read: {error.strerror}; check --config or {EXTENDS}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{name}: not a text file in UTF-8") from error
    if tree.value is None:
        return _Node(name, {})
    if not isinstance(tree.value, dict):
        raise ConfigError(f"{name}: expected keys at the top level, 'key: value' on each line")
    parent = tree.value.pop(EXTENDS, None)
    if parent is None:
        return tree
    if not isinstance(parent.value, str):
        raise ConfigError(f"{parent.where}: {EXTENDS} names one file, relative to this one")
    target = path.parent / parent.value
    chain = (*children, path)
    if any(os.path.realpath(target) == os.path.realpath(p) for p in chain):
        circle = " → ".join(os.path.normpath(p) for p in (*chain, target))
        raise ConfigError(f"{parent.where}: {EXTENDS} goes round in a circle: {circle}")
    return _merge(_read(target, chain), tree)


def _compose(text: str, name: str) -> _Node:
    """YAML text as a tree; `name` is the file's, or what messages call the source."""
    try:
        node = yaml.compose(text, Loader=_Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = name if mark is None or name == COMMAND_LINE else f"{name}:{mark.line + 1}"
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise ConfigError(f"{where}: not valid YAML: {problem}") from error
    return _Node(name, None) if node is None else _tree(node, name, name)


def _tree(node: yaml.Node, name: str, where: str) -> _Node:
    """A YAML node as a tree; a mapping's values take the line of their key."""
    if isinstance(node, yaml.ScalarNode):
        plain = not node.style
        return _Node(where, _scalar(node.value) if plain else node.value, node.value)
    if isinstance(node, yaml.SequenceNode):
        return _Node(where, [_tree(item, name, _line(item, name)) for item in node.value])
    items: dict[str, _Node] = {}
    for key, value in node.value:
        line = _line(key, name)
        if not isinstance(key, yaml.ScalarNode):
            raise ConfigError(f"{line}: a key must be a plain name")
        if key.value in items:
            raise ConfigError(f"{line}: duplicate key {key.value!r}, first given at {items[key.value].where}")
        items[key.value] = _tree(value, name, line)
    return _Node(where, items)


def _line(node: yaml.Node, name: str) -> str:
    """File and line of a YAML node."""
    return name if name == COMMAND_LINE else f"{name}:{node.start_mark.line + 1}"


def _merge(base: _Node, over: _Node) -> _Node:
    """`over` on top of `base`; only mappings are merged."""
    if not (isinstance(base.value, dict) and isinstance(over.value, dict)):
        return over
    merged = dict(base.value)
    for key, node in over.value.items():
        merged[key] = _merge(merged[key], node) if key in merged else node
    where = base.where if over.where == COMMAND_LINE else over.where
    return _Node(where, merged)


def _parse_override(override: str, keys: Keys) -> _Node:
    """`a.b=value` as a tree."""
    name, separator, text = override.partition("=")
    if not separator:
        hint = f"; a file is given as --config {override}" if override.endswith((".yaml", ".yml")) else ""
        raise ConfigError(f"{COMMAND_LINE}: expected key=value, got {override!r}{hint}")
    key = keys.by_name.get(name)
    if text[:1] in {"{", "[", '"', "'"}:
        try:
            node = _compose(text, COMMAND_LINE)
        except ConfigError as error:
            raise ConfigError(f"{error} (in {override!r})") from error
    elif key is not None and key.is_list and _scalar(text) is not None:
        node = _Node(COMMAND_LINE, [_Node(COMMAND_LINE, _scalar(t), t) for t in text.split(",")])
    else:
        node = _Node(COMMAND_LINE, _scalar(text), text)
    for part in reversed(name.split(".")):
        node = _Node(COMMAND_LINE, {part: node})
    return node


def _plain(node: _Node, keys: Keys, name: str = "", *, in_list: bool = False) -> object:
    """The tree as plain values; where the schema takes text, a scalar stays as it was written."""
    if isinstance(node.value, dict):
        return {k: _plain(v, keys, f"{name}.{k}" if name else k) for k, v in node.value.items()}
    if isinstance(node.value, list):
        return [_plain(item, keys, name, in_list=True) for item in node.value]
    key = keys.by_name.get(name)
    # Beside a list of text there may be a number: text stands inside the list only.
    takes_text = key is not None and key.is_text and (in_list or not key.is_list)
    return node.text if takes_text and node.value is not None else node.value


def _explain(detail: ErrorDetails, tree: _Node, keys: Keys) -> Iterator[str]:
    """One problem that pydantic found, as lines for a user."""
    location, kind = detail["loc"], detail["type"]
    dotted = [".".join(map(str, location[:depth])) for depth in range(len(location) + 1)]
    if kind == "extra_forbidden":
        yield f"{_find(tree, location).where}: unknown key {dotted[-1]!r}{_suggestion(dotted[-1], keys)}"
        return
    depth = max(i for i, name in enumerate(dotted) if name in keys.by_name or name in keys.sections)
    # What a mapping holds is no key of the schema, but it was given.
    while depth < len(location) and _find(tree, location[: depth + 1]) is not _find(tree, location[:depth]):
        depth += 1
    name, node = dotted[depth], _find(tree, location[:depth])
    if kind == "missing" and depth == len(location):
        for key in keys.by_name.values():
            if key.required and (key.name == name or key.name.startswith(f"{name}.")):
                yield (
                    f"{node.where}: missing key {key.name!r} ({key.description}); "
                    f"give it in the file or as {key.name}=…"
                )
    elif kind == "value_error":
        prefix = f"{name}: " if name else ""
        yield f"{node.where}: {prefix}{detail['msg'].removeprefix('Value error, ')}"
    else:
        if name in keys.by_name:
            expects = keys.by_name[name].expects
        elif name in keys.sections:
            expects = "a section with keys of its own"
        else:
            expects = detail["msg"].removeprefix("Input should be ")
        value = _plain(node, keys, name)
        given = repr(value) if isinstance(value, str) else show(value)
        given = given if len(given) <= 80 else given[:79] + "…"
        yield f"{node.where}: {name}: expected {expects}, got {given}"


def _find(tree: _Node, location: tuple[int | str, ...]) -> _Node:
    """The node at a location, or the last one on the way to it."""
    node = tree
    for part in location:
        if not isinstance(node.value, dict) or part not in node.value:
            break
        node = node.value[str(part)]
    return node


def _suggestion(name: str, keys: Keys) -> str:
    """What an unknown key was perhaps meant to be."""
    if name in keys.by_name:
        return "; in a file, nest it: " + ": {".join(name.split(".")) + ": …" + "}" * name.count(".")
    known = [*keys.by_name, *(s for s in keys.sections if s)]
    section, _, leaf = name.rpartition(".")
    siblings = {k.rpartition(".")[2]: k for k in known if k.rpartition(".")[0] == section}
    initials = "".join(word[:1] for word in leaf.split("_"))
    guesses = [
        *(k for k in known if k.rpartition(".")[2] == leaf),
        *(k for short, k in siblings.items() if short == initials),
        *(siblings[short] for short in difflib.get_close_matches(leaf, siblings, n=1)),
    ]
    if guesses:
        return f"; did you mean {guesses[0]!r}?"
    if not siblings:
        outer = next((k for k in keys.by_name if name.startswith(f"{k}.")), "")
        return f"; {outer} expects {keys.by_name[outer].expects}" if outer else ""
    return f"; known keys here: {', '.join(siblings)}"
