"""An endpoint as a value: what it is given, what it does, what it answers, and the command that does the same.

The table of them is what routes requests and what the OpenAPI document is made of.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from shlex import quote
from typing import TYPE_CHECKING, Any, Literal

from replicator.admin.api.problems import Problem

if TYPE_CHECKING:
    from replicator.admin.api.guard import Caller
    from replicator.operations.group import Group

PREFIX = "/api/v1"
_LONGEST_TEXT = 2048
_TRUE, _FALSE = frozenset({"true", "1"}), frozenset({"false", "0"})


@dataclass(frozen=True, slots=True)
class Field:
    """One thing that a request gives. `option`: of the command, None where it is an argument or is no part of it.

    `most`: of an integer, the greatest; of a text, how long it may be.
    """

    name: str
    about: str
    kind: Literal["string", "integer", "boolean", "number"] = "string"
    place: Literal["path", "query", "body"] = "query"
    option: str | None = None
    required: bool = False
    choices: tuple[str, ...] = ()
    most: int = _LONGEST_TEXT
    default: Any = None

    @property
    def is_argument(self) -> bool:
        """Whether the command takes it by its place."""
        return self.place == "path" or (self.place == "query" and self.required)

    @property
    def schema(self) -> dict[str, Any]:
        """As OpenAPI describes it."""
        bounds: dict[str, Any] = {
            "string": {"maxLength": self.most},
            "integer": {"minimum": 1, "maximum": self.most},
            "number": {"exclusiveMinimum": 0, "maximum": self.most},
            "boolean": {},
        }[self.kind]
        given = {"enum": list(self.choices)} if self.choices else {}
        default = {} if self.default is None else {"default": self.default}
        return {"type": self.kind, "description": self.about, **bounds, **given, **default}

    def parsed(self, given: Any) -> Any:
        """What was given, in a body or as text of an address; a `Problem` when it is not what it should be."""
        value = self._number(given) if self.kind in {"integer", "number"} else given
        if self.kind == "boolean" and isinstance(given, str) and given in _TRUE | _FALSE:
            value = given in _TRUE
        fits = {
            "string": isinstance(value, str) and len(value) <= self.most,
            "integer": isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= self.most,
            "number": isinstance(value, float) and 0 < value <= self.most,
            "boolean": isinstance(value, bool),
        }[self.kind]
        if not fits or (self.choices and value not in self.choices):
            wanted = f"one of {', '.join(self.choices)}" if self.choices else _WANTED[self.kind].format(self.most)
            raise Problem(HTTPStatus.BAD_REQUEST, f"{self.name} must be {wanted}.")
        return value

    def _number(self, given: Any) -> Any:
        if isinstance(given, bool) or not isinstance(given, int | float | str):
            return None
        try:
            return int(given) if self.kind == "integer" and not isinstance(given, float) else float(given)
        except (ValueError, OverflowError):
            return None


_WANTED = {
    "string": "a text of at most {} characters",
    "integer": "a whole number from 1 to {}",
    "number": "a number above 0, of at most {}",
    "boolean": "true or false",
}
VALUES = Field("values", "`show`: with the values of items, which takes a token", choices=("show",))


@dataclass(frozen=True, slots=True)
class Asked:
    """A request that may go on. `given`: every field by its name, or its default; `text`: the same as a command."""

    group: Group
    caller: Caller
    given: Mapping[str, Any]
    text: str = ""

    @property
    def values(self) -> bool:
        """Whether values of items are shown."""
        return self.given.get("values") == "show"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One operation. `answer`: the members of the document and their types, or the type of a whole document.

    `token`: also where reading takes none, this does. `command`: the words before arguments and options; None where no
    command does it. `seconds`: how long it may take.
    """

    name: str
    method: Literal["GET", "POST"]
    path: str
    about: str
    answer: Mapping[str, Any] | Any
    deed: Callable[[Asked], Awaitable[Any]]
    fields: tuple[Field, ...] = field(default=())
    command: str | None = None
    token: bool = False
    once: bool = False
    """Whether requests at about the same time share one answer."""
    seconds: float = 30.0

    @property
    def writes(self) -> bool:
        """Whether it changes anything."""
        return self.method == "POST"

    def typed(self, given: Mapping[str, Any]) -> str:
        """The command that does the same."""
        if self.command is None:
            return f"{self.method} {PREFIX}{self.path}"
        words = [f"replicator {self.command}"]
        for each in self.fields:
            value = given.get(each.name)
            if value is None or value is False or value == each.default:
                continue
            if each.is_argument:
                words.append(quote(str(value)))
            elif each.option:
                words.append(each.option if value is True else f"{each.option} {quote(str(value))}")
        return " ".join(words)

    def parsed(self, path: Mapping[str, str], query: Mapping[str, str], body: bytes) -> dict[str, Any]:
        """What a request gives, checked; a `Problem` says what is wrong with it."""
        sent = {"path": path, "query": query, "body": _members(body) if self.writes else {}}
        known = {each.name: each for each in self.fields}
        for place, members in sent.items():
            for name in members:
                if name not in known or known[name].place != place:
                    raise Problem(HTTPStatus.BAD_REQUEST, f"{name[:64]!r} is no member of this {place}.")
        given = {}
        for each in self.fields:
            value = sent[each.place].get(each.name)
            if value is None and each.required:
                raise Problem(HTTPStatus.BAD_REQUEST, f"{each.name} is missing: {each.about}.")
            given[each.name] = each.default if value is None else each.parsed(value)
        return given


def _members(body: bytes) -> Mapping[str, Any]:
    try:
        document = json.loads(body or b"{}")
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise Problem(HTTPStatus.BAD_REQUEST, "The body must be a JSON object.")
    return document
