"""`replicator check`: the file, then the world; one row per fact, and an exit code for scripts."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from replicator.checks.facts import Fact, Status, exit_code, ok, wrong
from replicator.checks.file_facts import file_facts, unseen_facts
from replicator.cli.output import note, print_json, print_rows, wrapped
from replicator.domain.plain_text import on_one_line
from replicator.domain.verdict.kinds import counted
from replicator.settings.loading import ConfigurationProblems, configuration_path, load, surprising_variables

_COLUMNS = ("subject", "fact", "status", "found, and what to do")
_LAST = (Status.OK, Status.SKIPPED, Status.WARNING, Status.FAILED)
"""What needs a look stands where a terminal ends."""

_LOOKED_AT = frozenset({Status.WARNING, Status.FAILED})


def check_world(config: Path | None, *, offline: bool, failed: bool, as_json: bool) -> int:
    """Check and print; returns the exit code. `failed`: only what failed."""
    path = configuration_path(config)
    for variable in surprising_variables():
        note(f"the variable {variable} is not one of replicator's settings; it is ignored.")
    subject = f"file {path}"
    try:
        settings = load(path)
    except ConfigurationProblems as error:
        facts = [wrong(subject, "valid", sentence, "") for sentence in error.sentences]
        return _print(facts, failed=failed, as_json=as_json)
    rules = ", ".join(rule.name for rule in settings.rules)
    facts = [ok(subject, "valid", f"rules: {rules}."), *file_facts(settings)]
    if offline:
        facts += unseen_facts(settings)
    else:
        from replicator.operations.provisioning import look

        facts += asyncio.run(look(settings))
    return _print(facts, failed=failed, as_json=as_json)


def _print(facts: list[Fact], *, failed: bool, as_json: bool) -> int:
    code = exit_code(facts)
    shown = [fact for fact in facts if fact.status is Status.FAILED] if failed else facts
    if as_json:
        rows = [
            {
                "subject": fact.subject,
                "fact": fact.name,
                "status": fact.status.value,
                "found": fact.found,
                "remedy": fact.remedy,
                "exit_code": fact.exit_code,
            }
            for fact in shown
        ]
        print_json({"facts": rows, "exit_code": code})
        return code
    sys.stdout.write(f"{on_one_line(_verdict(facts))}\n")
    ordered = sorted(shown, key=lambda fact: _LAST.index(fact.status))
    if sys.stdout.isatty():
        _screen(ordered)
    elif ordered:
        print_rows(_COLUMNS, map(_row, ordered))
    counts = {status: sum(fact.status is status for fact in facts) for status in Status}
    sys.stdout.write(", ".join(f"{count} {status.value}" for status, count in counts.items() if count) + "\n")
    return code


def _verdict(facts: list[Fact]) -> str:
    """What was found, in a line that names the first failure."""
    bad = [fact for fact in facts if fact.status is Status.FAILED]
    if not bad:
        return f"nothing failed of {counted(len(facts), 'fact')}"
    return f"{len(bad)} of {counted(len(facts), 'fact')} failed: {bad[0].subject}, {bad[0].name}: {bad[0].found}"


def _screen(ordered: list[Fact]) -> None:
    """A line for each fact that holds; behind them whole sentences of those that need a look, failures last."""
    fine = [fact for fact in ordered if fact.status not in _LOOKED_AT]
    if fine:
        print_rows(_COLUMNS, map(_row, fine), one_line=True)
    for fact in (fact for fact in ordered if fact.status in _LOOKED_AT):
        sys.stdout.write(f"{fact.status.value}: {on_one_line(fact.subject)}, {fact.name}\n")
        sys.stdout.writelines(f"{line}\n" for line in wrapped(on_one_line(fact.sentence), "    "))


def _row(fact: Fact) -> tuple[str, ...]:
    return fact.subject, fact.name, fact.status.value, fact.sentence
