"""Policies: resources that need the same share a statement, and what is written is what is meant."""

from __future__ import annotations

from typing import Any

import hcl2

from replicator.domain.permissions import (
    NEEDS,
    TAKES_NO_RESOURCE,
    Resource,
    Role,
    Statement,
    Use,
    assuming,
    decrypting,
    granted,
    policy_document,
    terraform,
)
from replicator.operations.permissions import Asked, policies
from replicator.settings import Settings

ARN = "arn:aws:dynamodb:us-east-1:111122223333:table/"


def test_a_resource_of_two_kinds_is_granted_what_both_need_once() -> None:
    uses = [Use(Resource.SIDE, f"{ARN}s"), Use(Resource.SIDE_OF_REPLICA, f"{ARN}s"), Use(Resource.SIDE, f"{ARN}s")]
    (statement,) = granted(Role.FUNCTION, uses)
    assert statement == Statement(
        ("dynamodb:ConditionCheckItem", "dynamodb:DescribeTable", "dynamodb:GetItem", "dynamodb:UpdateItem"),
        (f"{ARN}s",),
    )


def test_resources_that_need_the_same_share_a_statement() -> None:
    (statement,) = granted(Role.WORKER, [Use(Resource.SOURCE, f"{ARN}b"), Use(Resource.SOURCE, f"{ARN}a")])
    assert statement.resources == (f"{ARN}a", f"{ARN}b")


def test_everything_is_granted_only_where_the_service_takes_no_resource() -> None:
    for role in Role:
        for statement in granted(role, [Use(kind, f"{ARN}{kind}") for kind in Resource]):
            assert ("*" in statement.resources) == (statement.sid in TAKES_NO_RESOURCE.values())


def test_a_role_is_granted_nothing_on_what_it_has_no_need_of() -> None:
    assert granted(Role.SETUP, [Use(Resource.STREAMS, "*"), Use(Resource.STREAM, f"{ARN}a/stream/*")]) == []
    assert all(NEEDS[kind] for kind in Resource)


def test_keys_are_used_through_one_service_alone() -> None:
    assert decrypting([], "dynamodb", "us-east-1", "amazonaws.com") is None
    statement = decrypting(["k2", "k1", "k2"], "dynamodb", "us-east-1", "amazonaws.com")
    assert statement is not None
    assert policy_document([statement, *assuming([])])["Statement"] == [
        {
            "Effect": "Allow",
            "Action": ["kms:Decrypt"],
            "Resource": ["k1", "k2"],
            "Condition": {"StringEquals": {"kms:ViaService": "dynamodb.us-east-1.amazonaws.com"}},
        }
    ]
    written = hcl2.loads(terraform("label", "name", [statement]))
    ((document,),) = [list(each.values()) for each in written["data"]]
    ((body,),) = [list(document.values())]
    (condition,) = body["statement"][0]["condition"]
    assert {name: str(value).replace('"', "") for name, value in condition.items() if name != "__is_block__"} == {
        "test": "StringEquals",
        "variable": "kms:ViaService",
        "values": "[dynamodb.us-east-1.amazonaws.com]".replace("[", "['").replace("]", "']"),
    }


def test_why_everything_is_granted_stands_in_both_formats() -> None:
    (statement,) = granted(Role.WORKER, [Use(Resource.STREAMS, "*")])
    assert policy_document([statement])["Statement"] == [
        {"Sid": "ListStreamsTakesNoResource", "Effect": "Allow", "Action": ["dynamodb:ListStreams"], "Resource": ["*"]}
    ]
    assert 'sid       = "ListStreamsTakesNoResource"' in terraform("label", "name", [statement])


def test_nothing_in_a_name_is_an_expression_of_terraform() -> None:
    text = terraform("label", 'a"${b}%{c}\\', assuming(["arn:aws:iam::111122223333:role/x"]))
    assert 'name   = "a\\"$${b}%%{c}\\\\"' in text


async def test_a_worker_that_serves_the_api_is_granted_what_commands_need_too() -> None:
    written: dict[str, Any] = {
        "group": "test",
        "regions": {"us": {"region": "us-east-1"}, "eu": {"region": "eu-west-1"}},
        "coordination": {"region": "us"},
        "rules": [{"name": "orders", "table": "orders", "source": "us", "replicas": ["eu"]}],
    }

    async def source(role: Role, **more: Any) -> set[str]:
        settings = Settings.model_validate(written | more)
        made = await policies(settings, Asked(role, offline=True, accounts={"": "111122223333"}))
        (found,) = [each.statements for each in made.policies if each.name == "us"]
        return {action for each in found for action in each.actions if f"{ARN}orders" in each.resources}

    worker, operator = await source(Role.WORKER), await source(Role.OPERATOR)
    assert "dynamodb:PutItem" in operator - worker, "`conflicts promote` writes to the source"
    assert await source(Role.WORKER, admin={"api": {"enabled": True}}) == worker | operator
    assert await source(Role.OPERATOR, admin={"api": {"enabled": True}}) == operator
