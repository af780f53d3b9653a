"""The function as a zip: `make lambda`. The same sources and locks give the same bytes.

What a function never imports is left out: the demonstration, the laboratory, the command line, and the descriptions of
services that replicator does not call. What is built for this machine is tried: an event that is none must be answered.
"""

from __future__ import annotations

import argparse
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "requirements" / "runtime.txt"
PLATFORMS = {"x86_64": "manylinux2014_x86_64", "arm64": "manylinux2014_aarch64"}
NEWER = {"x86_64": ("manylinux_2_28_x86_64",), "arm64": ("manylinux_2_28_aarch64",)}
"""The runtimes from Python 3.12 on have glibc 2.34; that of 3.11 has 2.26."""

UNUSED = {
    *("typer", "rich", "pygments", "markdown-it-py", "mdurl", "shellingham", "annotated-doc", "uvloop", "colorama"),
    *("cloudevents", "deprecation"),
}
"""Distributions of the lock that only the command line and the daemon need."""

PARTS_LEFT_OUT = {"demo", "laboratory", "cli", "admin", "__pycache__"}
SERVICES = {
    *("dynamodb", "dynamodbstreams", "sts", "sso", "sso-oidc", "signin", "s3", "ssm"),
    *("kinesis", "sqs", "sns", "events", "firehose"),
}
"""Services that are called, and those that credentials come from."""

_EPOCH = (1980, 1, 1, 0, 0, 0)
_TRY = """
import os, sys
sys.path.insert(0, os.environ.pop("TRIED"))
from replicator.lambda_handler import handler

class Context:
    def get_remaining_time_in_millis(self): return 1000

assert handler({}, Context()) == {"batchItemFailures": [{"itemIdentifier": ""}]}
from replicator.adapters.aws.clients import open_place
assert not {"replicator.cli", "typer", "rich"} & sys.modules.keys()
"""


def main() -> int:
    """Build and try; returns the exit code."""
    parser = argparse.ArgumentParser(description="Build the function's zip.")
    parser.add_argument("--arch", choices=sorted(PLATFORMS), default="x86_64")
    parser.add_argument("--python", default="3.13", help="the runtime's version (default: %(default)s)")
    parser.add_argument("--config", type=Path, help="a configuration to put in as replicator.yaml")
    parser.add_argument("--compiled", action="store_true", help="with bytecode, by a Python of the runtime's version")
    parser.add_argument("--output", type=Path, help="default: dist/replicator-lambda-PYTHON-ARCH.zip")
    options = parser.parse_args()
    name = f"replicator-lambda-{options.python}-{options.arch}.zip"
    output = (options.output or ROOT / "dist" / name).resolve()
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as directory:
        content = Path(directory) / "content"
        install(content, options.arch, options.python)
        add_program(content)
        if options.config:
            shutil.copy(options.config, content / "replicator.yaml")
        prune(content)
        if options.compiled:
            compile_all(content, options.python)
        unpacked = pack(content, output)
        tried = can_try(options.arch, options.python) and attempt(content)
    megabytes = output.stat().st_size / 1e6
    print(f"{output}: {megabytes:.1f} MB, {unpacked / 1e6:.1f} MB unpacked{', tried here' if tried else ''}")
    return 0


def install(content: Path, arch: str, python: str) -> None:
    """The wheels of the lock, for another machine if need be, each with its hash."""
    lock = content.parent / "lock.txt"
    lock.write_text("".join(wanted(LOCK.read_text())))
    newer = NEWER[arch] if tuple(map(int, python.split("."))) >= (3, 12) else ()
    platforms = [f"--platform={each}" for each in (PLATFORMS[arch], *newer)]
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-compile", "--require-hashes"),
            *("--only-binary=:all:", "--implementation=cp", f"--python-version={python}", *platforms),
            *("--target", str(content), "--requirement", str(lock), "--disable-pip-version-check"),
        ],
        check=True,
    )


def wanted(lock: str) -> list[str]:
    """The entries of a lock that a function needs."""
    entries = re.split(r"^(?=[A-Za-z0-9])", lock, flags=re.MULTILINE)
    return [entry for entry in entries if not entry.startswith(tuple(f"{name}==" for name in UNUSED))]


def add_program(content: Path) -> None:
    """The program itself, without what functions do not run."""

    def left_out(directory: str, names: list[str]) -> set[str]:
        return PARTS_LEFT_OUT.intersection(names) if Path(directory).name == "replicator" else {"__pycache__"}

    shutil.copytree(ROOT / "replicator", content / "replicator", ignore=left_out)


def prune(content: Path) -> None:
    """Take away what is megabytes and never read."""
    shutil.rmtree(content / "bin", ignore_errors=True)
    for folder in (content / "botocore" / "data").iterdir():
        if folder.is_dir() and folder.name not in SERVICES:
            shutil.rmtree(folder)
    for record in content.glob("*.dist-info/RECORD"):  # what it lists is not all there any more
        record.unlink()


def compile_all(content: Path, python: str) -> None:
    """Bytecode beside every module: a function's directory is read-only, and each cold start would compile anew."""
    if python != f"{sys.version_info.major}.{sys.version_info.minor}":
        raise SystemExit(f"--compiled needs Python {python}, and this is {platform.python_version()}.")
    options = ("-q", "-j0", "--invalidation-mode=unchecked-hash", "-s", str(content), "-p", "/var/task")
    subprocess.run([sys.executable, "-m", "compileall", *options, str(content)], check=True)


def pack(content: Path, output: Path) -> int:
    """Every file, in one order, with one time and one mode; returns the bytes unpacked."""
    unpacked = 0
    with zipfile.ZipFile(output, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for path in sorted(path for path in content.rglob("*") if path.is_file()):
            entry = zipfile.ZipInfo(path.relative_to(content).as_posix(), _EPOCH)
            entry.external_attr = (0o755 if path.suffix == ".so" else 0o644) << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, path.read_bytes(), compresslevel=9)
            unpacked += path.stat().st_size
    return unpacked


def can_try(arch: str, python: str) -> bool:
    """Whether it is built for this machine."""
    here = {"x86_64": "x86_64", "aarch64": "arm64"}.get(platform.machine())
    return sys.platform == "linux" and here == arch and python == f"{sys.version_info.major}.{sys.version_info.minor}"


def attempt(content: Path) -> bool:
    """Call the handler with nothing but the package on the path."""
    environment = {"TRIED": str(content), "PYTHONDONTWRITEBYTECODE": "1"}
    subprocess.run([sys.executable, "-I", "-S", "-c", _TRY], check=True, env=environment)
    return True


if __name__ == "__main__":
    raise SystemExit(main())
