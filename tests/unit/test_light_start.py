"""What is left out of a start, and that nothing else is."""

from __future__ import annotations

import ssl

import aiohttp  # noqa: F401 - what is left out of its import is tested after it
import pytest
import typer.main
from botocore.exceptions import UnknownServiceError
from botocore.loaders import Loader

from replicator import __main__ as program
from replicator.adapters.aws.descriptions import SharedTrust, service_descriptions
from replicator.cli.commands import app, only


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
