"""Questions before something changes: asked on a terminal, refused without a terminal."""

from __future__ import annotations

import getpass
import sys

from replicator.operations.errors import NotConfirmed


def need_yes(*, yes: bool, as_json: bool, deed: str = "do it") -> None:
    """Refuse early when a question would come and there is no terminal to answer it."""
    if not yes and (as_json or not sys.stdin.isatty()):
        raise NotConfirmed("There is no terminal to ask on.", advice=f"Add --yes to {deed} without a question.")


def ask(question: str, *, yes: bool, refused: str = "Nothing was changed.") -> None:
    """Go on only with a yes."""
    import typer

    if not yes and not typer.confirm(question, err=True):
        raise NotConfirmed(refused, advice="")


def who() -> str:
    """The operator, as rows name who did something."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return "unknown"
