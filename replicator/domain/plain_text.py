"""Text that stays within its place: names and keys may hold characters that move a cursor or begin a line."""

from __future__ import annotations

_CONTROL = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0))} | {
    0x2028: "\\u2028",
    0x2029: "\\u2029",
}


def on_one_line(text: str) -> str:
    """The text with control characters and line breaks written as escapes."""
    return text if text.isprintable() else text.translate(_CONTROL)
