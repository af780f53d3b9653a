"""A set-up of a later day: newer releases of everything are listed, and the pinned ones are withdrawn.

dev.txt is installed by the pip that the first release of this Python brought. The newest pip fetches and judges it, and
stops before it unpacks; what stands in no other lock it installs. Other supported Pythons that this machine has fetch
and judge everything by their first pip. `make setup` and the commands of the documentation are carried out.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import pytest

from tests.deploy.newer_index import NEWER, ROOT, NewerIndex, fetch_pinned, fetch_pip, newer_index
from tests.deploy.told_commands import told_commands

PIPS = {"3.11": ("22.3", "newest"), "3.12": ("23.2.1", "newest"), "3.13": ("24.2", "newest")}
"""By the Python: what its ensurepip brought first, and what its users may have today."""
HERE = f"3.{sys.version_info.minor}"
ELSEWHERE = [(version, pips[0]) for version, pips in PIPS.items() if version != HERE]
"""The first of each: with the newest, each lock is judged here."""
SMALL = ("build.txt", "image.txt", "function.txt")
LARGEST = ("dev.txt", "image.txt", "function.txt")
"""What the others hold stands in these, with the same hashes."""
NEEDED = ("pyproject.toml", "README.md", "LICENSE", "requirements", "replicator")
COMPLETE = ("--no-deps", "--require-hashes")
_SECONDS = 1800.0
"""No command takes so long, whatever else the machine does."""

pytestmark = [pytest.mark.long, pytest.mark.timeout(5 * _SECONDS)]


@cache
def base_python(version: str) -> Path | None:
    """A Python of this version, not that of an environment; None when this machine has none with ensurepip."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    named = shutil.which(f"python{version}") or "false"
    tell = "import sys, ensurepip; print(*sys.version_info[:2], sep='.'); print(sys._base_executable)"
    for candidate in (sys.executable, named, *map(str, pyenv.glob(f"versions/{version}.*/bin/python"))):
        told = subprocess.run([candidate, "-c", tell], capture_output=True, text=True, timeout=_SECONDS, check=False)
        if told.stdout.startswith(f"{version}\n"):
            return Path(told.stdout.splitlines()[1])
    return None


def python_with_wheels(version: str) -> Path:
    """The same, with what dev.txt pins for it fetched; skips where this machine has none."""
    found = base_python(version)
    if found is None:
        pytest.skip(f"this machine has no Python {version} with ensurepip")
    fetch_pinned(found, version)
    return found


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """What a set-up needs of the repository, elsewhere."""
    root = tmp_path / "checkout"
    for name in NEEDED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            root.mkdir(exist_ok=True)
            shutil.copy(ROOT / name, root)
    return root


def settings(index: NewerIndex) -> dict[str, str]:
    """The environment of a user whose pip knows that index and nothing else."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "PYTHON", "VIRTUAL_ENV"))}
    own = {"PIP_CONFIG_FILE": os.devnull, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_CACHE_DIR": "1"}
    return kept | own | {"PIP_INDEX_URL": index.url, "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}


def run(*command: object, environment: Mapping[str, str], cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    words = [str(word) for word in command]
    return subprocess.run(
        words, env=dict(environment), cwd=cwd, capture_output=True, text=True, timeout=_SECONDS, check=False
    )


def succeed(*command: object, environment: Mapping[str, str], cwd: Path | None = None) -> None:
    """Run a command to its end, which is good."""
    done = run(*command, environment=environment, cwd=cwd)
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"


def assert_runs(program: Path, environment: Mapping[str, str]) -> None:
    configuration = ROOT / "config" / "replicator.yaml"
    succeed(program, "--config", configuration, "check", "--offline", environment=environment)


def environment_with(pip: str, base: Path, directory: Path, environment: Mapping[str, str]) -> Path:
    """An environment with nothing but that pip; returns its Python."""
    succeed(base, "-m", "venv", "--without-pip", directory, environment=environment)
    (packages,) = directory.glob("lib/python*/site-packages")
    with zipfile.ZipFile(fetch_pip(base, pip)) as wheel:
        wheel.extractall(packages)
    return directory / "bin" / "python"


def test_a_pip_that_resolves_stumbles_over_a_newer_release(tmp_path: Path) -> None:
    base = python_with_wheels("3.11")
    with newer_index() as index:
        environment = settings(index)
        python = environment_with("22.3", base, tmp_path / "pip", environment)
        install = (python, "-m", "pip", "install", "--dry-run", "--quiet", "--require-hashes")
        lock = ("-r", ROOT / "requirements" / "dev.txt")
        done = run(*install, *lock, environment=environment)
        assert done.returncode != 0
        assert f"-{NEWER}-" in done.stderr
        succeed(*install, "--no-deps", *lock, environment=environment)


@pytest.mark.parametrize(("version", "pip"), ELSEWHERE)
def test_every_lock_file_can_be_installed(version: str, pip: str, tmp_path: Path) -> None:
    base = python_with_wheels(version)
    with newer_index() as index:
        environment = settings(index)
        python = environment_with(pip, base, tmp_path / "pip", environment)
        for lock in LARGEST:
            install = (python, "-m", "pip", "install", "--dry-run", "--quiet", *COMPLETE)
            succeed(*install, "-r", ROOT / "requirements" / lock, environment=environment)
        assert index.newer_that_were_asked_for() == set()


def test_the_largest_lock_file_is_installed_by_the_oldest_pip(checkout: Path) -> None:
    base = python_with_wheels(HERE)
    with newer_index() as index:
        environment = settings(index)
        python = environment_with(PIPS[HERE][0], base, checkout / ".venv", environment)
        fill = "import environment; environment.fill(environment.VENV / 'bin' / 'python')"
        succeed(python, "-c", fill, environment=environment, cwd=checkout / "requirements")
        assert_runs(checkout / ".venv" / "bin" / "replicator", environment)
        assert index.newer_that_were_asked_for() == set()


def test_the_newest_pip_judges_the_largest_lock_file_and_installs_the_others(tmp_path: Path) -> None:
    base = python_with_wheels(HERE)
    with newer_index() as index:
        environment = settings(index)
        python = environment_with(PIPS[HERE][1], base, tmp_path / "pip", environment)
        judge = (python, "-m", "pip", "install", "--dry-run", "--quiet", *COMPLETE)
        succeed(*judge, "-r", ROOT / "requirements" / LARGEST[0], environment=environment)
        for lock in SMALL:
            succeed(base, "-m", "venv", "--without-pip", tmp_path / lock, environment=environment)
            there = (python, "-m", "pip", "--python", tmp_path / lock / "bin" / "python")
            install = (*there, "install", "--quiet", "--no-compile", *COMPLETE)
            succeed(*install, "-r", ROOT / "requirements" / lock, environment=environment)
            succeed(*there, "check", environment=environment)
        assert index.newer_that_were_asked_for() == set()


@pytest.mark.parametrize(("file", "pip"), [("docs/operations.md", PIPS[HERE][0]), ("Dockerfile", PIPS[HERE][1])])
def test_the_commands_that_are_told_install_the_program(file: str, pip: str, checkout: Path, tmp_path: Path) -> None:
    base = python_with_wheels(HERE)
    told = told_commands(ROOT / file)
    installing = [command for command in told if re.match(r"python\S* -m venv |/opt/\S+/(pip|hatchling) ", command)]
    assert installing
    with newer_index() as index:
        environment = settings(index)
        for command in installing:
            here = re.sub(r"(?<![\w.])/(opt|dist)\b", rf"{tmp_path}/\1", re.sub(r"^python\S*", str(base), command))
            succeed("sh", "-c", here, environment=environment, cwd=checkout)
            if made := re.search(r" -m venv (\S+)$", here):
                upgrade = (f"{made[1]}/bin/python", "-m", "pip", "install", "--no-index", fetch_pip(base, pip))
                succeed(*upgrade, environment=environment)
        assert_runs(tmp_path / "opt" / "replicator" / "bin" / "replicator", environment)
        assert index.newer_that_were_asked_for() == set()


def test_the_environment_is_made_whatever_the_users_pip_is_told_and_anew_where_its_making_was_killed(
    checkout: Path, tmp_path: Path
) -> None:
    base = python_with_wheels(HERE)
    locks = checkout / "requirements"
    make = (base, locks / "environment.py")
    # Less than it holds else is installed in a fraction of the time: how it is made does not depend on what it holds.
    (locks / "dev.txt").write_text((locks / "runtime.txt").read_text() + (locks / "build.txt").read_text())
    with newer_index() as index:
        environment = settings(index)
        with subprocess.Popen(make, env=environment, stderr=subprocess.DEVNULL) as first:
            deadline = time.monotonic() + _SECONDS
            while len(index.asked) < 20:
                assert first.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.05)
            first.kill()  # and not the pip that it started, which goes on
        (tmp_path / "constraints.txt").write_text("pytest<1")
        (tmp_path / "modules" / "attrs-26.1.0.dist-info").mkdir(parents=True)
        (tmp_path / "pip.conf").write_text(
            f"[global]\nindex-url = {index.url}\nquiet = 2\nrequire-hashes = true\n"
            f"[install]\nuser = true\nno-binary = :all:\nconstraint = {tmp_path}/constraints.txt\n"
        )
        del environment["PIP_INDEX_URL"]
        environment["PIP_CONFIG_FILE"] = str(tmp_path / "pip.conf")
        environment["PIP_REQUIRE_VIRTUALENV"] = "1"
        environment["PIP_TARGET"] = str(tmp_path / "elsewhere")
        environment["PYTHONPATH"] = str(tmp_path / "modules")
        succeed(*make, environment=environment)
        assert not (tmp_path / "elsewhere").exists()
        assert_runs(checkout / ".venv" / "bin" / "replicator", settings(index))
        index.asked.clear()
        succeed(*make, environment=environment)
        assert index.asked == []
