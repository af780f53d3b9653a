"""A world for the command line: tables of an account of its own on a local server, a configuration, and the program.

Credentials are dummies that stand in the environment of the program only. The account id is the access key, as the
local server understands it, so that worlds do not see each other.
"""

from __future__ import annotations

import json
import secrets
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from replicator.checks.described_tables import own_tables
from replicator.settings.loading import load
from tests.cli.warm import command

REGIONS = {"us": "us-east-1", "eu": "eu-west-1"}
KEYS = {"pk": "S", "sk": "N"}


def fresh_account() -> str:
    """An account that no other test uses, nor the same one at another time: a server outlives what a module sets up."""
    return str(secrets.randbelow(9 * 10**11) + 10**11)


@dataclass(frozen=True)
class Answer:
    """How the program ended and what it said."""

    code: int
    output: str
    errors: str

    @property
    def json(self) -> Any:
        return json.loads(self.output)

    @property
    def said(self) -> str:
        return self.output + self.errors

    def failures(self) -> list[str]:
        """Sentences of the facts that failed, of `check --json`."""
        facts = self.json["facts"]
        return [f"{fact['found']} {fact['remedy']}".strip() for fact in facts if fact["status"] == "failed"]

    def warnings(self) -> list[str]:
        return [fact["found"] for fact in self.json["facts"] if fact["status"] == "warning"]


def replicator(*arguments: str, environment: Mapping[str, str] | None = None) -> Answer:
    """Run the program to its end, as a process of its own."""
    answer = Answer(*command(arguments, environment or {}))
    assert "Traceback" not in answer.said, answer.said
    return answer


@dataclass
class World:
    """Tables and a configuration that fit each other, until a test breaks them."""

    endpoint_url: str
    redis_url: str
    account: str
    directory: Path
    config: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.config = {
            "group": "test",
            "regions": {
                name: {"region": region, "endpoint_url": self.endpoint_url} for name, region in REGIONS.items()
            },
            "coordination": {"region": "us", "lease": "1s", "heartbeat": "300ms"},
            "admin": {"port": 0},
            "caches": {"eu_main": {"region": "eu", "url": self.redis_url}},
            "rules": [
                {
                    "name": "orders",
                    "table": "orders",
                    "source": "us",
                    "replicas": ["eu"],
                    "cache": [{"cache": "eu_main", "key": f"{self.account}:{{pk}}:{{sk}}"}],
                }
            ],
        }

    @property
    def rule(self) -> dict[str, Any]:
        rule: dict[str, Any] = self.config["rules"][0]
        return rule

    @property
    def path(self) -> Path:
        path = self.directory / "replicator.yaml"
        path.write_text(yaml.safe_dump(self.config, sort_keys=False))
        return path

    @property
    def environment(self) -> dict[str, str]:
        """What leads the program here; writes the configuration as it is now."""
        return {"AWS_ACCESS_KEY_ID": self.account, "REPLICATOR_CONFIG": str(self.path)}

    def call(self, region: str, operation: str, **parameters: Any) -> dict[str, Any]:
        """One unsigned DynamoDB call at the server itself."""
        return self._call(region, "DynamoDB_20120810", operation, parameters)

    def call_streams(self, region: str, operation: str, **parameters: Any) -> dict[str, Any]:
        """One unsigned call of DynamoDB Streams."""
        return self._call(region, "DynamoDBStreams_20120810", operation, parameters)

    def _call(self, region: str, service: str, operation: str, parameters: dict[str, Any]) -> dict[str, Any]:
        scope = f"Credential={self.account}/20200101/{REGIONS[region]}/dynamodb/aws4_request"
        request = urllib.request.Request(
            self.endpoint_url,
            data=json.dumps(parameters).encode(),
            headers={
                "X-Amz-Target": f"{service}.{operation}",
                "Content-Type": "application/x-amz-json-1.0",
                "Authorization": f"AWS4-HMAC-SHA256 {scope}, SignedHeaders=host, Signature=0",
            },
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            decoded: dict[str, Any] = json.loads(answer.read() or b"{}")
        return decoded

    def table(
        self,
        region: str,
        name: str = "orders",
        keys: Mapping[str, str] = KEYS,
        *,
        view: str | None = None,
        index: Mapping[str, str] | None = None,
    ) -> None:
        """Create a table, with a stream when a view type is named and with an index over `index`."""
        self._create(region, name, keys, {} if index is None else {"by_it": index}, view)

    def _create(
        self,
        region: str,
        name: str,
        keys: Mapping[str, str],
        indexes: Mapping[str, Mapping[str, str]],
        view: str | None = None,
    ) -> None:
        attributes = {**keys, **{key: kind for index in indexes.values() for key, kind in index.items()}}
        more: dict[str, Any] = {}
        if view is not None:
            more["StreamSpecification"] = {"StreamEnabled": True, "StreamViewType": view}
        if indexes:
            more["GlobalSecondaryIndexes"] = [
                {"IndexName": index, "KeySchema": _schema(over), "Projection": {"ProjectionType": "ALL"}}
                for index, over in indexes.items()
            ]
        self.call(
            region,
            "CreateTable",
            TableName=name,
            KeySchema=_schema(keys),
            AttributeDefinitions=[{"AttributeName": key, "AttributeType": kind} for key, kind in attributes.items()],
            BillingMode="PAY_PER_REQUEST",
            **more,
        )

    def tables(self, region: str) -> set[str]:
        return set(self.call(region, "ListTables")["TableNames"])

    def items(self, region: str, name: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.call(region, "Scan", TableName=name)["Items"]
        return found

    def put(self, region: str, name: str, **item: dict[str, str]) -> None:
        self.call(region, "PutItem", TableName=name, Item=item)

    def expire(self, region: str, name: str, attribute: str) -> None:
        specification = {"Enabled": True, "AttributeName": attribute}
        self.call(region, "UpdateTimeToLive", TableName=name, TimeToLiveSpecification=specification)

    def initialise(self) -> None:
        """Make the tables that `replicator init` makes, without a process for it."""
        for wanted in own_tables(load(self.path)):
            indexes = {index.name: dict(index.keys) for index in wanted.indexes}
            self._create(wanted.region, wanted.name, dict(wanted.keys), indexes)
            if wanted.expiry is not None:
                self.expire(wanted.region, wanted.name, wanted.expiry)

    def sound(self) -> None:
        """Make everything that the configuration asks for."""
        self.table("us", view="NEW_AND_OLD_IMAGES")
        self.table("eu")
        self.initialise()

    def mesh(self, mode: str, **keys: Any) -> None:
        """Make the rule one of another mode over both regions, with more keys, and everything that it asks for."""
        cache = [{**action, "action": "invalidate"} for action in self.rule["cache"]]
        kept = {"name": self.rule["name"], "table": self.rule["table"], "cache": cache}
        version = {"version": "ver"} if mode == "versioned" else {}
        self.config["rules"][0] = {**kept, "mode": mode, "regions": list(REGIONS), **version, **keys}
        for region in REGIONS:
            self.table(region, view="NEW_AND_OLD_IMAGES")
        self.initialise()

    def run(self, *arguments: str, **environment: str) -> Answer:
        """Run the program on this world."""
        return replicator(*arguments, environment={**self.environment, **environment})

    def check(self) -> Answer:
        return self.run("check", "--json")


def _schema(keys: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"AttributeName": key, "KeyType": role} for key, role in zip(keys, ("HASH", "RANGE"), strict=False)]
