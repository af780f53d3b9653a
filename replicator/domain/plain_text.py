"""Text that stays within its place: names and keys may hold characters that move a cursor or begin a line."""

from __future__ import annotations

_ONE_BYTE, _TWO_BYTES = 0xFF, 0xFFFF


def on_one_line(text: str) -> str:
    """The text with all that is not seen written as escapes: control characters, line breaks, other directions."""
    return text if text.isprintable() else "".join([char if char.isprintable() else _escaped(char) for char in text])


def in_json(text: str) -> str:
    """A JSON document, of which what is not seen stands as escapes in its strings; its own lines stay."""
    lines = text.split("\n")
    return text if all(map(str.isprintable, lines)) else "\n".join(map(_in_json, lines))


def _in_json(line: str) -> str:
    return "".join([char if char.isprintable() else _in_string(char) for char in line])


def _in_string(char: str) -> str:
    units = char.encode("utf-16-be", "surrogatepass").hex()
    return "".join([f"\\u{units[start : start + 4]}" for start in range(0, len(units), 4)])


def _escaped(char: str) -> str:
    code = ord(char)
    if code <= _ONE_BYTE:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code <= _TWO_BYTES else f"\\U{code:08x}"
