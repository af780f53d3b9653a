"""What can be found in a `where` expression before any item is seen.

Invariant: a mistake is an expression that can match no item, or that is hardly ever meant as it is written; a doubt may
be meant. Neither repeats a part of the expression, which may hold anything.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, cast

import jmespath.exceptions
from jmespath.lexer import Lexer
from jmespath.parser import ParsedResult, Parser

_ORDERINGS = frozenset({"lt", "lte", "gt", "gte"})
_SEARCHES = frozenset({"contains", "starts_with", "ends_with"})
_NEEDS_NO_QUOTES = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_READS_THE_ITEM = frozenset(
    {"field", "current", "identity", "subexpression", "index_expression", "index", "slice", "expref", "flatten"}
    | {"projection", "value_projection", "filter_projection", "multi_select_list", "multi_select_dict"}
)

_QUOTED = (
    "compares an attribute with another one whose name is in double quotes, where text was probably meant: write"
    " text in single quotes, and a name that is meant without quotes"
)
_WORD = "compares with an attribute of the name true or false; write `true` or `false` in backticks"
_ORDER = "orders a value that is neither number nor text, so it can never hold"
_NEVER = "can never hold, whatever the item is"
_TWO = "where compares two attributes of an item with each other; if text is meant, write it in single quotes."
_ALWAYS = "where holds for every item."

Node = dict[str, Any]


def mistakes(expression: str) -> list[str]:
    """Ends of sentences about an expression that compiles: why it can match nothing that is meant."""
    tree, quoted = _parsed(expression)
    found = []
    for node in _nodes(tree):
        pair = _compared(node)
        if len(pair) == 2 and all(map(_is_attribute, pair)):  # noqa: PLR2004 - two sides
            names = {_last_name(side) for side in pair}
            if names & quoted:
                found.append(_QUOTED)
            elif names & {"true", "false"}:
                found.append(_WORD)
        if _orders_nothing(node):
            found.append(_ORDER)
    if not found and _never(tree):
        found.append(_NEVER)
    return list(dict.fromkeys(found))


def doubts(expression: str) -> list[str]:
    """Sentences about an expression without mistakes that may surprise."""
    tree, _ = _parsed(expression)
    pairs = [pair for node in _nodes(tree) if len(pair := _compared(node)) == 2]  # noqa: PLR2004
    two = any(all(map(_is_attribute, pair)) and "null" not in map(_last_name, pair) for pair in pairs)
    return [*([_TWO] if two else []), *([_ALWAYS] if _always(tree) else [])]


def _parsed(expression: str) -> tuple[Node, set[str]]:
    """The tree, and the names that are in double quotes without need."""
    quoted = {
        token["value"]
        for token in Lexer().tokenize(expression)
        if token["type"] == "quoted_identifier" and _NEEDS_NO_QUOTES.match(token["value"])
    }
    tree: Any = Parser().parse(expression).parsed
    return tree, quoted


def _nodes(node: Node) -> Iterator[Node]:
    yield node
    for child in node.get("children", []):
        if isinstance(child, dict):
            yield from _nodes(child)


def _compared(node: Node) -> list[Node]:
    """The two sides of a comparison, or of a search for text; nothing of other nodes."""
    searches = node["type"] == "function_expression" and node.get("value") in _SEARCHES
    return node["children"] if node["type"] == "comparator" or searches else []


def _is_attribute(node: Node) -> bool:
    kind = node["type"]
    return kind == "field" or (kind in {"subexpression", "index_expression"} and _is_attribute(node["children"][-1]))


def _last_name(node: Node) -> str:
    return str(node["value"]) if node["type"] == "field" else _last_name(node["children"][-1])


def _orders_nothing(node: Node) -> bool:
    return node["type"] == "comparator" and node["value"] in _ORDERINGS and any(map(_has_no_order, node["children"]))


def _has_no_order(node: Node) -> bool:
    value = node.get("value")
    return node["type"] == "literal" and (isinstance(value, bool) or not isinstance(value, int | float | str))


# -- constants -----------------------------------------------------------------------------------------------------


def _never(node: Node) -> bool:
    """Whether a node is false for every item."""
    children: list[Node] = node.get("children", [])
    match node["type"]:
        case "and_expression":
            return any(map(_never, children)) or _contradicts(node)
        case "or_expression":
            return all(map(_never, children))
        case "not_expression":
            return _always(children[0])
        case "pipe":
            return _never(children[1])
        case _:
            return _orders_nothing(node) or _constant(node) is False


def _always(node: Node) -> bool:
    """Whether a node is true for every item."""
    children: list[Node] = node.get("children", [])
    match node["type"]:
        case "and_expression":
            return all(map(_always, children))
        case "or_expression":
            return any(map(_always, children))
        case "not_expression":
            return _never(children[0])
        case _:
            return _constant(node) is True


def _constant(node: Node) -> bool | None:
    """The truth of a node that reads nothing of the item; None of one that does, or that fails."""
    if any(inner["type"] in _READS_THE_ITEM for inner in _nodes(node)):
        return None
    try:
        value = ParsedResult("", cast("Any", node)).search(None)
    except (jmespath.exceptions.JMESPathError, TypeError, ValueError, AttributeError):
        return None
    return value is not None and value is not False and value not in ("", [], {})


def _contradicts(node: Node) -> bool:
    """Whether one attribute would have to equal two values."""
    wanted: dict[str, tuple[bool, Any]] = {}
    for part in _conjuncts(node):
        if part["type"] == "comparator" and part["value"] == "eq":
            sides = sorted(part["children"], key=lambda side: side["type"] == "literal")
            if sides[0]["type"] != "literal" and sides[1]["type"] == "literal":
                value = (isinstance(sides[1]["value"], bool), sides[1]["value"])
                if wanted.setdefault(json.dumps(sides[0]), value) != value:
                    return True
    return False


def _conjuncts(node: Node) -> Iterator[Node]:
    if node["type"] != "and_expression":
        yield node
        return
    for child in node["children"]:
        yield from _conjuncts(child)
