"""Commands that a page tells and no test can run, checked: program, options and files that are named exist."""

from __future__ import annotations

import itertools
import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from botocore.session import Session
from typer.exceptions import TyperException
from typer.main import get_command

from replicator.cli.commands import app

ROOT = Path(__file__).parents[2]
_HERE = re.compile(r"<<(\w+)\n.*?^\1$", re.MULTILINE | re.DOTALL)
_PUNCTUATION = set("();<>|&")
_VERBS = {
    "kubectl": {"create", "exec", "get", "logs", "rollout", "port-forward", "apply", "delete", "describe", "scale"},
    "helm": {"install", "upgrade", "test", "template", "rollback", "uninstall", "history", "get", "lint"},
    "docker": {"build", "push", "run", "exec", "ps", "logs", "stop", "rm"},
    "terraform": {"init", "plan", "apply", "validate", "destroy"},
    "systemctl": {"daemon-reload", "enable", "status", "restart", "reload", "edit", "stop"},
    "apt-get": {"install"},
    "pip": {"install", "check"},
}
_ORDINARY = {
    "cat",
    "cd",
    "cp",
    "export",
    "git",
    "install",
    "journalctl",
    "mkdir",
    "printf",
    "python3",
    "sleep",
    "tee",
    "true",
}
_BEFORE = {"sudo", "until", "while", "do", "done"}
_REPOSITORY = re.compile(r"^(?:\./|[\w-]+=)?((?:requirements|config|helm|lambda|examples|docs)/[\w./-]+)")


def commands(text: str) -> Iterator[list[str]]:
    """The words of each command of a shell's text; what is redirected to, and assignments, are none."""
    for line in re.sub(r"\\\n\s*", "", _HERE.sub("", text)).splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars="();<>|&")
        lexer.whitespace_split = True
        words: list[str] = []
        redirected = False
        for word in lexer:
            if set(word) <= _PUNCTUATION:
                redirected = set(word) <= set("<>")
                words = words[:-1] if redirected and words and words[-1].isdigit() else words
                if not redirected:
                    yield from _command(words)
                    words = []
            elif redirected:
                redirected = False
            else:
                words.append(word)
        yield from _command(words)


def _command(words: list[str]) -> Iterator[list[str]]:
    while words and (words[0] in _BEFORE or re.match(r"[A-Z_]+=", words[0])):
        words = words[1:]
    if words:
        yield words


def faults(words: list[str]) -> Iterator[str]:
    """What is wrong with a command, and with what it runs or sets."""
    name, rest = Path(words[0]).name, words[1:]
    match name:
        case "replicator":
            found = [_fault_of_replicator(rest)]
        case "aws":
            found = [_fault_of_aws(rest)]
        case "make":
            targets = [word for word in rest if "=" not in word]
            found = [None if each in _targets() else f"there is no target {each}" for each in targets]
            given = next((word.removeprefix("ARGS=") for word in rest if word.startswith("ARGS=")), "")
            found += [_fault_of_replicator(["demo", *shlex.split(given)])] if "demo" in targets else []
        case _:
            found = [_fault(words)]
    if "--" in rest:
        found.append(_fault_of_replicator(rest[rest.index("--") + 2 :]))
    image = [place for place, word in enumerate(rest) if re.match(r"(\S+/)?replicator:", word)]
    if name == "docker" and rest[0] == "run":
        found.append(_fault_of_replicator(rest[image[0] + 1 :] or ["run"]))
    variables = [word.partition("=")[0] for before, word in itertools.pairwise(rest) if before == "-var"]
    found += [f"there is no variable {each}" for each in variables if each not in _variables()]
    return (each for each in found if each is not None)


def _fault(words: list[str]) -> str | None:
    program, *rest = words
    missing = [path for word in rest for path in _REPOSITORY.findall(word) if not (ROOT / path).exists()]
    if missing:
        return f"there is no {missing[0]}"
    name = Path(program).name
    if name in _VERBS:
        given = _operands(rest)
        return None if given and given[0] in _VERBS[name] else f"{name} has no {' '.join(given[:1])}"
    return None if name in _ORDINARY else f"{name} is no program that is known here"


def _operands(words: list[str]) -> list[str]:
    """What is neither an option nor a value of one that stands before the verb."""
    valued = {"--namespace", "-n", "--context"}
    pairs = zip(["", *words], words, strict=False)
    return [word for before, word in pairs if not word.startswith("-") and before not in valued]


def _targets() -> list[str]:
    return re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)


def _variables() -> list[str]:
    return re.findall(r'^variable "(\w+)"', (ROOT / "lambda/terraform/variables.tf").read_text(), re.MULTILINE)


def _fault_of_replicator(words: list[str]) -> str | None:
    command: Any = get_command(app)
    name, left, context = "replicator", list(words), None
    try:
        while True:
            context = command.make_context(name, left, parent=context)
            left = [*context._protected_args, *context.args]
            if not hasattr(command, "commands") or not left:
                return None
            name, command, left = command.resolve_command(context, left)
    except TyperException as error:
        return str(error)


@cache
def _service(name: str) -> Any:
    return Session().get_service_model(name)


def _fault_of_aws(words: list[str]) -> str | None:
    service, operation, *rest = words
    if (service, operation) == ("logs", "tail"):
        return None  # of the command line alone
    model = _service(service)
    names = {_kebab(each): each for each in model.operation_names}
    if operation not in names:
        return f"aws {service} has no {operation}"
    shape = model.operation_model(names[operation]).input_shape
    given = {word[2:] for word in rest if word.startswith("--")} - {"region", "query", "output", "profile"}
    unknown = given - {_kebab(member) for member in shape.members}
    lacking = {_kebab(member) for member in shape.required_members} - given
    return (
        f"aws {service} {operation}: {sorted(unknown)} unknown, {sorted(lacking)} missing"
        if unknown or lacking
        else None
    )


def _kebab(name: str) -> str:
    """As the AWS command line writes a name of the API."""
    apart = re.sub(r"(.)([A-Z][a-z]+)", r"\1-\2", name)
    return re.sub(r"([a-z0-9])([A-Z])", r"\1-\2", apart).lower()
