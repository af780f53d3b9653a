"""A package index of a later day, on loopback: what the lock files pin, and a newer release of every package.

The newer releases are of no use: what they need does not exist. The pinned ones were withdrawn ("yanked") meanwhile,
which leaves them to those who name exactly them. The wheels come once from the index that pip is configured with,
checked by the hashes of the lock, and are kept in `.cache/wheels`.
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import os
import re
import subprocess
import threading
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory

from packaging.utils import canonicalize_name, parse_wheel_filename

ROOT = Path(__file__).parents[2]
NEWER = "9999.0"
_WHEELS = ROOT / ".cache" / "wheels"
PIN = re.compile(r"^([A-Za-z0-9._-]+)==([^ ;\\]+)[^\n]*\\\n(?: +--hash=[^\n]+\n)+", re.MULTILINE)
_FETCHED = ("dev.txt", "image.txt", "function.txt")
_DOWNLOAD_SECONDS = 1200
_TRIES, _PAUSE_SECONDS = 3, 5.0


@dataclass
class NewerIndex:
    """What is listed, and what was asked for."""

    url: str
    _wheels: dict[str, list[Path]]
    asked: list[str] = field(default_factory=list)

    def newer_that_were_asked_for(self) -> set[str]:
        """The packages of which a newer release was looked at."""
        return {path.rsplit("/", 1)[-1].split("-")[0] for path in self.asked if f"-{NEWER}-" in path}

    def answer(self, path: str) -> bytes | None:
        """A page of the index or a file; None when there is no such thing."""
        self.asked.append(path)
        place, name = path.strip("/").split("/")
        if place == "simple":
            return self._page(name)
        if f"-{NEWER}-" in name:
            return _newer_release(name)
        wheels = self._wheels.get(canonicalize_name(name.split("-")[0]), [])
        return next((wheel.read_bytes() for wheel in wheels if wheel.name == name), None)

    def _page(self, package: str) -> bytes | None:
        if package not in self._wheels:
            return None
        newer = f"{package.replace('-', '_')}-{NEWER}-py3-none-any.whl"
        links = [_link_of(wheel) for wheel in self._wheels[package]]
        return "<br>".join([*links, _link(newer, _newer_release(newer))]).encode()


@contextmanager
def newer_index() -> Iterator[NewerIndex]:
    """Serve what was fetched."""
    wheels: dict[str, list[Path]] = {}
    for path in _WHEELS.glob("*.whl"):
        wheels.setdefault(parse_wheel_filename(path.name)[0], []).append(path)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            found = index.answer(self.path)
            self.send_response(404 if found is None else 200)
            self.send_header("Content-Type", "text/html" if "/simple/" in self.path else "application/octet-stream")
            self.send_header("Content-Length", str(len(found or b"")))
            self.end_headers()
            self.wfile.write(found or b"")

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name that is overridden
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        index = NewerIndex(f"http://127.0.0.1:{server.server_port}/simple/", wheels)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield index
        finally:
            server.shutdown()
            thread.join()


def fetch_pinned(python: Path, version: str) -> None:
    """Have each wheel that dev.txt and the locks beside it pin for this Python; one that is there is kept."""
    pins = PIN.finditer("".join((ROOT / "requirements" / lock).read_text() for lock in _FETCHED))
    with _alone():
        there = [wheel for wheel in _WHEELS.glob("*.whl") if _serves(wheel, version)]
        kept = {(name, str(number)) for name, number, _, _ in (parse_wheel_filename(wheel.name) for wheel in there)}
        _download(python, "".join(pin[0] for pin in pins if (pin[1], pin[2]) not in kept), "--require-hashes")


@cache
def fetch_pip(python: Path, version: str) -> Path:
    """A pip: of this version, or the newest that the index offers to this Python."""
    kept = _WHEELS / f"pip-{version}-py3-none-any.whl"
    if kept.exists():
        return kept
    with _alone():
        (name,) = _download(python, "pip\n" if version == "newest" else f"pip=={version}\n")
    return _WHEELS / name


def _download(python: Path, requirements: str, *options: str) -> list[str]:
    with TemporaryDirectory(dir=_WHEELS) as scratch:
        wanted = Path(scratch) / "wanted.txt"
        wanted.write_text(requirements)
        command = [str(python), "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", *options]
        command += ["-r", str(wanted), "-d", scratch]
        for left in reversed(range(_TRIES)):
            done = subprocess.run(command, check=not left, timeout=_DOWNLOAD_SECONDS)
            if done.returncode == 0:
                break
            time.sleep(_PAUSE_SECONDS)
        fetched = list(Path(scratch).glob("*.whl"))
        for wheel in fetched:
            wheel.replace(_WHEELS / wheel.name)
    return [wheel.name for wheel in fetched]


def _serves(wheel: Path, version: str) -> bool:
    interpreter = "cp" + version.replace(".", "")
    _, _, _, tags = parse_wheel_filename(wheel.name)
    return any(tag.interpreter in {"py3", interpreter} or tag.abi == "abi3" for tag in tags)


@contextmanager
def _alone() -> Iterator[None]:
    _WHEELS.mkdir(parents=True, exist_ok=True)
    directory = os.open(_WHEELS, os.O_RDONLY)
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)  # another process of the test run fetches them: they are there then
        yield
    finally:
        os.close(directory)


@cache
def _link_of(wheel: Path) -> str:
    return _link(wheel.name, wheel.read_bytes())


def _link(name: str, content: bytes) -> str:
    withdrawn = "" if f"-{NEWER}-" in name else ' data-yanked="withdrawn"'
    return f'<a href="/files/{name}#sha256={hashlib.sha256(content).hexdigest()}"{withdrawn}>{name}</a>'


def _newer_release(name: str) -> bytes:
    package = name.partition("-")[0]
    metadata = f"Metadata-Version: 2.1\nName: {package}\nVersion: {NEWER}\nRequires-Dist: {package}-has-no-such-part\n"
    wheel = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for file, text in {"METADATA": metadata, "WHEEL": wheel, "RECORD": ""}.items():
            archive.writestr(zipfile.ZipInfo(f"{package}-{NEWER}.dist-info/{file}"), text)
    return content.getvalue()
