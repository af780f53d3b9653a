"""`replicator check`: the file, then the world; one row per fact, and an exit code for scripts."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from replicator.checks.facts import Fact, Status, exit_code, ok, wrong
from replicator.checks.file_facts import file_facts, unseen_facts
from replicator.cli.output import note, print_json, print_rows
from replicator.settings.loading import ConfigurationProblems, configuration_path, load, surprising_variables


def check_world(config: Path | None, *, offline: bool, as_json: bool) -> int:
    """Check and print; returns the exit code."""
    path = configuration_path(config)
    for variable in surprising_variables():
        note(f"the variable {variable} is not one of replicator's settings; it is ignored.")
    subject = f"file {path}"
    try:
        settings = load(path)
    except ConfigurationProblems as error:
        facts = [wrong(subject, "valid", sentence, "") for sentence in error.sentences]
        return _print(facts, as_json=as_json)
    rules = ", ".join(rule.name for rule in settings.rules)
    facts = [ok(subject, "valid", f"rules: {rules}."), *file_facts(settings)]
    if offline:
        facts += unseen_facts(settings)
    else:
        from replicator.operations.provisioning import look

        facts += asyncio.run(look(settings))
    return _print(facts, as_json=as_json)


def _print(facts: list[Fact], *, as_json: bool) -> int:
    code = exit_code(facts)
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
            for fact in facts
        ]
        print_json({"facts": rows, "exit_code": code})
        return code
    print_rows(
        ("subject", "fact", "status", "found, and what to do"),
        [(fact.subject, fact.name, fact.status.value, fact.sentence) for fact in facts],
    )
    counts = {status: sum(fact.status is status for fact in facts) for status in Status}
    sys.stdout.write(", ".join(f"{count} {status.value}" for status, count in counts.items() if count) + "\n")
    return code
