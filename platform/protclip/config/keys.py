"""A schema as a flat list of dotted keys: what `--help` prints and what messages expect."""

import functools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

from pydantic import BaseModel

Spec = dict[str, Any]
"""A piece of JSON Schema, as pydantic writes it."""

Plain = str | int | float | bool | None

_TYPES = {"string": "text", "integer": "whole number", "number": "number", "boolean": "true or false"}


@dataclass(frozen=True, slots=True)
class Key:
    """One configurable value.

    Attributes:
        name: Dotted, for example "optim.lr".
        section: The name without its last part, "" at the top level.
        expects: Type, bounds and choices in words.
        description: What it means.
        required: True when it has no default.
        default: Its default as a plain JSON value.
        is_text: The value, or each element of it, may be text.
        is_list: The value is a list.
    """

    name: str
    section: str
    expects: str
    description: str
    required: bool
    default: object
    is_text: bool
    is_list: bool


@dataclass(frozen=True, slots=True)
class Keys:
    """All keys of a schema.

    Attributes:
        sections: Dotted name to one-line summary, in the schema's order; "" is the schema itself.
        by_name: Every key by dotted name, in the schema's order.
    """

    sections: dict[str, str]
    by_name: dict[str, Key]


@functools.cache
def keys_of(schema: type[BaseModel]) -> Keys:
    """The sections and keys of a schema."""
    root = schema.model_json_schema()
    found = Keys({}, {})
    _collect(found, root, root.get("$defs", {}), "")
    return found


def _collect(found: Keys, section: Spec, definitions: Spec, name: str) -> None:
    """Adds a section with its keys, then its sub-sections."""
    found.sections[name] = section.get("description", "").partition("\n")[0]
    for part, raw in section["properties"].items():
        spec = _resolve(raw, definitions)
        dotted = f"{name}.{part}" if name else part
        if "properties" in spec:
            _collect(found, spec, definitions, dotted)
            continue
        kinds = {s.get("type") for s in _alternatives(spec, definitions)}
        found.by_name[dotted] = Key(
            name=dotted,
            section=name,
            expects=_words(spec, definitions),
            description=spec.get("description", ""),
            required=part in section.get("required", ()),
            default=spec.get("default"),
            is_text="string" in kinds,
            is_list="array" in kinds,
        )


def _resolve(spec: Spec, definitions: Spec) -> Spec:
    """The definition behind a reference, what stands beside the reference added."""
    reference = spec.get("$ref")
    return spec if reference is None else {**definitions[reference.rpartition("/")[2]], **spec}


def _alternatives(spec: Spec, definitions: Spec) -> Iterator[Spec]:
    """A value's possible schemas and those of its elements."""
    spec = _resolve(spec, definitions)
    yield spec
    for inner in (*spec.get("anyOf", ()), *spec.get("prefixItems", ()), spec.get("items")):
        if inner:
            yield from _alternatives(inner, definitions)


def _words(spec: Spec, definitions: Spec) -> str:
    """Type, bounds and choices in words."""
    spec = _resolve(spec, definitions)
    if "anyOf" in spec:
        return " or ".join(_words(s, definitions) for s in spec["anyOf"])
    if "enum" in spec:
        return "one of " + ", ".join(show(v) for v in spec["enum"])
    kind = spec.get("type", "any value")
    if kind == "array":
        items = spec.get("prefixItems") or [spec["items"]]
        many = _words(items[0], definitions).replace("number", "numbers", 1)
        count = f"{len(items)} " if "prefixItems" in spec else ""
        return f"{'non-empty ' if spec.get('minItems') == 1 else ''}list of {count}{many}"
    if "properties" in spec:
        return f"keys {', '.join(spec['properties'])}"
    if kind == "object":
        names = _resolve(spec.get("propertyNames", {}), definitions).get("enum", ("name",))
        value = _words(spec["additionalProperties"], definitions)
        return f"mapping {{{', '.join(names)}}} to {value}"
    pattern = f" matching {spec['pattern']}" if "pattern" in spec else ""
    return f"{_TYPES.get(kind, kind)}{pattern}{_bounds(spec)}"


def _bounds(spec: Spec) -> str:
    """The interval a number must lie in, with a leading space, or nothing."""
    if "minimum" in spec and "maximum" in spec:
        return f" from {show(spec['minimum'])} to {show(spec['maximum'])}"
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    limits = [f"{sign} {show(spec[name])}" for name, sign in signs.items() if name in spec]
    return " " + " and ".join(limits) if limits else ""


def show(value: object) -> str:
    """A plain value as one would type it on the command line."""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return ",".join(show(v) for v in cast("list[object]", value))
    return json.dumps(value, ensure_ascii=False)


def flatten(config: BaseModel) -> dict[str, Plain]:
    """A configuration as dotted keys and plain values, lists joined by commas."""

    def walk(value: object, name: str) -> dict[str, Plain]:
        if isinstance(value, dict):
            parts = cast("dict[str, object]", value).items()
            inner = (walk(v, f"{name}.{k}" if name else str(k)) for k, v in parts)
            return {k: v for flat in inner for k, v in flat.items()}
        return {name: value if isinstance(value, Plain) else show(value)}

    return walk(config.model_dump(mode="json"), "")
