"""What is left out of a start, and that nothing else is."""

from __future__ import annotations

import gc
import ssl
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp  # noqa: F401 - what is left out of its import is tested after it
import pytest
import typer.main
from botocore.exceptions import UnknownServiceError
from botocore.loaders import Loader

from replicator import __main__ as program
from replicator import __version__
from replicator.adapters.aws.descriptions import SharedTrust, service_descriptions
from replicator.app import daemon, supervisor
from replicator.app.collector import COLLECT_AFTER
from replicator.cli import main
from replicator.cli.commands import app, only
from replicator.cli.daemon import Asked, asked_plainly
from replicator.settings import Settings

EXAMPLE = Path(__file__).parents[2] / "config" / "replicator.yaml"
CONFIG: dict[str, Any] = {
    "group": "test",
    "regions": {"us": {"region": "us-east-1"}, "eu": {"region": "eu-west-1"}},
    "coordination": {"region": "us"},
    "rules": [{"name": "orders", "table": "orders", "source": "us", "replicas": ["eu"]}],
}


@pytest.mark.parametrize("name", ["dynamodb", "dynamodbstreams", "sts"])
@pytest.mark.parametrize("kind", ["service-2", "endpoint-rule-set-1"])
def test_a_service_is_described_as_the_client_reads_it(name: str, kind: str) -> None:
    assert service_descriptions(None).load_service_model(name, kind) == Loader().load_service_model(name, kind)


def test_an_unknown_service_is_refused() -> None:
    with pytest.raises(UnknownServiceError):
        service_descriptions(None).load_service_model("no-such-service", "service-2")


def test_endpoints_of_the_services_in_use_are_kept() -> None:
    fresh = service_descriptions.__wrapped__(None)  # clients write into what the shared one keeps
    ours, theirs = (loader.load_data("endpoints")["partitions"] for loader in (fresh, Loader()))
    assert [partition["regions"] for partition in ours] == [partition["regions"] for partition in theirs]
    for name in ("dynamodb", "streams.dynamodb", "sts"):
        assert [each["services"].get(name) for each in ours] == [each["services"].get(name) for each in theirs]


def test_clients_share_certificates_unless_one_has_its_own_proxy() -> None:
    sessions = [SharedTrust(), SharedTrust(proxies={"https": "http://127.0.0.1:1"}), SharedTrust()]
    plain, proxied, other = (
        session._build_ssl_contexts(None if session is not sessions[1] else "http://127.0.0.1:1")
        for session in sessions
    )
    assert plain[0] is other[0]
    assert plain[0].verify_mode is ssl.CERT_REQUIRED
    assert plain[0].check_hostname
    assert proxied[0] is not plain[0]
    assert proxied[1] is not plain[0]


def test_clients_of_another_bundle_believe_others() -> None:
    with pytest.raises(OSError, match="No such file"):
        SharedTrust(verify="/no/such/bundle.pem")._build_ssl_contexts(None)  # type: ignore[arg-type]


def test_certificates_are_read_as_ever_after_the_imports() -> None:
    before = ssl.SSLContext.set_default_verify_paths
    program._import_http_without_certificates()
    assert ssl.SSLContext.set_default_verify_paths is before


@pytest.mark.parametrize(("word", "made"), [("run", ["run"]), ("status", ["status"])])
def test_a_command_is_made_alone(word: str, made: list[str]) -> None:
    alone, whole = (typer.main.get_command(each) for each in (only(word), app))
    assert list(alone.commands) == made  # type: ignore[attr-defined]
    assert [each.name for each in alone.commands[word].params] == [each.name for each in whole.commands[word].params]  # type: ignore[attr-defined]
    assert [each.name for each in alone.params] == [each.name for each in whole.params]


@pytest.mark.parametrize("word", [None, "leases", "import-kcl", "nothing"])
def test_every_command_is_made_for_other_words(word: str | None) -> None:
    assert only(word) is app


@pytest.mark.parametrize("arguments", [["--version"], ["version"]])
def test_the_version_is_said_without_a_library(arguments: list[str]) -> None:
    program = "\n".join(
        [
            "import sys",
            "from replicator.cli.main import run",
            f"sys.argv = ['replicator', *{arguments!r}]",
            "print(run(), *{name.partition('.')[0] for name in sys.modules} & {'typer', 'pydantic', 'asyncio'})",
        ]
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == f"replicator {__version__}\n0\n"


PLAIN = [
    ["run"],
    ["run", "--config", "a"],
    ["-c", "a", "run"],
    ["--config", "a", "run", "-c", "b"],
    ["run", "-c", "a", "-c", "b"],
    ["run", "--workers", "2", "--strict"],
]
OTHERS = ["--help", "--workers=2", "x", "run", "--config", "-c --strict"]


@pytest.mark.parametrize("arguments", PLAIN)
def test_arguments_of_a_daemon_mean_what_the_library_takes_them_for(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Asked] = []
    monkeypatch.setattr("replicator.cli.daemon.start", asked.append)
    monkeypatch.setattr(sys, "argv", ["replicator", *arguments])
    main._called(only("run"))
    assert asked == [asked_plainly(arguments)]


@pytest.mark.parametrize("arguments", [*(f"run {other}" for other in OTHERS), "--strict run", "-c run"])
def test_arguments_of_another_form_are_left_to_the_library(arguments: str) -> None:
    assert asked_plainly(arguments.split()) is None


def test_a_daemon_does_without_the_library_of_commands() -> None:
    program = "import sys; from replicator.cli.main import run; print(run('run'), 'typer' in sys.modules)"
    arguments = [sys.executable, "-c", program, "run", "--config", "/no/such/file"]
    done = subprocess.run(arguments, capture_output=True, text=True, check=True)
    assert done.stdout == "78 False\n", done.stderr


# -- the garbage collector -----------------------------------------------------------------------------------------


def test_a_command_ends_before_there_was_a_collection_of_what_it_imported() -> None:
    program = "\n".join(
        [
            "import gc, sys",
            "from replicator.__main__ import main",
            "began = gc.get_stats()",
            f"sys.argv = ['replicator', 'check', '--offline', '--config', {str(EXAMPLE)!r}]",
            "try:",
            "    main()",
            "except SystemExit as end:",
            "    print(end.code, gc.get_stats() == began, gc.get_freeze_count() > 0)",
        ]
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("\n0 True True\n"), done.stdout + done.stderr


class _Began(Exception):
    """The daemon began."""


@pytest.fixture
def _thresholds() -> Iterator[None]:
    """Those of the tests, which are in force again afterwards."""
    before = gc.get_threshold()
    gc.set_threshold(1_000_000)
    yield
    gc.unfreeze()
    gc.set_threshold(*before)


@pytest.mark.usefixtures("_thresholds")
@pytest.mark.parametrize("what", [daemon, supervisor])
def test_a_daemon_keeps_what_is_imported_and_collects_what_comes(
    what: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def begin(*_: object) -> None:
        raise _Began

    monkeypatch.setattr(what, "configure", begin)
    settings, path = Settings(**CONFIG), tmp_path / "replicator.yaml"
    run = daemon.run if what is daemon else partial(supervisor.run_workers, count=2)
    with pytest.raises(_Began):
        run(settings, config_path=path)
    assert gc.get_threshold() == COLLECT_AFTER
    assert gc.get_freeze_count() > 0
