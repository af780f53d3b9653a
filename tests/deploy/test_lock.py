"""The lock files belong to pyproject.toml, and the check of that notices every way in which they could not."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.deploy.newer_index import PIN
from tests.deploy.told_commands import told_commands
from tests.patience import PATIENT_SECONDS

ROOT = Path(__file__).parents[2]


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the declarations and the lock files that a test may spoil."""
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    shutil.copytree(ROOT / "requirements", tmp_path / "requirements")
    return tmp_path


def _check(root: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(root / "requirements" / "lock.py"), "--check"]
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENT_SECONDS, check=False)


def _replace(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


@pytest.mark.parametrize("name", ["demo.txt", "runtime.txt", "build.txt"])
def test_what_others_pin_stands_in_the_largest_with_the_same_hashes(name: str) -> None:
    largest, smaller = ((ROOT / "requirements" / lock).read_text() for lock in ("dev.txt", name))
    pins = {(pin[1], pin[2]): pin[0].split("--hash")[1:] for pin in PIN.finditer(largest)}
    others = [((pin[1], pin[2]), pin[0].split("--hash")[1:]) for pin in PIN.finditer(smaller)]
    assert others
    assert [
        key for key, hashes in others if [each.split()[0] for each in pins[key]] != [h.split()[0] for h in hashes]
    ] == []


def test_they_are_up_to_date() -> None:
    assert _check(ROOT).stderr == ""


def test_a_new_declaration_makes_them_stale(copy: Path) -> None:
    _replace(copy / "pyproject.toml", '  "redis>=6.0",\n', '  "redis>=6.0",\n  "left-pad>=1",\n')
    result = _check(copy)
    assert result.returncode == 1
    assert "requirements/runtime.txt is stale: pyproject.toml now declares other dependencies." in result.stderr
    assert "requirements/runtime.txt does not pin left-pad, which pyproject.toml declares." in result.stderr
    assert "Run `make lock`" in result.stderr


def test_a_narrowed_declaration_names_the_pin_that_no_longer_fits(copy: Path) -> None:
    _replace(copy / "pyproject.toml", '"redis>=6.0"', '"redis<6.0"')
    assert ", but redis<6.0 is declared." in _check(copy).stderr


def test_a_removed_pin_is_noticed_even_if_nobody_declared_it(copy: Path) -> None:
    _replace(copy / "requirements" / "runtime.txt", "\nbotocore==", "\n# botocore==")
    assert "requirements/runtime.txt was changed by hand" in _check(copy).stderr


def test_a_changed_hash_is_noticed(copy: Path) -> None:
    _replace(copy / "requirements" / "dev.txt", "--hash=sha256:0", "--hash=sha256:1")
    assert "requirements/dev.txt was changed by hand" in _check(copy).stderr


def test_a_missing_file_is_noticed(copy: Path) -> None:
    (copy / "requirements" / "build.txt").unlink()
    assert "requirements/build.txt does not pin hatchling" in _check(copy).stderr


@pytest.mark.parametrize("name", ["dev.txt", "demo.txt", "runtime.txt", "build.txt", "bench.txt"])
def test_they_name_no_registry(name: str) -> None:
    text = (ROOT / "requirements" / name).read_text()
    assert "://" not in text
    assert "index-url" not in text


def test_every_command_that_is_told_installs_without_resolving_and_what_is_locked_by_hash() -> None:
    pages = [
        page for page in ROOT.glob("docs/**/*.md") if page.name != "commands.md"
    ]  # which has sentences of `--help`
    told = [*ROOT.glob("*.md"), *pages, ROOT / "Dockerfile", ROOT / "Makefile", *ROOT.glob(".ci/*")]
    found = [command for command in told_commands(*told) if re.search(r"\bpip\b.* install ", command)]
    assert len(found) == 11
    assert [command for command in found if " --no-deps " not in command] == []
    assert [command for command in found if " -r " in command and " --require-hashes " not in command] == []
    assert [command for command in found if command.endswith(" .") and " --no-build-isolation " not in command] == []


def test_what_is_installed_beside_dev_has_its_versions_where_it_has_them(copy: Path) -> None:
    assert "matplotlib" not in (copy / "requirements" / "dev.txt").read_text()
    _replace(copy / "requirements" / "bench.txt", "\npackaging==", "\npackaging==0.")
    assert re.search(r"bench.txt pins packaging 0\S+, but requirements/dev.txt pins", _check(copy).stderr)
