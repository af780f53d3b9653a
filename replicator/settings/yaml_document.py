"""A YAML file with the line of every key: read once, strictly, and asked for lines by key path.

Invariant: a mapping never holds a key twice, keys are text, no value is text to one reader and a number to another, and
errors never quote the file's content.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import yaml
from msgspec import Struct

_BOOLEAN_TAG = "tag:yaml.org,2002:bool"
_TEXT_TAG = "tag:yaml.org,2002:str"
_MERGE_TAG = "tag:yaml.org,2002:merge"
_FLOAT_TAG = "tag:yaml.org,2002:float"
_NULL_TAG = "tag:yaml.org,2002:null"
_SAME_EVERYWHERE = (
    re.compile(r"true|True|TRUE|false|False|FALSE"),
    re.compile(r"[-+]?(0|[1-9][0-9]*)|0x[0-9a-fA-F]+"),
    re.compile(r"[-+]?(\.[0-9]+|(0|[1-9][0-9]*)(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"),
)
"""Plain scalars that are no text and mean the same in YAML 1.1, which we read, in YAML 1.2 and in JSON."""

_EXPONENT = re.compile(r"[-+]?[0-9]+(?:\.[0-9]*)?[eE][-+]?[0-9]+")
"""A number to JSON and to YAML 1.2; to YAML 1.1 only with a point and a sign."""

_EXPONENT_IS_TWO_THINGS = (
    "a value with an exponent is a number to some programs and text to others: write it in quotes if it is text, else"
    " without exponent or like 1.0e-7"
)

_STANDARD = "tag:yaml.org,2002:"
_KINDS = {tag.removeprefix(_STANDARD) for tag in yaml.SafeLoader.yaml_constructors if tag} | {"merge"}
_NAMES = {
    "alias": "a value that begins with * is an alias to YAML, and nothing bears its name",
    "anchor": "a value that begins with & is an anchor to YAML, and its name is there twice",
    "tag": "a value that begins with ! is a tag to YAML, and none is known here",
}
"""What the parser would say with a name, which may be the beginning of a secret."""

_MOST_DIGITS = 15
"""Significant digits that a number with a fraction keeps."""


class NotADocument(Exception):
    """The text is no mapping of settings; `problems` are parts of sentences, to be put behind a file's name."""

    def __init__(self, *problems: str) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


class Document(Struct, frozen=True):
    """A file's content, and the nodes it was made of."""

    content: dict[str, Any]
    _root: yaml.MappingNode

    def line(self, location: tuple[str | int, ...]) -> int | None:
        """Line of the key at a path, or of the nearest one above it; counted from 1, None for an empty path."""
        line, _ = self._find(location)
        return line

    def hint(self, location: tuple[str | int, ...]) -> str:
        """What YAML itself made of the value at a path, when that is surprising."""
        _, node = self._find(location)
        if isinstance(node, yaml.ScalarNode) and node.style is None and node.tag == _BOOLEAN_TAG:
            return f"to YAML {node.value} is a truth value: quote it if it is text"
        return ""

    def _find(self, location: tuple[str | int, ...]) -> tuple[int | None, yaml.Node | None]:
        node: yaml.Node | None = self._root
        line: int | None = None
        for step in location:
            if isinstance(node, yaml.MappingNode):
                pair = next((pair for pair in node.value if pair[0].value == step), None)
                if pair is None:
                    return line, None
                line, node = pair[0].start_mark.line + 1, pair[1]
            elif isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
                node = node.value[step]
                line = node.start_mark.line + 1
            else:
                return line, None
        return line, node


def read_document(text: str) -> Document:
    """A YAML text as a document; `NotADocument` when it is none."""
    loader = None
    try:
        loader = yaml.SafeLoader(text)
        root = loader.get_single_node()
        if root is None:
            raise NotADocument(": is empty; it needs at least group, regions, coordination and rules.")
        if not isinstance(root, yaml.MappingNode):
            raise NotADocument(
                f":{root.start_mark.line + 1}: is not a mapping; it must begin with keys like `group:` and `regions:`."
            )
        problems = list(_problems(root, set()))
        if problems:
            raise NotADocument(*problems)
        content = loader.construct_document(root)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = "" if mark is None else f":{mark.line + 1}:{mark.column + 1}"
        raise NotADocument(f"{where}: is not YAML: {_reason(error)}.") from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise NotADocument(
            f":{line}: is not YAML: it must not hold the character U+{ord(text[error.position]):04X}."
        ) from None
    except RecursionError:
        raise NotADocument(": is not YAML: lists and mappings lie in one another too deeply.") from None
    except (yaml.YAMLError, ValueError) as error:
        raise NotADocument(f": is not YAML ({type(error).__name__}).") from None
    finally:
        if loader is not None:
            loader.dispose()
    return Document(content, root)


def _reason(error: yaml.MarkedYAMLError) -> str:
    said = ", ".join(part for part in (error.context, error.problem) if part)
    named = next((reason for name, reason in _NAMES.items() if re.search(rf"\b{name}\b.*'", said)), None)
    return said or "it cannot be parsed" if named is None else f"{named}: quote it if it is text"


def _problems(node: yaml.Node, seen: set[int]) -> Iterator[str]:
    """What is wrong with keys and scalars below a node; aliases are visited once."""
    if id(node) in seen:
        return
    seen.add(id(node))
    if isinstance(node, yaml.ScalarNode):
        ambiguity = None if node.style is not None else _ambiguity(node)
        if ambiguity is not None:
            yield f":{node.start_mark.line + 1}: {ambiguity}."
    elif isinstance(node, yaml.SequenceNode):
        for child in node.value:
            yield from _problems(child, seen)
    elif isinstance(node, yaml.MappingNode):
        lines: dict[str, int] = {}
        for key, child in node.value:
            line = key.start_mark.line + 1
            if key.tag not in {_TEXT_TAG, _MERGE_TAG}:
                yield f":{line}: a key is not text to YAML (it may mean a number, yes or no): write it in quotes."
            elif key.value in lines:
                yield (
                    f":{line}: key `{key.value}` is there twice (first in line {lines[key.value]});"
                    " remove one of them, or the first would be lost."
                )
            else:
                lines[key.value] = line
            yield from _problems(child, seen)


def _ambiguity(node: yaml.ScalarNode) -> str | None:
    """Why a plain scalar does not mean to every reader what its writer meant; None when it does."""
    text = node.value
    if node.tag == _TEXT_TAG:
        return _EXPONENT_IS_TWO_THINGS if _EXPONENT.fullmatch(text) else None
    if node.tag.removeprefix(_STANDARD) not in _KINDS:
        return f"{_NAMES['tag']}: quote it if it is text"
    if node.tag == _BOOLEAN_TAG and not _SAME_EVERYWHERE[0].fullmatch(text):
        meant = text.lower() in {"yes", "on"}
        return f"{text} is {str(meant).lower()} to YAML and text to others: write {str(meant).lower()}, or quote it"
    if node.tag in {_NULL_TAG, _MERGE_TAG} or any(form.fullmatch(text) for form in _SAME_EVERYWHERE):
        digits = sum(char.isdecimal() for char in text.lower().partition("e")[0].lstrip("-+0."))
        if node.tag == _FLOAT_TAG and digits > _MOST_DIGITS:
            return f"a number with a fraction keeps {_MOST_DIGITS} digits: write fewer, or quote it if it is text"
        return None
    return (
        "a value is to YAML a date, a time, or a number in another notation (a leading 0, _ or :): quote it if it is"
        " text, else write the number plainly"
    )
