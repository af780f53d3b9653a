"""Validation errors as sentences: the key path as the file writes it, what is wrong, and what is allowed.

Values never appear: any of them may be a secret.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from functools import cache
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from replicator.settings import MODES, TABLE_TAGS, Settings

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

_TYPES = {
    "string_type": "must be text",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "int_type": "must be an integer",
    "int_parsing": "must be an integer",
    "int_from_float": "must be an integer",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "list_type": "must be a list",
    "dict_type": "must be a mapping of names to settings",
    "model_type": "must be a mapping of settings",
    "model_attributes_type": "must be a mapping of settings",
    "time_delta_type": "must be a duration, for example 250ms, 10s, 5m, 1h or 7d",
    "time_delta_parsing": "must be a duration, for example 250ms, 10s, 5m, 1h or 7d",
    "url_type": "must be a URL, for example http://127.0.0.1:4566",
    "url_parsing": "must be a URL, for example http://127.0.0.1:4566",
    "url_scheme": "must be an http:// or https:// URL",
}
_PATTERNS = {
    r"^[a-z]{2}$": "must be a region id: two lower-case letters, for example eu",
    r"^[a-z][a-z0-9_-]*$": "must be lower-case letters, digits, _ and -, beginning with a letter",
    r"^[a-z0-9][a-z0-9_.-]*$": "must be lower-case letters, digits, _, . and -, beginning with a letter or digit",
    r"^[A-Za-z0-9_.-]+$": "must be a DynamoDB table name: letters, digits, _, . and -",
    r"^[A-Za-z0-9_.*?!\[\]-]+$": "must be letters, digits, _, . and -, with the wildcards * ? and [abc]",
    r"^arn:": "must be an ARN, for example arn:aws:iam::123456789012:role/replicator",
    r"^(rediss?(\+(sentinel|cluster))?|unix)://": "must begin with rediss://, redis://, redis+sentinel://,"
    " redis+cluster:// or unix://",
}
_VERBS = ("can ", "compares ", "has ", "is ", "must ", "orders ")
"""How texts of our own validators begin when they go on behind the name of a key."""

_KEY_MARK = "[key]"
_TAG_AT = 2
"""Where the location of something inside a rule names the rule's mode: ("rules", 0, "ordered", "source")."""

_TABLE_AT = 3
"""Where it names a key of the rule; `table` is followed by the way in which it is written."""

_EQUALS_FROM_END = 3
"""Where a location with the type of a scalar has its `equals`: (..., "equals", attribute, "str")."""

Location = tuple[str | int, ...]


class Problem(Struct, frozen=True):
    """What is wrong at one place of the configuration."""

    location: Location
    text: str


def shown(location: Location) -> str:
    """A location as people write it: `rules[0].replicas[1].region`."""
    text = ""
    for step in location:
        text += f"[{step}]" if isinstance(step, int) else f".{step}"
    return text.removeprefix(".")


def explain(detail: ErrorDetails) -> Problem:
    """One validation error as a problem with its place."""
    location = _without_way(detail["loc"])
    is_key = bool(location) and location[-1] == _KEY_MARK
    if is_key:
        location = location[:-1]
    if detail["type"] in {"union_tag_invalid", "union_tag_not_found"}:
        location = (*location, "mode")
    if _names_a_choice(location):
        location = location[:-1]
        text = (
            "must be text or a number" if _mode(location) != MODES[0] else "must be text, a number, true, false or null"
        )
    else:
        text = _text(detail, location)
    written = _written(location)
    path = shown(written)
    return Problem(written, f"the name `{path}` {text}" if is_key else f"`{path}` {text}")


def _without_way(location: Location) -> Location:
    """A location without the word for a table's name, or for a choice of tables."""
    after = location[_TABLE_AT + 1 : _TABLE_AT + 2]
    tagged = location[_TABLE_AT : _TABLE_AT + 1] == ("table",) and after and after[0] in TABLE_TAGS
    return (*location[: _TABLE_AT + 1], *location[_TABLE_AT + 2 :]) if tagged else location


def _names_a_choice(location: Location) -> bool:
    """Whether the last step is no key but one of the types that a scalar of a filter may have."""
    return len(location) > _EQUALS_FROM_END and location[-_EQUALS_FROM_END] == "equals"


def _written(location: Location) -> Location:
    """A location as the file has it: without the mode, which states the kind of the rule."""
    return location if _mode(location) is None else (*location[:_TAG_AT], *location[_TAG_AT + 1 :])


def _mode(location: Location) -> str | None:
    """The mode of the rule that a location lies in; None outside rules."""
    inside = len(location) > _TAG_AT and location[0] == "rules" and location[_TAG_AT] in MODES
    return str(location[_TAG_AT]) if inside else None


def _text(detail: ErrorDetails, location: Location) -> str:
    kind, context = detail["type"], detail.get("ctx", {})
    match kind:
        case "extra_forbidden":
            text = unknown_key(location)
        case "missing":
            described = _description(location)
            text = f"is missing{f' ({described})' if described else ''}"
        case "union_tag_invalid" | "union_tag_not_found":
            text = f"must be one of {', '.join(MODES)}"
        case "literal_error" | "enum":
            text = f"must be {context.get('expected', 'one of the documented words')}"
        case "string_pattern_mismatch":
            pattern = str(context.get("pattern", ""))
            text = _PATTERNS.get(pattern, f"must match {pattern}")
        case "value_error":
            text = str(context.get("error", "is not allowed"))
            if not text.startswith(_VERBS):
                text = f"is not consistent: {text}"
        case "too_short":
            least = context.get("min_length", 1)
            text = f"needs at least {least} {'element' if least == 1 else 'elements'}"
        case _:
            text = _TYPES.get(kind, _worded(detail["msg"]))
    return text


def _worded(message: str) -> str:
    """The validator's own words as the end of a sentence; they hold limits, never values."""
    for subject in ("Input ", "String ", "Value ", "Dictionary ", "List "):
        message = message.removeprefix(subject)
    return (message[:1].lower() + message[1:]).replace("should", "must")


def unknown_key(location: Location) -> str:
    """What to say about a key that does not exist: whose it is, or the nearest one that does, and all of them."""
    allowed = sorted(_allowed(location[:-1]))
    mode = _mode(location)
    owners = [other for other in MODES if mode not in {None, other} and location[-1] in _allowed_in(other, location)]
    if owners:
        whose = f"{'mode' if len(owners) == 1 else 'modes'} {' and '.join(owners)}"
        return f"belongs to {whose}, and this rule's mode is {mode}; allowed here: {', '.join(allowed)}"
    near = difflib.get_close_matches(str(location[-1]), allowed, n=1)
    hint = f"; did you mean `{near[0]}`? Allowed" if near else "; allowed"
    return f"is not a known key{hint} here: {', '.join(allowed) or 'nothing'}"


def _description(location: Location) -> str:
    for schema in _schemas(location[:-1]):
        found = schema.get("properties", {}).get(str(location[-1]), {}).get("description")
        if found:
            return str(found)
    return ""


def _allowed(location: Location) -> set[str]:
    return {name for schema in _schemas(location) for name in schema.get("properties", {})}


def _allowed_in(mode: str, location: Location) -> set[str]:
    """The keys that another mode has where a location lies."""
    return _allowed((*location[:_TAG_AT], mode, *location[_TAG_AT + 1 : -1]))


def _schemas(location: Location) -> list[dict[str, Any]]:
    """Every schema that applies at a place; of a rule the one of its mode."""
    found = list(_resolved(_schema()))
    for n, step in enumerate(location):
        if n == _TAG_AT and _mode(location) is not None:
            found = [schema for schema in found if schema.get("properties", {}).get("mode", {}).get("const") == step]
            continue
        inner = [inner for schema in found for inner in _inner(schema, step)]
        found = [resolved for schema in inner for resolved in _resolved(schema)]
    return found


def _inner(schema: dict[str, Any], step: str | int) -> Iterator[dict[str, Any]]:
    if isinstance(step, int):
        candidates = [schema.get("items")]
    else:
        named = schema.get("properties", {}).get(step)
        others = [schema.get("additionalProperties"), *schema.get("patternProperties", {}).values()]
        candidates = others if named is None else [named]
    yield from (candidate for candidate in candidates if isinstance(candidate, dict))


def _resolved(schema: dict[str, Any]) -> Iterator[dict[str, Any]]:
    if "$ref" in schema:
        yield from _resolved(_schema()["$defs"][schema["$ref"].rsplit("/", 1)[-1]])
    for choice in ("anyOf", "allOf", "oneOf"):
        for inner in schema.get(choice, ()):
            yield from _resolved(inner)
    if "$ref" not in schema:
        yield schema


@cache
def _schema() -> dict[str, Any]:
    return Settings.model_json_schema()
