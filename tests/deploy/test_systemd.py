"""The systemd unit: understood by systemd, hardened, and in agreement with the program's times and exit codes."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from replicator.domain.errors import EXIT_WRONG_WORLD
from replicator.settings import Settings
from tests.deploy import checks
from tests.patience import PATIENT_SECONDS

UNIT = Path(__file__).parents[2] / "config" / "systemd" / "replicator.service"
TEMPLATE = UNIT.with_name("replicator@.service")
EXAMPLE = UNIT.parents[1] / "replicator.yaml"
INSTALLED = "/opt/replicator/bin/replicator"
MOST_EXPOSURE = 1.5
analyzed = pytest.mark.skipif(checks.SYSTEMD_ANALYZE is None, reason="systemd-analyze is not installed")


@pytest.fixture(params=[UNIT, TEMPLATE], ids=["unit", "template"])
def unit(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The unit, pointing at a program that exists on this machine; the template for one group."""
    source: Path = request.param
    copy = tmp_path / source.name.replace("@", "@orders")
    copy.write_text(source.read_text().replace(INSTALLED, sys.executable))
    return copy


def _options(unit: Path = UNIT) -> dict[str, str]:
    lines = [line.partition("=") for line in unit.read_text().splitlines() if line and line[0] not in "#["]
    return {key: value for key, _, value in lines}


def _analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = ["systemd-analyze", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENT_SECONDS, check=False)


@analyzed
def test_systemd_finds_nothing_to_say_about_it(unit: Path) -> None:
    assert checks.unit(unit) == []


@analyzed
def test_it_is_hardened(unit: Path) -> None:
    result = _analyze("security", "--offline=true", f"--threshold={MOST_EXPOSURE * 10:.0f}", str(unit))
    assert (result.returncode, result.stderr) == (0, ""), result.stdout[-2000:]


def test_it_runs_the_daemon_which_judges_its_configuration_itself() -> None:
    options = _options()
    assert "ExecStartPre" not in options, "systemd starts again after an exit of it, whatever its code"
    assert options["ExecStart"] == f"{INSTALLED} run"
    assert options["ExecReload"] == "/bin/kill -HUP $MAINPID"
    assert options["Type"] == "notify"


def test_the_program_understands_the_command() -> None:
    _, *arguments = _options()["ExecStart"].split()
    command = [sys.executable, "-m", "replicator", *arguments, "--help"]
    result = subprocess.run(command, env={}, capture_output=True, text=True, timeout=PATIENT_SECONDS, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


def test_what_the_documents_let_the_program_write_is_where_it_may() -> None:
    """Everything else is read-only to it; /var/task is where a function has its package."""
    options = _options()
    assert options["ProtectSystem"] == "strict"
    assert "ReadWritePaths" not in options
    state = f"/var/lib/{options['StateDirectory']}/"
    of_groups = f"/var/lib/{_options(TEMPLATE)['StateDirectory'].replace('%i', 'GROUP')}/"
    documents = [EXAMPLE, *sorted((UNIT.parents[2] / "docs").rglob("*.md")), UNIT]
    written = {path for text in documents for path in re.findall(r"/var/[\w./-]+\w", text.read_text())}
    assert {f"{state}conflicts.jsonl"} <= written
    assert [path for path in sorted(written) if not f"{path}/".startswith((state, of_groups, "/var/task/"))] == []


def test_it_waits_longer_than_a_drain_takes() -> None:
    drain = Settings.model_fields["drain"].default.total_seconds()
    assert int(_options()["TimeoutStopSec"]) >= drain + 10
    assert _options()["KillMode"] == "mixed"


def test_a_wrong_configuration_is_not_tried_again() -> None:
    assert _options()["Restart"] == "on-failure"
    assert int(_options()["RestartPreventExitStatus"]) == EXIT_WRONG_WORLD


def test_the_template_differs_in_what_belongs_to_its_group_only() -> None:
    one, many = _options(), _options(TEMPLATE)
    differing = {key for key in one | many if one.get(key) != many.get(key)}
    assert differing == {"Description", "Environment", "EnvironmentFile", "StateDirectory"}
    assert all("%i" in many[key] for key in differing)
    assert many["Environment"] == "REPLICATOR_CONFIG=/etc/replicator/%i.yaml"
