"""One consumer, one case, one round: what it cost."""

from __future__ import annotations

import json
import os
import shutil
import signal
import ssl
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.hot_path.mixes import Case
from benchmarks.processes import cpu_seconds, daemon, mebibytes
from tests.integration.harness import CREDENTIALS, World

OURS = ("lean", "stock")
_STILL_SECONDS = 1.0
_WRITES = ("PutItem", "UpdateItem", "DeleteItem", "TransactWriteItems")
_MOST_SECONDS = 600.0
_NODE = Path(__file__).with_name("consumer.cjs")
_REGIONS = {"us": "us-east-1", "eu": "eu-west-1"}


@dataclass(frozen=True, slots=True)
class Figures:
    """What a consumer cost in one round: microseconds a record, and mebibytes at the end (None when not measured)."""

    microseconds: float
    mebibytes: float | None = None
    stages: dict[str, float] = field(default_factory=dict)
    """Microseconds a record by stage, when they were asked for."""


@dataclass(frozen=True, slots=True)
class Certificate:
    """A key with its certificate for 127.0.0.1, which consumers are made to believe."""

    file: Path

    @classmethod
    def make(cls, directory: Path) -> Certificate | None:
        """A new one; None where there is no openssl."""
        openssl = shutil.which("openssl")
        if openssl is None:
            return None
        key, certificate, both = (directory / name for name in ("key.pem", "certificate.pem", "both.pem"))
        subprocess.run(  # noqa: S603 - every argument is composed here
            [
                *(openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
                *("-days", "2", "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"),
                *("-keyout", str(key), "-out", str(certificate)),
            ],
            check=True,
            capture_output=True,
        )
        both.write_text(key.read_text() + certificate.read_text())
        return cls(both)

    @property
    def environment(self) -> dict[str, str]:
        """What makes consumers believe it."""
        return {"AWS_CA_BUNDLE": str(self.file), "NODE_EXTRA_CA_CERTS": str(self.file)}


class Endpoint:
    """The answering server, as a process."""

    def __init__(self, process: subprocess.Popen[str], url: str, certificate: Certificate | None) -> None:
        self._process = process
        self.url = url
        self.environment = {} if certificate is None else certificate.environment
        self._tls = None if certificate is None else ssl.create_default_context(cafile=str(certificate.file))

    def release(self) -> None:
        """Show the records."""
        self._ask("/release", b"{}")

    def counts(self) -> Any:
        """How far it is."""
        return json.loads(self._ask("/counts", b""))

    def _ask(self, path: str, body: bytes) -> bytes:
        with urllib.request.urlopen(self.url + path, data=body, context=self._tls) as answer:  # noqa: S310 - our own
            found: bytes = answer.read()
            return found

    def until_still(self, writes: int) -> None:
        """Wait until every record was read, so much was written, and nothing is written any more."""
        deadline, last, since = time.monotonic() + _MOST_SECONDS, None, time.monotonic()
        while time.monotonic() < deadline:
            counts = self.counts()
            calls = {name: count for name, count in counts["calls"].items() if name != "GetRecords"}
            is_behind = counts["read"] < counts["of"] or sum(calls.get(name, 0) for name in _WRITES) < writes
            if is_behind or calls != last:
                last, since = calls, time.monotonic()
            elif time.monotonic() - since >= _STILL_SECONDS:
                return
            time.sleep(0.1)
        raise TimeoutError("the consumer did not come to its end")


@contextmanager
def answering(upstream: str, records: int, case: Case, certificate: Certificate | None) -> Iterator[Endpoint]:
    """Start a server, and end it."""
    command = [sys.executable, "-m", "benchmarks.hot_path.answering", "--upstream", upstream]
    command += ["--records", str(records), "--mix", case.mix.name, "--mode", case.mode]
    if case.tls:
        assert certificate is not None, "there is a certificate for what is encrypted"
        command += ["--certificate", str(certificate.file)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)  # noqa: S603 - ours
    try:
        assert process.stdout is not None
        scheme = "https" if case.tls else "http"
        url = f"{scheme}://127.0.0.1:{int(process.stdout.readline())}"
        yield Endpoint(process, url, certificate if case.tls else None)
    finally:
        process.communicate(timeout=10)


# -- other consumers ---------------------------------------------------------------------------------------------------


def node() -> str:
    """Versions of Node and its SDK; nothing where they are not present. NODE_PATH says where modules are."""
    program = shutil.which("node")
    if program is None:
        return ""
    said = subprocess.run([program, str(_NODE), "--present"], capture_output=True, text=True, check=False)  # noqa: S603
    return said.stdout.strip()


def other(consumer: str, world: World, records: int, case: Case, certificate: Certificate | None) -> Figures:
    """A consumer that is not this program."""
    cache = f"redis://127.0.0.1:{world.valkey_port}"
    with answering(world.endpoint, records, case, certificate) as endpoint:
        endpoint.release()
        if consumer == "node":
            command = ["node", str(_NODE), endpoint.url, cache, str(records)]
        else:
            command = [sys.executable, "-m", "benchmarks.hot_path.consumers", consumer, "--endpoint", endpoint.url]
            command += ["--cache", cache, "--records", str(records)]
        environment = {**os.environ, **CREDENTIALS, **endpoint.environment}
        said = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)  # noqa: S603 - ours
    return Figures(round(json.loads(said.stdout)["microseconds"], 1))


# -- the daemon --------------------------------------------------------------------------------------------------------


def configuration(world: World, client: str, url: str, case: Case, group: str) -> dict[str, Any]:
    """Everything by default, but where things are."""
    settings = world.settings(
        group=group,
        client=client,
        coordination={"region": "de"},
        polling={},
        apply={},
        log={"level": "warning", "format": "json"},
        caches={"eu_main": {"region": "eu", "url": f"redis://127.0.0.1:{world.valkey_port}/0"}},
        rule={"replicas": ["eu"], "cache": [{"cache": "eu_main", "key": "order:{pk}", "action": "invalidate"}]},
    )
    regions: dict[str, Any] = {"de": {"region": "us-west-2", "endpoint_url": world.endpoint}}
    for name, region in _REGIONS.items():
        regions[name] = {"region": region, "endpoint_url": url}
    if case.mode == "ordered":
        regions["us"] |= {"endpoint_url": world.endpoint, "endpoints": {"streams": url}}
    else:
        rule = settings["rules"][0]
        for key in ("source", "replicas"):
            del rule[key]
        rule |= {"mode": case.mode, "regions": list(_REGIONS)}
        if case.mode == "versioned":
            rule["version"] = "n"
    return settings | {"regions": regions}


@dataclass(frozen=True, slots=True)
class Look:
    """How a daemon is looked at: by stage, or by function, into a file; else only from outside."""

    module: str
    file: Path


def ours(  # noqa: PLR0913, PLR0917 - a case and what it is measured with
    client: str, world: World, records: int, case: Case, certificate: Certificate | None, turn: int, look: Look | None
) -> Figures:
    """The daemon."""
    group = f"bench-{turn}"
    world.initialise(world.write_settings(configuration(world, client, world.endpoint, case, group), "init.yaml"))
    with answering(world.endpoint, records, case, certificate) as endpoint:
        config = world.write_settings(configuration(world, client, endpoint.url, case, group))
        log = world.directory / f"daemon-{turn}.log"
        under = () if look is None else (look.module, str(look.file))
        with daemon(config, log, under=under, environment=endpoint.environment) as process:
            _until_read(endpoint, process, log)
            by_stage = look is not None and look.module.endswith(".stages")
            if by_stage:
                process.send_signal(signal.SIGUSR2)
            before_cpu = cpu_seconds(process.pid)
            endpoint.release()
            endpoint.until_still(0 if case.mix.repeats else records)  # what is repeated is not always written
            spent = (cpu_seconds(process.pid) - before_cpu) / records * 1e6
            resident = mebibytes(process.pid)
            if by_stage:
                process.send_signal(signal.SIGUSR2)
                time.sleep(0.5)
    stages = {}
    if by_stage and look is not None:
        samples = json.loads(look.file.read_text())
        stages = {stage: spent * count / sum(samples.values()) for stage, count in samples.items()}
    return Figures(spent, resident, stages)


def _until_read(endpoint: Endpoint, process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until the daemon polls, and a moment more."""
    deadline = time.monotonic() + _MOST_SECONDS
    while not endpoint.counts()["calls"].get("GetRecords"):
        assert process.poll() is None, log.read_text()[-2000:]
        assert time.monotonic() < deadline, "the daemon never polled"
        time.sleep(0.1)
    time.sleep(2)
