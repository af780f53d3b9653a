"""README and pages that tell commands: what can run here runs as it stands, and what needs a cluster is checked."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from replicator import __version__
from replicator.settings.loading import load
from tests.deploy.rendering import HELM_3, HELM_4, ROOT, TOOLS, template
from tests.tutorial.commands import commands, faults
from tests.tutorial.pages import Page
from tests.tutorial.running import run

PAGES = sorted((ROOT / "docs" / "install").glob("*.md"))
README = ROOT / "README.md"
GUIDES = [README, ROOT / "docs" / "demo.md", ROOT / "docs" / "testing.md"]
QUICKSTARTS = [page for page in PAGES if page.name != "README.md"]
deployed = pytest.mark.skipif(not TOOLS, reason="only `make deploy-check` runs the pages")
named = pytest.mark.parametrize("page", QUICKSTARTS, ids=lambda page: page.stem)
A_TABLE = """
aws dynamodb create-table --region us-east-1 --table-name orders --billing-mode PAY_PER_REQUEST \
  --attribute-definitions AttributeName=pk,AttributeType=S --key-schema AttributeName=pk,KeyType=HASH
aws dynamodb put-item --region us-east-1 --table-name orders --item '{"pk": {"S": "4711"}}'
"""
"""What the pages ask for at their beginning."""

A_WORKER = "replicator run 2> worker.log &\nuntil replicator health; do sleep 0.2; done\n"
"""What a step installs that no test runs."""


@named
def test_a_page_begins_with_a_clone_and_ends_with_a_comparison(page: Path) -> None:
    text = Page.read(page)
    assert "make setup\n" in text.unrun
    assert {"replicator.yaml"} <= set(text.files)
    assert "## When it does not" in page.read_text()


def test_pages_name_the_version_that_is_built() -> None:
    named = {version for page in PAGES for version in re.findall(r"replicator[:_](\d+\.\d+\.\d+)", page.read_text())}
    assert named == {__version__}


@deployed
@pytest.mark.parametrize("page", [*QUICKSTARTS, *GUIDES], ids=lambda page: page.stem)
def test_every_command_of_a_page_is_one_that_exists(page: Path) -> None:
    text = Page.read(page)
    found = [words for block in [*text.unrun, *text.commands] for words in commands(block)]
    assert len(found) > 5
    assert {" ".join(words): wrong for words in found if (wrong := list(faults(words)))} == {}


@pytest.mark.parametrize(
    "command",
    [
        "replicator iam --regional us",
        "kubectl exec deploy/replicator -- replicator statuses",
        "docker run -e A replicator:0.1.0 check --of-line",
        "sudo install config/systemd/replicator.unit /etc",
        "make deploy",
        'make demo ARGS="--readers=20 --chaotic"',
        "helm installs replicator helm/replicator",
        "brew install replicator",
        "cat x | A=1 replicator verifies orders",
        "terraform apply -var memory=3",
    ],
)
def test_a_slip_in_a_command_is_seen(command: str) -> None:
    assert [wrong for words in commands(command) for wrong in faults(words)] != []


@deployed
@pytest.mark.parametrize(
    "command", ["aws iam create-roles", "aws iam create-role --role-nam x", "aws sts get-caller-identity --x 1"]
)
def test_a_slip_in_a_command_for_aws_is_seen(command: str) -> None:
    assert [wrong for words in commands(command) for wrong in faults(words)] != []


def test_the_first_command_stands_on_the_first_screen_of_the_readme() -> None:
    lines = README.read_text().splitlines()
    assert "make demo" in lines[:24]
    assert len(lines) < 180


@pytest.mark.parametrize("page", [README, *QUICKSTARTS], ids=lambda page: page.stem)
def test_the_configuration_of_a_page_is_one(page: Path, tmp_path: Path) -> None:
    file = tmp_path / "replicator.yaml"
    file.write_text(Page.read(page).files[file.name])
    assert load(file).rules


@deployed
@pytest.mark.parametrize("helm", [HELM_3, HELM_4], ids=["helm3", "helm4"])
@pytest.mark.parametrize("slip", [False, True], ids=["as it stands", "with a slip"])
@named
def test_the_values_of_a_page_are_those_of_the_chart(page: Path, helm: str, slip: bool, tmp_path: Path) -> None:
    files = Page.read(page).files
    if "values.yaml" not in files:
        pytest.skip("not in a cluster")
    for name in ("values.yaml", "replicator.yaml"):
        (tmp_path / name).write_text(files[name] + ("replicas: 2\n" if slip else ""))
    done = template(helm, "--set-file", f"config={tmp_path / 'replicator.yaml'}", values=tmp_path / "values.yaml")
    assert (done.returncode != 0) is slip, done.stderr
    assert not slip or "replicas" in done.stderr


_DIFFERENT = {tuple(Page.read(page).commands): page for page in [README, *QUICKSTARTS]}
"""Pages whose commands are the same run once; their values differ, and are rendered each."""


@deployed
@pytest.mark.servers
@pytest.mark.parametrize("page", _DIFFERENT.values(), ids=lambda page: page.stem)
def test_a_page_runs_as_it_stands(page: Path, tmp_path: Path) -> None:
    text = Page.read(page)
    in_cluster = "values.yaml" in text.files
    filled = [n for n, command in enumerate(text.commands) if command.startswith("replicator bootstrap")]
    if filled and not in_cluster and page != README:
        text.commands.insert(filled[0], A_WORKER)
    printed = run(text, tmp_path, first=A_TABLE, tree=ROOT, helm=HELM_3 if in_cluster else None)
    if filled:
        assert "No difference in 1 compared" in printed
        assert "\nhealthy" in printed
