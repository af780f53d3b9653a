"""What is released: one version everywhere, a wheel that is built the same again and runs where nothing else is."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml

from replicator import __version__
from tests.deploy.parts import Parts
from tests.patience import PATIENT_SECONDS

ROOT = Path(__file__).parents[2]
_EPOCH = "1735689600"
_SECONDS = 10 * PATIENT_SECONDS

pytestmark = pytest.mark.skipif("RELEASE_CHECK" not in os.environ, reason="only `make release-check` builds a release")


def _run(*command: object, environment: dict[str, str] | None = None, cwd: Path = ROOT) -> str:
    done = subprocess.run(
        [str(word) for word in command],
        env={**os.environ, **(environment or {})},
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=_SECONDS,
        check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout[-3000:]}{done.stderr[-3000:]}"
    return done.stdout


def _built(directory: Path) -> tuple[Path, Path]:
    """Wheel and source distribution, built at a set time."""
    hatchling = Path(sys.executable).with_name("hatchling")
    _run(hatchling, "build", "-d", directory, environment={"SOURCE_DATE_EPOCH": _EPOCH})
    (wheel,) = directory.glob("*.whl")
    (source,) = directory.glob("*.tar.gz")
    return wheel, source


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return _built(tmp_path_factory.mktemp("dist"))


@pytest.fixture(scope="module")
def installed(built: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clean environment with the wheel and what demo.txt pins."""
    directory = tmp_path_factory.mktemp("clean") / "venv"
    _run(sys.executable, "-m", "venv", "--without-pip", directory)
    pip = (sys.executable, "-m", "pip", "--python", directory / "bin" / "python", "install", "--quiet")
    _run(*pip, "--no-deps", "--require-hashes", "-r", ROOT / "requirements" / "demo.txt")
    _run(*pip, "--no-index", f"{built[0]}[demo]")  # the extra asks for nothing that is not there
    return directory


def test_the_version_is_one_and_the_changelog_speaks_of_it() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    chart = yaml.safe_load((ROOT / "helm" / "replicator" / "Chart.yaml").read_text())
    dockerfile = re.search(r"^ARG VERSION=(\S+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert dockerfile
    assert {project["version"], chart["appVersion"], dockerfile[1]} == {__version__}
    assert re.search(
        rf"^## \[(?:{re.escape(__version__)}|Unreleased)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE
    )


def test_what_is_built_again_is_the_same(built: tuple[Path, Path], tmp_path: Path) -> None:
    again = _built(tmp_path)
    for one, other in zip(built, again, strict=True):
        assert one.name == other.name
        assert hashlib.sha256(one.read_bytes()).digest() == hashlib.sha256(other.read_bytes()).digest(), one.name


def test_the_wheel_holds_the_program_and_nothing_else(built: tuple[Path, Path]) -> None:
    with zipfile.ZipFile(built[0]) as wheel:
        names = wheel.namelist()
    assert {name.split("/")[0] for name in names} == {"replicator", f"replicator-{__version__}.dist-info"}
    assert "replicator/py.typed" in names
    assert "replicator/admin/console/static/index.html" in names
    assert "replicator/admin/console/static/main.js" in names
    with tarfile.open(built[1]) as source:
        files = {name.partition("/")[2] for name in source.getnames()}
    assert {"pyproject.toml", "README.md", "LICENSE", "replicator/__init__.py", "requirements/runtime.txt"} <= files


def test_the_wheel_runs_where_nothing_else_is(installed: Path, tmp_path: Path) -> None:
    program = installed / "bin" / "replicator"
    assert _run(program, "version", cwd=tmp_path) == f"replicator {__version__}\n"
    said = _run(program, "demo", "--duration", "3", environment={"PYTHONPATH": ""}, cwd=tmp_path)
    assert "identical" in said


@pytest.mark.skipif(
    shutil.which("dpkg-deb") is None or sys.version_info[:2] != (3, 11) or not Path("/usr/bin/python3.11").exists(),
    reason="needs dpkg-deb and Debian's Python 3.11",
)
def test_the_debian_package_runs_by_debians_python_and_is_built_the_same_again(tmp_path: Path) -> None:
    build = (sys.executable, ROOT / "config" / "systemd" / "build_deb.py", "--output")
    first, again = (Path(_run(*build, tmp_path / name).strip()) for name in ("first", "again"))
    assert hashlib.sha256(first.read_bytes()).digest() == hashlib.sha256(again.read_bytes()).digest()
    root = tmp_path / "root"
    _run("dpkg-deb", "-x", first, root)
    home = root / "opt" / "replicator"
    assert (home / "bin" / "replicator").read_text().startswith("#!/opt/replicator/bin/python\n")
    assert (root / "usr/bin/replicator").readlink() == Path("/opt/replicator/bin/replicator")
    unit = (root / "usr/lib/systemd/system/replicator.service").read_text()
    assert {Path(line.split()[0]) for line in re.findall(r"^ExecStart(?:Pre)?=(.*)$", unit, re.MULTILINE)} == {
        Path("/opt/replicator/bin/replicator")
    }
    assert not list(home.rglob("pip")), "it installs nothing"
    assert str(tmp_path).encode() not in b"".join(path.read_bytes() for path in (home / "bin").iterdir())
    example = root / "usr/share/doc/replicator/examples/replicator.yaml"
    clean = {"PATH": "/usr/bin:/bin", "PYTHONPATH": "", "VIRTUAL_ENV": ""}
    program = (home / "bin" / "python", "-m", "replicator")
    assert _run(*program, "version", environment=clean, cwd=tmp_path) == f"replicator {__version__}\n"
    _run(*program, "check", "--offline", "--config", example, environment=clean, cwd=tmp_path)


def test_every_part_is_listed_and_has_a_licence_that_allows_its_use(installed: Path) -> None:
    parts = Parts(next(installed.glob("lib/python*/site-packages")))
    listed = parts.list_in(ROOT / "dist" / f"replicator-{__version__}.cdx.json")
    assert parts.pinned("runtime.txt", "demo.txt") <= listed
    assert parts.not_allowed() == []
