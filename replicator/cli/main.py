"""Where errors end: one sentence on standard error and an exit code, never a traceback.

With `--json` the same is one JSON document on standard output. REPLICATOR_DEBUG=1 shows the traceback of a fault.
"""

from __future__ import annotations

import errno
import io
import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from replicator.domain.errors import DEBUG_VARIABLE, EXIT_FAULT, EXIT_UNREACHABLE, EXIT_WRONG_WORLD, ReplicatorError
from replicator.domain.plain_text import on_one_line

if TYPE_CHECKING:
    from typer import Typer

_INTERRUPTED = 130
_BROKEN_PIPE = 141
_ASKS_FOR_THE_VERSION = (["--version"], ["version"])
"""All arguments of one who only asks for it."""


def run(command: str | None = None) -> int:
    """Run the command that the arguments name; returns the exit code. `command`: its name, to make no other ones."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by who called us: else the first connection would get its number
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_WRONLY), "w"))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # what a terminal has no character for is no reason to end
    try:
        return _answered(command)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else EXIT_FAULT if end.code else 0
    except KeyboardInterrupt:
        return _INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left to flush has no reader
        return _BROKEN_PIPE
    except Exception as error:  # noqa: BLE001 - the boundary: whatever is left ends here, as a sentence
        expected = list(_expected(error))
        return _end(expected) if expected else _fault(error)


def _answered(command: str | None) -> int:
    """The exit code of what the arguments ask for; the version and a daemon do without the library of commands."""
    if sys.argv[1:] in _ASKS_FOR_THE_VERSION:
        from replicator import __version__

        sys.stdout.write(f"replicator {__version__}\n")
        sys.stdout.flush()
        return 0
    if command == "run":
        from replicator.cli.daemon import asked_plainly, start

        asked = asked_plainly(sys.argv[1:])
        if asked is not None:
            return start(asked)
    from replicator.cli.commands import only

    return _called(only(command))


def _called(app: Typer) -> int:
    """The exit code of the command that the arguments name; a mistake in them ends here, as JSON if asked."""
    from typer import Abort, BadParameter

    # What a mistake is derives from stands in a module of its own, which is another one in each version of the library.
    mistake: Any = next(base for base in reversed(BadParameter.__mro__) if hasattr(base, "show"))
    try:
        code = app(prog_name="replicator", standalone_mode=False)
    except mistake as error:
        error.message = error.message.removeprefix("Value error, ")  # of the library that judges values
        if _wants_json():
            asked = error.ctx.command_path if getattr(error, "ctx", None) else "replicator"
            said = error.format_message().rstrip(".")
            _print([f"{said}. `{asked} --help` shows what it takes."], error.exit_code)
        else:
            error.show()
        return int(error.exit_code)
    except Abort:
        return _INTERRUPTED
    return code if isinstance(code, int) else 0


def _expected(error: BaseException) -> Iterator[ReplicatorError]:
    """The errors that we raise ourselves, out of groups too; none when anything else is among them."""
    if isinstance(error, ReplicatorError):
        yield error
    elif isinstance(error, BaseExceptionGroup):
        _, others = error.split(ReplicatorError)
        if others is None:
            for inner in error.exceptions:
                yield from _expected(inner)


def _end(errors: list[ReplicatorError]) -> int:
    sentences = [line for error in errors for line in error.sentence.splitlines()]
    codes = {error.exit_code for error in errors}
    code = next((code for code in (EXIT_WRONG_WORLD, EXIT_UNREACHABLE) if code in codes), min(codes))
    _print(list(dict.fromkeys(sentences)), code)
    return code


def _fault(error: BaseException) -> int:
    if os.environ.get(DEBUG_VARIABLE):
        import traceback

        traceback.print_exception(error)
    while isinstance(error, BaseExceptionGroup):
        _, others = error.split(ReplicatorError)
        error = (others or error).exceptions[0]
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        _print(
            [f"No space is left for {error.filename or 'the output'}. Make room, or write it elsewhere."], EXIT_FAULT
        )
        return EXIT_FAULT
    said = str(error).splitlines()
    reason = f"{type(error).__name__}: {said[0]}" if said else type(error).__name__
    _print([f"An unexpected fault: {reason}. Set {DEBUG_VARIABLE}=1 to see where, and report it."], EXIT_FAULT)
    return EXIT_FAULT


def _print(sentences: list[str], code: int) -> None:
    for sentence in sentences:
        sys.stderr.write(f"replicator: {on_one_line(sentence)}\n")
    if _wants_json():
        import json

        sys.stdout.write(json.dumps({"errors": sentences, "exit_code": code}) + "\n")


def _wants_json() -> bool:
    return "--json" in sys.argv[1:]
