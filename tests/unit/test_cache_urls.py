"""URLs that name Sentinels or nodes of a cluster."""

from __future__ import annotations

import pytest

from replicator.domain.cache_urls import ClusterUrl, SentinelUrl, cluster_url, sentinel_url


def test_a_url_names_sentinels_a_service_and_a_database() -> None:
    found = sentinel_url("rediss+sentinel://a:1,[::1]:2,c/my%20service/3?ssl_ca_certs=/ca.pem")
    assert found == SentinelUrl(
        (("a", 1), ("::1", 2), ("c", 26_379)), "my service", 3, tls=True, options=(("ssl_ca_certs", "/ca.pem"),)
    )
    assert found.address == "rediss+sentinel://a:1,[::1]:2,c:26379/my service"
    assert sentinel_url("redis://a:1/0") is None


def test_a_url_names_nodes_of_a_cluster() -> None:
    found = cluster_url("rediss+cluster://a:1,[::1]:2,c/0?ssl_ca_certs=/ca.pem")
    assert found == ClusterUrl((("a", 1), ("::1", 2), ("c", 6379)), tls=True, options=(("ssl_ca_certs", "/ca.pem"),))
    assert found.address == "rediss+cluster://a:1,[::1]:2,c:6379"
    assert cluster_url("redis+cluster://a") == ClusterUrl((("a", 6379),), tls=False, options=())
    assert cluster_url("redis+sentinel://a:1/main") is None


@pytest.mark.parametrize(
    ("url", "wrong"),
    [
        ("redis+cluster://a:1/3", "must not name a database"),
        ("redis+cluster://a:1?db=3", "must not name a database"),
        ("redis+cluster://a:1,:2", "every node"),
        ("redis+cluster://user:secret@a:1", "must not hold a user"),  # pragma: allowlist secret
        ("redis+sentinel://a:1/", "must name a service"),
        ("redis+sentinel://a:1/main/x", "number of a database"),
        ("redis+sentinel://a:0/main", "every Sentinel"),
        ("redis+sentinel://a:x,b/main", "every Sentinel"),
        ("redis+sentinel:///main", "every Sentinel"),
        ("redis+sentinel://::1,b/main", "IPv6 in brackets"),
        ("redis+cluster://fd00::7:6379", "IPv6 in brackets"),
        ("redis+cluster://[fd00::7]6379", "IPv6 in brackets"),
        ("redis+sentinel://user:secret@a:1/main", "must not hold a user"),  # pragma: allowlist secret
    ],
)
def test_what_is_wrong_is_said_without_the_url(url: str, wrong: str) -> None:
    with pytest.raises(ValueError, match=wrong) as caught:
        _ = sentinel_url(url) or cluster_url(url)
    assert "secret" not in str(caught.value)
