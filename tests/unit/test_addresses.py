"""Addresses of IPv6 wherever a host is written: in URLs, in what people read, and in heads of requests."""

from __future__ import annotations

from typing import Any

import pytest
from botocore.credentials import ReadOnlyCredentials
from pydantic import SecretStr

from replicator.adapters.aws.transport.lean import LeanTransport, Service
from replicator.adapters.redis.nodes import Address
from replicator.adapters.redis.opening import node_url, safe_url
from replicator.domain.addresses import host_and_port
from replicator.domain.cache_urls import ClusterUrl
from replicator.settings.events import WebhookSink


@pytest.mark.parametrize(
    ("host", "port", "written"),
    [("a.example", 1, "a.example:1"), ("a.example", None, "a.example"), ("::1", 1, "[::1]:1"), ("::1", None, "[::1]")],
)
def test_an_address_of_ipv6_is_written_in_brackets(host: str, port: int | None, written: str) -> None:
    assert host_and_port(host, port) == written


@pytest.mark.parametrize(
    ("url", "safe"),
    [
        ("redis://user:secret@[fd00::7]:6380/0?protocol=3", "redis://[fd00::7]:6380"),  # pragma: allowlist secret
        ("rediss://[fd00::7]/0", "rediss://[fd00::7]"),
        ("redis+sentinel://[fd00::7],b:2/main", "redis+sentinel://[fd00::7]:26379,b:2/main"),
        ("redis+cluster://[fd00::7]", "redis+cluster://[fd00::7]:6379"),
        ("redis://cache:6379/0", "redis://cache:6379"),
        ("unix:///run/valkey.sock", "unix:///run/valkey.sock"),
    ],
)
def test_a_cache_is_named_by_what_its_url_says_and_may_be_asked_by_again(url: str, safe: str) -> None:
    assert safe_url(url) == safe
    assert safe_url(safe) == safe


def test_a_node_of_a_cluster_is_named_with_its_brackets() -> None:
    assert str(Address("fd00::7", 6379)) == "[fd00::7]:6379"
    assert node_url(ClusterUrl((), tls=False, options=()), "fd00::7", 6379) == "redis://[fd00::7]:6379/0"


@pytest.mark.parametrize(
    ("url", "host"), [("http://[::1]/", b"[::1]"), ("http://[::1]:8000/", b"[::1]:8000"), ("http://a/", b"a")]
)
async def test_a_request_names_the_host_that_its_endpoint_names(url: str, host: bytes) -> None:
    unused: Any = None
    transport = LeanTransport(
        Service("dynamodb", "DynamoDB_20120810", "application/x-amz-json-1.0"),
        url=url,
        region="eu-west-1",
        credentials=unused,
        connections=1,
        connect_seconds=1.0,
        read_seconds=1.0,
    )
    request = transport.request("GetItem", b"{}", ReadOnlyCredentials("a", "b", None), 0.0)
    assert b"\r\nHost: %b\r\n" % host in request


def test_a_webhook_is_named_by_its_host_and_port() -> None:
    sink = WebhookSink(to="webhook", url=SecretStr("https://[2600::1]:8443/a"), secret="a")
    assert sink.place == "[2600::1]:8443"
