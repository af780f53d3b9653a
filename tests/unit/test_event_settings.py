"""Sinks of events as the configuration writes them: what is refused, and whose identity a sink has."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import SecretStr, ValidationError

from replicator.domain.targets import TargetKind
from replicator.settings import Settings
from replicator.settings.compiled_rules import rules_of
from replicator.settings.events import signing_key

HOOK = {"to": "webhook", "url": "https://hooks.example.com/path", "secret": "hook"}


def settings(*events: dict[str, Any], secret: str = "any text", **rule: Any) -> Settings:
    named = {"source": "us", **rule}
    return Settings.model_validate(
        {
            "group": "test",
            "regions": {"us": {"region": "us-east-1"}, "eu": {"region": "eu-west-1"}},
            "coordination": {"region": "us"},
            "secrets": {"hook": secret},
            "caches": {"main": {"region": "eu", "url": "redis://127.0.0.1:1"}},
            "rules": [
                {
                    "name": "orders",
                    "table": "orders",
                    "primary_key": ["pk"],
                    "events": list(events),
                    **{key: value for key, value in named.items() if value is not None},
                }
            ],
        }
    )


def test_sinks_are_targets_named_by_kind_and_place_in_their_region() -> None:
    (rule,) = rules_of(
        settings(
            {"to": "sqs", "queue": "https://sqs.us-east-1.amazonaws.com/111122223333/orders.fifo"},
            {"to": "sns", "topic": "arn:aws:sns:eu-west-1:111122223333:orders", "region": "eu"},
            {"to": "redis_stream", "cache": "main", "stream": "orders:changes"},
            HOOK,
            {**HOOK, "name": "second"},
            {"to": "eventbridge"},
        )
    )
    assert [target.target_id.text for target in rule.targets] == [
        "orders/events/us:sqs:orders.fifo",
        "orders/events/eu:sns:orders",
        "orders/events/eu:redis_stream:orders:changes",
        "orders/events/us:webhook:hooks.example.com",
        "orders/events/us:second",
        "orders/events/us:eventbridge:default",
    ]
    assert {target.kind for target in rule.targets} == {TargetKind.EVENTS}


@pytest.mark.parametrize(
    ("events", "sentence"),
    [
        ([], "has neither replicas nor caches nor events"),
        ([HOOK, HOOK], "is there twice; give it a name of its own"),
        ([{"to": "sqs", "queue": "a b"}], "queue"),
        ([{"to": "sqs", "queue": "orders", "region": "ap"}], "region 'ap' is not one of regions (us, eu)"),
        ([{"to": "sns", "topic": "orders"}], "topic"),
        ([{"to": "redis_stream", "cache": "other", "stream": "s"}], "'other' is not one of caches (main)"),
        ([{**HOOK, "secret": "other"}], "must be the name of one of secrets (hook), and is none"),
        ([{**HOOK, "url": "http://hooks.example.com"}], "unless it sets allow_private: true"),
        ([{**HOOK, "url": "https://10.0.0.1/"}], "unless it sets allow_private: true"),
        ([{**HOOK, "url": "https://[::1]/"}], "unless it sets allow_private: true"),
        ([{**HOOK, "url": "https://localhost/"}], "unless it sets allow_private: true"),
        # pragma: allowlist nextline secret
        ([{**HOOK, "url": "https://user:hidden@example.com"}], "must not contain a user or a password"),
        ([{**HOOK, "url": "ftp://hidden.example.com"}], "must be a URL"),
        ([{**HOOK, "url": "https://example.com:x/hidden"}], "must be a URL"),
        ([{**HOOK, "transform": {"drop": ["pk"]}}], "events[0].transform: changes pk of the primary key"),
        (
            [{**HOOK, "transform": {"mask": {"attributes": ["a"], "hmac": "other"}}}],
            "events[0].transform.mask.hmac: must be the name of one of secrets (hook), and is none",
        ),
        ([{**HOOK, "transform": {"mask": {"attributes": ["a"], "hmac": "hook"}}}], "at least"),
        ([{"to": "pigeon"}], "does not match any of the expected tags"),
        ([{**HOOK, "oversize": {"s3": "bucket/prefix"}}], "s3"),
        ([{**HOOK, "oversize": {"s3": "s3://Bucket"}}], "bucket"),
        ([{**HOOK, "oversize": {"s3": {"bucket": "data", "region": "ap"}}}], "region 'ap' is not one of regions"),
    ],
)
def test_what_cannot_be_is_refused_and_no_secret_is_told(events: list[dict[str, Any]], sentence: str) -> None:
    with pytest.raises(ValidationError) as caught:
        settings(*events)
    said = " ".join(error["msg"] + str(error["loc"]) for error in caught.value.errors())
    assert sentence in said
    assert "hidden" not in said


def test_a_private_address_is_let_in_when_that_is_said() -> None:
    (rule,) = rules_of(settings({**HOOK, "url": "http://127.0.0.1:8080/", "allow_private": True}))
    assert [target.sink for target in rule.targets] == ["webhook:127.0.0.1:8080"]


def mesh(*events: dict[str, Any], mode: str = "active-active", **rule: Any) -> Settings:
    return settings(*events, source=None, mode=mode, regions=["us", "eu"], **rule)


def test_a_sink_of_a_mesh_is_in_every_region_unless_it_says_where_and_an_address_is_one() -> None:
    placed = mesh({"to": "sqs", "queue": "orders"}, {"to": "sqs", "queue": "all", "region": "eu"}, HOOK)
    rules = rules_of(placed)
    assert [[target.target_id.text for target in rule.targets] for rule in rules] == [
        [
            "orders/mesh/eu+us",
            f"orders/events/{home}:sqs:orders",
            "orders/events/eu:sqs:all",
            f"orders/events/{home}:{hook}",
        ]
        for home, hook in (("us", "webhook:hooks.example.com"), ("eu", "webhook:hooks.example.com"))
    ]
    assert placed.rules[0].regions_of_sinks == {"us", "eu"}


def test_a_bucket_is_in_one_region_and_is_written_by_its_identity() -> None:
    (rule,) = mesh({**HOOK, "oversize": {"s3": "s3://data/long/"}}).rules
    (elsewhere,) = mesh({**HOOK, "oversize": {"s3": {"bucket": "data", "region": "eu"}}}).rules
    assert (rule.regions_of_sinks, elsewhere.regions_of_sinks) == ({"us"}, {"eu"})
    folders = [sink.oversize.s3.folder for each in (rule, elsewhere) for sink in each.events if sink.oversize]
    assert folders == ["long/", ""]


def test_events_of_mode_versioned_are_refused() -> None:
    with pytest.raises(ValidationError, match="look alike"):
        mesh(HOOK, mode="versioned", version="ver")


@pytest.mark.parametrize("secret", ["whsec_###", "whsec_", ""])
def test_a_secret_that_is_no_key_is_refused_without_its_text(secret: str) -> None:
    with pytest.raises(ValidationError) as caught:
        settings(HOOK, secret=secret)
    assert "secrets.hook: must" in caught.value.errors()[0]["msg"]
    assert "###" not in caught.value.errors()[0]["msg"]


def test_a_key_is_base64_behind_its_mark_or_the_text_itself() -> None:
    assert signing_key(SecretStr("whsec_aGVsbG8=")) == b"hello"
    assert signing_key(SecretStr("hello")) == b"hello"
