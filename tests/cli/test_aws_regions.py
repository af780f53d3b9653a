"""A misspelt AWS region is refused by the file alone; newer ones, partitions of users and local servers are not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from replicator.settings.loading import ConfigurationProblems, load

FILE = """\
group: test
regions:
  us: {{region: {us}}}
  eu: {{region: eu-west-1}}
coordination: {{region: eu}}
rules:
  - {{name: orders, table: orders, source: us, replicas: [eu]}}
"""


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_DATA_PATH", raising=False)


def written(folder: Path, us: str) -> Path:
    path = folder / "replicator.yaml"
    path.write_text(FILE.format(us=us))
    return path


def refusal(folder: Path, us: str) -> str:
    with pytest.raises(ConfigurationProblems) as caught:
        load(written(folder, us))
    assert caught.value.exit_code == 78
    (sentence,) = caught.value.sentences
    return sentence


@pytest.mark.parametrize("name", ["us-east-1", "ap-southeast-5", "cn-north-1", "us-gov-west-1", "eusc-de-east-1"])
def test_regions_of_every_partition_are_accepted(tmp_path: Path, name: str) -> None:
    assert load(written(tmp_path, name)).regions["us"].region == name


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("us-eats-1", "us-east-1"),
        ("eu-west1", "eu-west-1"),
        ("EU-WEST-1", "eu-west-1"),
        ("us-gov-wset-1", "us-gov-west-1"),
    ],
)
def test_a_misspelt_region_is_refused_with_the_one_that_was_meant(tmp_path: Path, name: str, meant: str) -> None:
    told = refusal(tmp_path, name)
    assert told.startswith(f"{tmp_path}/replicator.yaml:3: `regions.us.region`: is not an AWS region")
    assert f"did you mean {meant}?" in told
    assert "endpoint_url" in told
    assert name not in told


@pytest.mark.parametrize("name", ["frankfurt-am-main", "aws-global"])
def test_a_name_without_a_likely_region_is_refused_with_an_example(tmp_path: Path, name: str) -> None:
    told = refusal(tmp_path, name)
    assert "did you mean" not in told
    assert "for example eu-west-1" in told


@pytest.mark.parametrize(
    "endpoint",
    ["endpoint_url: http://127.0.0.1:4566", "endpoints: {dynamodb: https://dynamodb.moon-south-1.amazonaws.com}"],
)
def test_with_endpoints_a_region_may_have_any_name(tmp_path: Path, endpoint: str) -> None:
    assert load(written(tmp_path, f"moon-south-1, {endpoint}")).regions["us"].region == "moon-south-1"


def test_an_endpoint_for_roles_alone_excuses_no_misspelt_region(tmp_path: Path) -> None:
    told = refusal(tmp_path, "us-eats-1, endpoints: {sts: https://sts.us-east-1.amazonaws.com}")
    assert "did you mean us-east-1?" in told


@pytest.mark.parametrize("document", ["partitions.json", "endpoints.json"])
def test_a_partition_that_a_user_adds_to_the_client_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, document: str
) -> None:
    refusal(tmp_path, "moon-south-1")
    (tmp_path / document).write_text(json.dumps({"partitions": [{"regions": {"moon-south-1": {}}}]}))
    monkeypatch.setenv("AWS_DATA_PATH", str(tmp_path))
    assert load(written(tmp_path, "moon-south-1")).regions["us"].region == "moon-south-1"
    refusal(tmp_path, "moon-nroth-9")
