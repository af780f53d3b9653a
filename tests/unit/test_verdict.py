"""The verdict on a group: what is wrong, in order, with what helps; and how it is shown at each width."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest
from rich.console import Console

from replicator.cli.output import as_typed, rich_table
from replicator.cli.watching import sparkline
from replicator.domain.targets import parse_target
from replicator.domain.values import replace
from replicator.domain.verdict.figures import (
    Away,
    AwayCache,
    Figures,
    Held,
    LateCanary,
    Loss,
    Refused,
    Rest,
    TargetFigure,
    Throttle,
    Trouble,
    Unread,
    late_canary,
    place_of,
)
from replicator.domain.verdict.judgement import judge
from replicator.domain.verdict.kinds import RUNBOOK, Kind, State, counted, span, were

HOUR = 3600.0
ROOT = Path(__file__).parents[2]
REFUSED = Trouble("The item has 409600 bytes.", "Make it smaller.", key="id=7", seconds=90.0)
HERE = Figures("prod", 1, workers=1)


def at(place: str = "eu", lag: float | None = 0.0, shard: str = "s1", **more: Trouble) -> TargetFigure:
    return TargetFigure("orders", place, shard, lag, None if lag is None else max(0.0, 24 * HOUR - lag), **more)


SITUATIONS: dict[Kind, tuple[Figures, str, str]] = {
    Kind.COORDINATION: (
        replace(HERE, coordination=Trouble("Denied.", "")),
        "the coordination table does not answer",
        "replicator check --failed",
    ),
    Kind.UNANSWERED: (replace(HERE, unanswered={"ap": "It is silent."}), "region ap does not answer", "check --failed"),
    Kind.GAP: (
        replace(HERE, losses=[Loss("g123", "orders", "eu")]),
        "orders/eu lost records",
        "replicator repair orders",
    ),
    Kind.NO_WORKER: (
        replace(HERE, workers=0, targets=[at(lag=3 * HOUR)]),
        "no worker of group prod is alive, loses data in 21 h",
        "replicator run",
    ),
    Kind.RETENTION: (replace(HERE, targets=[at(lag=20 * HOUR)]), "orders/eu loses data in 4 h", "status --watch"),
    Kind.HELD: (
        replace(HERE, held=[Held("orders", None, "us", "missing", Trouble("No table.", "Make it."))]),
        "orders is held (missing)",
        "replicator check --failed",
    ),
    Kind.BLOCKED: (
        replace(HERE, targets=[at(lag=3 * HOUR, blocked=REFUSED), at(shard="s2")]),
        "orders/eu is blocked by item id=7, loses data in 21 h",
        "replicator inspect orders id=7",
    ),
    Kind.STALLED: (
        replace(HERE, targets=[at(stalled=Trouble("It hangs.", ""))]),
        "orders/eu does not progress on 1 shard",
        "replicator leases release --shard s1",
    ),
    Kind.UNREAD: (
        replace(HERE, unread=[Unread("orders", ["s1", "s2"], Trouble("No worker takes them.", ""))]),
        "2 shards of orders do not move",
        "replicator leases list --rule orders",
    ),
    Kind.NOT_RUN: (replace(HERE, not_run=["orders"]), "orders is configured and no worker runs it", "replicator run"),
    Kind.REBUILD: (
        replace(HERE, away=[Away("orders", "ap", 9e5, "It missed too much.", 3, rebuild=True)]),
        "orders/ap must be rebuilt",
        "resume orders --region ap --rebuilt",
    ),
    Kind.AWAY: (
        replace(HERE, away=[Away("orders", "ap", 3 * HOUR, "It is silent.", 3)]),
        "orders/ap is away for 3 h",
        "replicator check --failed",
    ),
    Kind.CACHE: (
        replace(HERE, caches=[AwayCache("eu_main", "eu", 90.0, "It got no answer.", 1)]),
        "cache eu_main in eu is away for 90 s",
        "replicator caches",
    ),
    Kind.PAUSED: (
        replace(HERE, rests=[Rest("orders", None, 20 * HOUR, "migration")], targets=[at(lag=20 * HOUR)]),
        "orders is paused for 20 h, loses data in 4 h",
        "replicator resume orders",
    ),
    Kind.PARKED: (
        replace(HERE, refused=[Refused("orders", "eu", 2, 1, 90.0)]),
        "2 keys and 1 record of orders/eu are parked for 90 s",
        "replicator parked list --rule orders",
    ),
    Kind.SERVICE: (
        replace(HERE, services={"heartbeat": Trouble("No.", ""), "members": Trouble("No.", "")}),
        "heartbeat and 1 more fail",
        "replicator check --failed",
    ),
    Kind.UNREADABLE: (replace(HERE, unreadable=["Row x is none."]), "a row cannot be read", "leases list --all"),
    Kind.THROTTLED: (
        replace(HERE, throttled=[Throttle("orders", "eu", "copies", 4)]),
        "copies in eu throttles orders",
        "replicator status --watch",
    ),
    Kind.CANARY: (
        replace(HERE, canaries=[LateCanary("orders", "us", "eu", "", 120.0, unwritten=False, why="")]),
        "the canary of orders does not arrive at orders/eu for 2 min",
        "status --wide",
    ),
    Kind.LAG: (
        replace(HERE, targets=[at(lag=300.0), at(lag=90.0, shard="s2")]),
        "orders/eu is 5 min behind",
        "--watch",
    ),
    Kind.CONFIGURATION: (
        replace(HERE, configuration=Trouble("rules[0].table: is missing.", "Correct the file.")),
        "a changed configuration is refused",
        "replicator reload --dry-run",
    ),
    Kind.CLOCK: (
        replace(HERE, clocks={"w1": -90.0, "w2": 7.0}),
        "the clock of w1 is 90 s ahead of that of AWS",
        "replicator check --failed",
    ),
    Kind.DIFFERENCES: (
        replace(HERE, differences={"orders": 3}),
        "the last comparison of orders found 3 differences",
        "replicator repair orders",
    ),
}


@pytest.mark.parametrize("kind", SITUATIONS)
def test_each_kind_is_one_problem_with_a_command_and_a_heading(kind: Kind) -> None:
    figures, sentence, command = SITUATIONS[kind]
    verdict, (problem,) = judge(figures)
    assert (problem.kind, problem.sentence.startswith(sentence)) == (kind, True), problem.sentence
    assert command in problem.command
    unknown = kind in {Kind.COORDINATION, Kind.UNANSWERED}
    assert verdict.state is (State.UNKNOWN if unknown else State.PROBLEMS)
    assert verdict.sentence.endswith(problem.sentence)


def test_every_kind_has_a_situation_here_and_a_heading_in_the_runbook() -> None:
    assert set(SITUATIONS) == set(Kind)
    headings = re.findall(r"^#+ (.+)$", (ROOT / "docs/operations.md").read_text(), re.MULTILINE)
    anchors = {re.sub(r"[^a-z0-9_ -]", "", heading.lower()).replace(" ", "-") for heading in headings}
    assert [heading for heading in RUNBOOK.values() if heading not in anchors] == []
    assert RUNBOOK.keys() == set(Kind)


def test_nothing_wrong_is_healthy_and_says_how_far_behind() -> None:
    verdict, problems = judge(replace(HERE, targets=[at(lag=0.4), at("ap", lag=1.2), at(lag=None, shard="s2")]))
    assert (verdict.state, problems) == (State.HEALTHY, [])
    assert verdict.sentence == "healthy: 1 rule, 2 targets, at most 1.2 s behind (not known on 1 shard)"
    assert judge(HERE)[0].sentence == "healthy: 1 rule, 0 targets, nothing read yet"


def test_what_loses_data_soon_comes_first_and_losses_before_all() -> None:
    everything = replace(
        HERE,
        losses=[Loss("g1", "orders", "ap")],
        rests=[Rest("orders", "us", 60.0)],
        targets=[at(lag=23 * HOUR), at("ap", lag=120.0), at("us", lag=1.0, blocked=REFUSED)],
    )
    verdict, problems = judge(everything)
    assert [problem.kind for problem in problems] == [Kind.GAP, Kind.RETENTION, Kind.LAG, Kind.PAUSED]
    assert verdict.sentence == "4 problems: orders/ap lost records"


@pytest.mark.parametrize(
    "figures",
    [
        replace(HERE, rests=[Rest("orders", None, 60.0)], targets=[at(lag=300.0)]),
        replace(HERE, held=[Held("orders", "eu", "eu", "denied", REFUSED)], targets=[at(lag=300.0, blocked=REFUSED)]),
        replace(HERE, workers=0, targets=[at(lag=300.0)]),
        replace(HERE, targets=[at(lag=300.0, blocked=REFUSED)], services={"target": REFUSED}),
    ],
)
def test_what_is_explained_is_one_problem(figures: Figures) -> None:
    assert len(judge(figures)[1]) == 1


def test_workers_that_differ_about_a_rule_are_a_problem_beside_a_file_that_is_refused() -> None:
    refused = Trouble("rules[0].table: is missing.", "Correct the file.")
    _, problems = judge(replace(HERE, mixed=["orders", "users"], configuration=refused))
    assert {problem.kind for problem in problems} == {Kind.CONFIGURATION}
    assert [(problem.sentence, problem.rule) for problem in problems] == [
        ("a changed configuration is refused", None),
        ("workers differ in orders", "orders"),
        ("workers differ in users", "users"),
    ]


def test_a_loss_that_a_job_repairs_points_at_the_job() -> None:
    (problem,) = judge(replace(HERE, losses=[Loss("g123", "orders", "eu", job="j42")]))[1]
    assert problem.command == "replicator jobs show j42"
    assert "which job j42 repairs" in problem.text


def test_a_loss_whose_job_is_over_is_not_said_to_be_under_repair() -> None:
    (problem,) = judge(replace(HERE, losses=[Loss("g123", "orders", "eu", job="j42", over=True)]))[1]
    assert problem.command == "replicator repair orders"
    assert "which should repair them, has ended" in problem.text


def test_a_replaced_table_is_accepted_in_its_region() -> None:
    held = Held("orders", "eu", "eu", "replaced", Trouble("Another one.", "Accept it."))
    (problem,) = judge(replace(HERE, held=[held]))[1]
    assert problem.command == "replicator rules accept orders --region eu"


@pytest.mark.parametrize(
    ("target", "source", "shown"),
    [
        ("orders/replica/eu:orders", "us", "eu"),
        ("orders/replica/eu:copies", "us", "eu:copies"),
        ("orders/source_caches/us", "us", "caches in us"),
        ("orders/events/us:sqs:shop", "us", "events to sqs:shop"),
        ("orders/mesh/eu+us", "us", "all from us"),
        ("orders/mesh/eu+us", None, "all regions"),
    ],
)
def test_a_place_is_named_for_people(target: str, source: str | None, shown: str) -> None:
    parsed = parse_target(target)
    assert parsed is not None
    assert place_of(parsed, source, "orders") == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0.04, "0.0 s"), (9.9, "9.9 s"), (119.0, "119 s"), (7199.0, "119 min"), (8800.0, "2.4 h"), (2e5, "2.3 d")],
)
def test_a_span_is_in_one_unit(seconds: float, shown: str) -> None:
    assert span(seconds) == shown


COLUMNS = ("rule", "shard", "owner:2", "position:3", "state")
LONG = ("orders", "shardId-00000001785432100000-0123abcd", "vm-31283-613b98b7", "1" * 40, "blocked: " + "why " * 30)


@pytest.mark.parametrize("width", [80, 100, 160, None])
def test_an_entry_is_one_line_at_every_width_and_columns_go_by_their_rank(width: int | None) -> None:
    told = io.StringIO()
    Console(file=told, width=width or 400, no_color=True).print(
        rich_table(COLUMNS, [LONG, LONG], width=width, one_line=True)
    )
    lines = told.getvalue().splitlines()
    assert len(lines) == 4
    assert all(len(line.rstrip()) <= (width or 400) for line in lines)
    assert ("owner" in lines[0], "position" in lines[0]) == (width is None, width is None)
    assert all("blocked" in line for line in lines[2:])
    assert (" ".join(LONG[4].split()) in lines[2]) == (width is None)


def test_a_sparkline_is_of_characters_that_the_terminal_has() -> None:
    assert sparkline([0.0, 1.0, None, 2.0], 2.0, "utf-8") == "▁▅ █"
    assert sparkline([0.0, 1.0, 2.0], 2.0, "ascii").isascii()
    assert sparkline([0.0, 0.0], 0.0, "utf-8") == "▁▁"


def test_a_command_is_shown_as_it_works_here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("sys.argv", [".venv/bin/replicator", "status"])
    assert as_typed("replicator resume orders", Path("a b.yaml")) == ".venv/bin/replicator resume orders -c 'a b.yaml'"
    there = tmp_path / "replicator"
    there.touch(mode=0o755)
    monkeypatch.setattr("sys.argv", [str(there), "status"])
    assert as_typed("replicator resume orders", None) == "replicator resume orders"


def test_numbers_of_things_are_written_as_people_do() -> None:
    assert [counted(number, "shard") for number in (0, 1, 2, 1200)] == [
        "0 shards",
        "1 shard",
        "2 shards",
        "1 200 shards",
    ]
    assert [were(number) for number in (0, 1, 2)] == ["were", "was", "were"]


def test_a_late_canary_is_read_from_what_a_worker_says() -> None:
    row = {
        "rule": "orders",
        "source": "us:orders",
        "region": "eu",
        "cache": "",
        "age_seconds": 95.0,
        "unwritten": False,
    }
    late = late_canary({**row, "why": "It does not arrive."})
    assert (late.rule, late.region, late.seconds, late.unwritten) == ("orders", "eu", 95.0, False)


def test_of_one_rule_only_its_own_problems_count_and_those_of_the_group() -> None:
    rests = [Rest("orders", None, 5.0), Rest("users", None, 5.0)]
    figures = replace(HERE, rests=rests, clocks={"w1": 90.0})
    assert [problem.rule for problem in judge(figures, "users")[1]] == ["users", None]
    assert judge(replace(HERE, rests=rests[:1]), "users")[0].state is State.HEALTHY
