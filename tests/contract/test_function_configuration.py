"""Where a function finds its configuration: objects of S3 and parameters of Systems Manager on a real server."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from aiobotocore.session import AioSession

from replicator.app.function_configuration import LARGEST, configuration
from replicator.domain.errors import AccessRefused, ConfigurationInvalid, ReplicatorError, Unreachable
from replicator.laboratory.servers import free_port
from tests.cli.proxy import serving
from tests.contract.worlds import fresh

pytestmark = pytest.mark.servers

REGIONS = "group: {group}\nregions:\n  us: {{region: us-east-1}}\n  eu: {{region: eu-west-1}}\n"
RULES = """
coordination: {region: us}
rules:
  - {name: orders, table: orders, source: us, replicas: [eu]}
"""


def text(group: str) -> str:
    return REGIONS.format(group=group) + RULES


@pytest.fixture
def endpoint(dynamodb_url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("AWS_ENDPOINT_URL", dynamodb_url)
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    return dynamodb_url


def client(service: str) -> Any:
    create: Any = AioSession().create_client
    return create(service)


async def stored_object(*contents: bytes) -> tuple[str, list[str]]:
    """An object that had these contents, one after the other: its place, and its versions."""
    bucket = fresh("configurations")
    async with client("s3") as s3:
        await s3.create_bucket(Bucket=bucket)
        await s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
        answers = [await s3.put_object(Bucket=bucket, Key="a/b?c.yaml", Body=content) for content in contents]
    return f"s3://{bucket}/a/b?c.yaml", [answer["VersionId"] for answer in answers]


async def stored_parameter(*values: str, **options: Any) -> str:
    name = f"/{fresh('replicator')}/config"
    async with client("ssm") as ssm:
        for value in values:
            await ssm.put_parameter(**{"Type": "String", **options, "Name": name, "Value": value, "Overwrite": True})
    return name


async def group(monkeypatch: pytest.MonkeyPatch, **variables: str) -> str:
    """The group that the configuration in this place names."""
    for name, value in variables.items():
        monkeypatch.setenv(f"REPLICATOR_{name}", value)
    return (await configuration()).group


async def test_an_object_of_s3_is_read_in_its_latest_version_or_the_one_that_is_named(
    endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, (first, _) = await stored_object(text("old").encode(), text("new").encode())
    assert await group(monkeypatch, CONFIG_S3=place) == "new"
    assert await group(monkeypatch, CONFIG_S3=f"{place}?versionId={first}") == "old"


@pytest.mark.parametrize("options", [{"Type": "SecureString"}, {"Tier": "Advanced"}], ids=["secure", "advanced"])
async def test_a_parameter_is_read_decrypted_in_its_latest_version_or_the_one_that_is_named(
    endpoint: str, monkeypatch: pytest.MonkeyPatch, options: Mapping[str, str]
) -> None:
    filling = f"# {'x' * 5000}\n" if "Tier" in options else ""
    name = await stored_parameter(text("old") + filling, text("new") + filling, **options)
    assert await group(monkeypatch, CONFIG_SSM=name) == "new"
    assert await group(monkeypatch, CONFIG_SSM=f"{name}:1") == "old"


async def test_a_configuration_in_parts_is_joined_between_lines(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Line ends at the end of a part are lost where a shell stored it."""
    parts = [await stored_parameter(part) for part in (REGIONS.format(group="parts").rstrip("\n"), RULES)]
    assert await group(monkeypatch, CONFIG_SSM=f"{parts[0]}, {parts[1]}") == "parts"


async def refused(monkeypatch: pytest.MonkeyPatch, **variables: str) -> ReplicatorError:
    with pytest.raises(ReplicatorError) as caught:
        await group(monkeypatch, **variables)
    return caught.value


async def test_what_is_not_there_is_one_sentence_that_names_the_place(
    endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, _ = await stored_object(b"group: [")
    name = await stored_parameter("group: [")
    for variable, value, words in (
        ("CONFIG_S3", "s3://no-such-bucket-1/x", "no such bucket"),
        ("CONFIG_S3", f"{place}.yaml", "no such object"),
        ("CONFIG_S3", f"{place}?versionId=3sL4kqtJlcpXroDTDmJ", "no such version"),
        ("CONFIG_S3", place, f"{place}:1"),
        ("CONFIG_SSM", f"{name}2", "no such parameter"),
        ("CONFIG_SSM", f"{name}:9", "no such version or label"),
        ("CONFIG_SSM", name, f"parameter {name}:"),
        ("CONFIG_SSM", f"{name},{name}", "the joined parameters:"),
    ):
        with monkeypatch.context() as patch:
            error = await refused(patch, **{variable: value})
        assert isinstance(error, ConfigurationInvalid)
        assert words in error.sentence
        assert value in error.sentence or words.endswith("parameters:")
        assert "\n" not in error.sentence


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"CONFIG": "a.yaml", "CONFIG_S3": "s3://a/b"}, "REPLICATOR_CONFIG and REPLICATOR_CONFIG_S3"),
        ({"CONFIG_S3": "s3://a/b", "CONFIG_SSM": "a"}, "REPLICATOR_CONFIG_S3 and REPLICATOR_CONFIG_SSM"),
        ({"CONFIG_S3": "a/b"}, "'a/b' is no object of S3"),
        ({"CONFIG_S3": "s3://a"}, "'s3://a' is no object of S3"),
        ({"CONFIG_S3": "s3://a/?versionId=1"}, "is no object of S3"),
        ({"CONFIG_S3": "s3://a/b?versionId="}, "is no object of S3"),
        ({"CONFIG_SSM": "a,,b"}, "'a,,b' names no parameters"),
        ({"CONFIG_SSM": "a b"}, "'a b' names no parameters"),
    ],
)
async def test_a_place_that_cannot_be_one_is_refused_before_anything_is_asked(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], words: str
) -> None:
    error = await refused(monkeypatch, **variables)
    assert isinstance(error, ConfigurationInvalid)
    assert words in error.sentence


async def test_an_object_that_is_too_large_is_not_read(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    place, _ = await stored_object(bytes(LARGEST + 1))
    assert f"{LARGEST + 1} bytes large" in (await refused(monkeypatch, CONFIG_S3=place)).sentence


async def test_what_is_denied_or_does_not_answer_is_said_with_what_to_grant(
    endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(endpoint, "GetParameter", "GetObject") as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
        denied = await refused(monkeypatch, CONFIG_SSM="/a")
        assert isinstance(denied, AccessRefused)
        assert "parameter /a" in denied.sentence
        assert "Grant ssm:GetParameter" in denied.sentence
        monkeypatch.delenv("REPLICATOR_CONFIG_SSM")
        denied = await refused(monkeypatch, CONFIG_S3="s3://a/b")
        assert isinstance(denied, AccessRefused)
        assert "Grant s3:GetObject" in denied.sentence
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    silent = await refused(monkeypatch, CONFIG_S3="s3://a/b")
    assert isinstance(silent, Unreachable)
    assert "s3://a/b" in silent.sentence
