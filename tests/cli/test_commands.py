"""The commands as a script or an operator meets them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from replicator import __version__
from replicator.cli.schema import schema_text
from tests.cli.worlds import Answer, World, replicator
from tests.patience import PATIENT_SECONDS

COMMANDS = ["run", "check", "init", "demo", "status", "health", "inspect", "rules", "conflicts", "schema", "version"]
COMMANDS += ["leases", "rewind", "pause", "resume", "gaps", "caches", "import-kcl"]
HEAVY = {
    "aiobotocore",
    "aiohttp",
    "botocore",
    "jmespath",
    "msgspec",
    "pydantic_settings",
    "redis",
    "rich",
    "structlog",
    "yaml",
}
VERSIONS = {number: f"{number:056d}" for number in range(3)}


# -- help ----------------------------------------------------------------------------------------------------------


def test_help_imports_nothing_heavy() -> None:
    asked = [["--help"], *([command, "--help"] for command in COMMANDS), ["version"]]
    program = "\n".join(
        [
            "import sys",
            "from replicator.cli.main import run",
            f"for arguments in {asked!r}:",
            "    sys.argv = ['replicator', *arguments]",
            "    code = run()",
            "    print('IMPORTED', code, *sorted({name.partition('.')[0] for name in sys.modules}), flush=True)",
        ]
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=PATIENT_SECONDS, check=True
    )
    told = [line.split()[1:] for line in done.stdout.splitlines() if line.startswith("IMPORTED ")]
    assert len(told) == len(asked)
    for code, *modules in told:
        assert code == "0"
        assert HEAVY & set(modules) == set()


def test_the_client_of_a_cache_brings_no_telemetry() -> None:
    program = "import sys, replicator.adapters.redis.cache; print('opentelemetry' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_help_names_every_command() -> None:
    answer = replicator("--help")
    assert answer.code == 0
    assert all(f"  {command} " in answer.output for command in COMMANDS)
    page = Path(__file__).parents[2] / "docs" / "commands.md"
    helps = [*re.findall(r"^```text\n(Usage: .*?)```", page.read_text(), re.DOTALL | re.MULTILINE), answer.output]
    lines = [line for text in [*helps, replicator("parked", "--help").output] for line in text.splitlines()]
    assert [line for line in lines if len(line) > 80] == []
    assert [line for line in answer.output.splitlines() if line.startswith("  ") and line.endswith("...")] == []


@pytest.mark.parametrize("arguments", [["checkx"], ["check", "--offlinee"], ["inspect"], ["iam", "--role", "cat"]])
def test_a_mistake_in_the_command_line_is_json_where_that_is_asked(arguments: list[str]) -> None:
    answer = replicator(*arguments, "--json")
    assert (answer.code, answer.json["exit_code"]) == (2, 2)
    asked = "replicator" if arguments == ["checkx"] else f"replicator {arguments[0]}"
    (sentence,) = answer.json["errors"]
    assert sentence.endswith(f". `{asked} --help` shows what it takes."), sentence


def test_a_value_that_is_no_choice_is_refused_with_the_choices() -> None:
    said = replicator("rules", "drive", "orders", "--by", "cats").errors
    assert "Invalid value for '--by': 'cats' is not one of 'lambda', 'pods'." in said


def test_the_version_is_an_option_and_completion_can_be_installed() -> None:
    assert re.fullmatch(r"replicator \d+\.\d+.*\n", replicator("--version").output)
    assert "--install-completion" in replicator("--help").output


@pytest.mark.parametrize("arguments", [["checkx"], ["check", "--offlinee"], ["inspect", "orders"]])
def test_a_wrong_command_line_ends_with_2(arguments: list[str]) -> None:
    assert replicator(*arguments).code == 2


def test_version_is_told_to_people_and_scripts() -> None:
    assert replicator("version").output == f"replicator {__version__}\n"
    assert replicator("version", "--json").json == {"version": __version__}


# -- schema --------------------------------------------------------------------------------------------------------


def test_the_stored_schema_is_current() -> None:
    stored = Path(__file__).parents[2] / "config" / "replicator.schema.json"
    assert stored.read_text() == schema_text()


def test_a_name_that_fits_no_pattern_is_refused_by_the_schema_too() -> None:
    properties = json.loads(schema_text())["properties"]
    assert all(properties[name]["additionalProperties"] is False for name in ("regions", "caches", "secrets"))


def test_a_stale_schema_is_told(tmp_path: Path) -> None:
    stale = tmp_path / "schema.json"
    stale.write_text("{}")
    answer = replicator("schema", "--check", str(stale))
    assert answer.code == 1
    assert f"replicator schema > {stale}" in answer.errors
    stale.write_text(replicator("schema").output)
    assert replicator("schema", "--check", str(stale)).code == 0
    missing = replicator("schema", "--check", str(tmp_path / "missing.json"))
    assert missing.code == 1
    assert f"{tmp_path / 'missing.json'}: cannot be read (No such file or directory)" in missing.errors


def test_output_for_which_no_space_is_left_is_no_fault_of_the_program() -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "replicator", "schema"], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    said = "replicator: No space is left for the output. Make room, or write it elsewhere.\n"
    assert (done.returncode, done.stderr) == (1, said)


# -- the file alone ------------------------------------------------------------------------------------------------


def test_check_offline_sends_nothing_and_tells_every_problem(tmp_path: Path) -> None:
    path = tmp_path / "replicator.yaml"
    path.write_text("group: test\nregions: {us: {region: us-east-1, profilee: x}}\n")
    answer = replicator("check", "--offline", "--json", "--config", str(path))
    assert answer.code == 78
    assert f"{path}:2: `regions.us.profilee` is not a known key; did you mean `profile`?" in answer.failures()[0]
    assert len(answer.failures()) == 3


def test_the_configuration_can_be_named_before_the_command_too(tmp_path: Path) -> None:
    answer = replicator("--config", str(tmp_path / "nowhere.yaml"), "check", "--offline")
    assert answer.code == 78
    assert "nowhere.yaml: there is no such file" in answer.output


def test_an_error_is_one_document_with_json_and_a_line_on_standard_error(tmp_path: Path) -> None:
    answer = replicator("status", "--json", "--config", str(tmp_path / "nowhere.yaml"))
    assert answer.code == answer.json["exit_code"] == 78
    assert [f"replicator: {said}\n" for said in answer.json["errors"]] == [answer.errors]


def test_check_names_variables_that_mean_nothing_and_takes_those_of_kubernetes(tmp_path: Path) -> None:
    names = ["REPLICATOR_POLING", "REPLICATOR_PORT", "REPLICATOR_SERVICE_HOST", "REPLICATOR_SERVICE_PORT_HTTP"]
    names += ["REPLICATOR_PORT_9464_TCP_ADDR", "REPLICATOR_SERVICE_PORT", "REPLICATOR_DEBUG"]
    answer = replicator(
        "check",
        "--offline",
        "--config",
        str(tmp_path / "none.yaml"),
        environment=dict.fromkeys(names, "tcp://10.0.0.1"),
    )
    assert answer.code == 78
    (warned,) = answer.errors.splitlines()
    assert "REPLICATOR_POLING is not one of replicator's settings" in warned


# -- init ----------------------------------------------------------------------------------------------------------


@pytest.mark.servers
def test_init_makes_what_the_rules_need_once(world: World) -> None:
    world.table("us")
    world.table("eu")
    dry = world.run("init", "--dry-run", "--enable-streams", "--json").json["steps"]
    assert {step["action"] for step in dry} == {"would create", "would enable with NEW_AND_OLD_IMAGES"}
    assert world.tables("us") == world.tables("eu") == {"orders"}
    assert {step["action"] for step in world.run("init", "--json").json["steps"]} == {"created"}
    own = {"replicator-coordination", "replicator-conflicts-test", "replicator-owed-test"}
    assert world.tables("us") == {"orders", *own}
    assert world.tables("eu") == {"orders", "replicator-side-test", "replicator-owed-test"}  # what its cache is owed
    assert "StreamSpecification" not in world.call("us", "DescribeTable", TableName="orders")["Table"]
    again = world.run("init", "--enable-streams", "--json").json["steps"]
    assert {step["action"] for step in again} == {"exists", "enabled with NEW_AND_OLD_IMAGES"}
    third = world.run("init", "--enable-streams", "--json").json["steps"]
    assert {step["action"] for step in third} == {"exists"}
    assert world.check().code == 0


@pytest.mark.servers
def test_init_finds_nothing_to_do_in_the_worlds_of_these_tests(world: World) -> None:
    world.sound()
    assert {step["action"] for step in world.run("init", "--json").json["steps"]} == {"exists"}


@pytest.mark.servers
def test_init_turns_a_missing_ttl_on(world: World) -> None:
    world.table("eu", "replicator-side-test", {"k": "S"})
    told = [(step["subject"], step["action"]) for step in world.run("init", "--dry-run", "--json").json["steps"]]
    assert ("side table replicator-side-test in eu", "would turn TTL on exp on") in told
    world.run("init")
    described = world.call("eu", "DescribeTimeToLive", TableName="replicator-side-test")["TimeToLiveDescription"]
    assert described == {"TimeToLiveStatus": "ENABLED", "AttributeName": "exp"}


@pytest.mark.servers
def test_init_refuses_a_table_with_another_schema_and_makes_the_others(world: World) -> None:
    world.table("eu", "replicator-side-test")
    answer = world.run("init", "--json")
    assert answer.code == 78
    errors = {step["subject"]: step["error"] for step in answer.json["steps"]}
    assert "its key is pk (S), sk (N) instead of k (S)" in errors.pop("side table replicator-side-test in eu")
    assert set(errors.values()) == {None}


@pytest.mark.servers
def test_init_refuses_another_view_type(world: World) -> None:
    world.table("us", view="NEW_IMAGE")
    world.table("eu")
    answer = world.run("init", "--enable-streams")
    assert answer.code == 78
    assert "The stream of table orders in us has view type NEW_IMAGE" in answer.output


@pytest.mark.servers
def test_init_tells_what_does_not_answer_with_69(world: World) -> None:
    world.config["regions"]["eu"]["endpoint_url"] = "http://127.0.0.1:1"
    answer = world.run("init")
    assert answer.code == 69
    assert "got no answer" in answer.output
    assert "by itself" not in answer.output


# -- inspect -------------------------------------------------------------------------------------------------------


def cached(world: World, key: str, entry: bytes) -> None:
    import redis

    client = redis.Redis.from_url(world.redis_url)
    client.set(f"{world.account}:{key}", entry)
    client.close()


def look(world: World, key: str, *options: str) -> Answer:
    return world.run("inspect", "orders", key, "--json", *options)


@pytest.mark.servers
def test_inspect_shows_one_item_everywhere(world: World) -> None:
    world.sound()
    world.put("us", "orders", pk={"S": "a"}, sk={"N": "1"}, note={"S": "private"})
    world.put("eu", "orders", pk={"S": "a"}, sk={"N": "1"}, note={"S": "private"}, _rep={"S": VERSIONS[1]})
    payload = json.dumps({"sk": {"N": "1"}, "pk": {"S": "a"}, "note": {"S": "private"}}).encode()
    cached(world, "a:1", b"V:" + VERSIONS[1].encode() + b"|" + payload)
    answer = look(world, '{"pk": "a", "sk": 1}')
    assert answer.code == 0
    assert answer.json["agree"] is True
    assert "private" not in answer.said
    places = {place["role"]: place for place in answer.json["places"]}
    assert set(places) == {"source", "replica", "tombstone", "cache"}
    assert places["replica"]["version"] == places["cache"]["version"] == VERSIONS[1]
    assert places["source"]["content_hash"] == places["replica"]["content_hash"] == places["cache"]["content_hash"]
    assert "private" in look(world, '{"pk": {"S": "a"}, "sk": {"N": "1.0"}}', "--values").output


@pytest.mark.servers
def test_inspect_says_what_the_key_looks_like(world: World) -> None:
    world.table("us", view="NEW_AND_OLD_IMAGES")
    answer = look(world, '{"pk": "a"}')
    assert answer.code == 2
    assert "The key is pk (S), sk (N)" in answer.errors


@pytest.mark.servers
def test_inspect_shows_the_other_places_when_one_does_not_answer(world: World) -> None:
    world.sound()
    world.put("us", "orders", pk={"S": "a"}, sk={"N": "1"})
    world.put("eu", "orders", pk={"S": "a"}, sk={"N": "1"}, _rep={"S": VERSIONS[1]})

    def seen() -> dict[str, tuple[str, bool | None]]:
        answer = look(world, '{"pk": "a", "sk": 1}')
        assert answer.code == 69
        assert answer.json["agree"] is None
        assert "got no answer" in answer.errors
        return {place["role"]: (place["state"], place["agrees"]) for place in answer.json["places"]}

    world.config["caches"]["eu_main"]["url"] = "redis://127.0.0.1:1/0"
    assert seen() == {
        "source": ("present", None),
        "replica": ("present", True),
        "tombstone": ("none", None),
        "cache": ("unreachable", None),
    }
    world.config["caches"]["eu_main"]["url"] = world.redis_url
    world.config["regions"]["eu"]["endpoint_url"] = "http://127.0.0.1:1"
    assert seen() == {
        "source": ("present", None),
        "replica": ("unreachable", None),
        "tombstone": ("unreachable", None),
        "cache": ("absent", True),
    }
    plain = world.run("inspect", "orders", '{"pk": "a", "sk": 1}')
    assert plain.code == 69
    assert "Not every place answered" in plain.output


@pytest.mark.servers
def test_inspect_takes_the_bare_value_of_a_simple_key(world: World) -> None:
    world.table("us", "simple", {"id": "N"}, view="NEW_AND_OLD_IMAGES")
    world.table("eu", "simple", {"id": "N"})
    world.rule.update(table="simple", cache=[])
    assert world.run("init").code == 0
    world.put("us", "simple", id={"N": "10"})
    answer = look(world, "10.0")
    assert answer.json["key"] == {"id": {"N": "10"}}
    assert answer.json["places"][0]["state"] == "present"


@pytest.mark.servers
def test_inspect_names_the_rules_when_there_is_none_of_that_name(world: World) -> None:
    answer = world.run("inspect", "orderss", "a")
    assert answer.code == 2
    assert "There is no rule orderss. Perhaps orders is meant. Rules are: orders." in answer.errors


# -- status and rules ----------------------------------------------------------------------------------------------

STREAM = "arn:of:the:stream"
SHARD = {"pk": {"S": f"test|us|{STREAM}"}, "sk": {"S": "shard|s1"}, "sv": {"N": "1"}}
START = {"pk": {"S": f"test|us|{STREAM}"}, "sv": {"N": "1"}, "started_at": {"N": "1"}}


def progress(world: World, rule: str, **shard: dict[str, str]) -> None:
    """Store what a daemon would have stored for a rule."""
    table = "replicator-coordination"
    stream = {"pk": {"S": "test|streams"}, "sk": {"S": "us|orders|0000000000001"}, "sv": {"N": "1"}}
    world.put("us", table, **stream, arn={"S": STREAM})
    world.put(
        "us",
        table,
        **SHARD,
        epoch={"N": "3"},
        owner={"S": "w1"},
        **{f"at:{rule}/replica/eu:orders": {"S": "42"}},
        **shard,
    )
    world.put("us", table, **START, sk={"S": f"target|{rule}/replica/eu:orders"})


def stored(world: World) -> dict[str, dict[str, dict[str, str]]]:
    found = world.items("us", "replicator-coordination")
    return {row["sk"]["S"]: row for row in found if row["pk"]["S"] == f"test|us|{STREAM}"}


@pytest.mark.servers
def test_status_tells_positions_and_owners_when_every_daemon_is_dead(world: World) -> None:
    world.sound()
    progress(world, "orders")
    answer = world.run("status", "--json")
    assert answer.code == 1
    assert [problem["kind"] for problem in answer.json["problems"]] == ["no_worker"]
    (shard,) = answer.json["rules"][0]["shards"]
    assert (shard["shard"], shard["owner"], shard["epoch"]) == ("s1", "w1", 3)
    assert shard["targets"][0]["position"] == "42"
    assert shard["targets"][0]["lag_seconds"] is None
    plain = world.run("status")
    assert "orders\teu\ts1\tw1\t3\t42" in plain.output
    assert "no daemon of this group answers" in plain.errors


@pytest.mark.servers
def test_status_without_the_table_ends_with_a_sentence(world: World) -> None:
    answer = world.run("status", "--json")
    assert answer.code == 78
    assert "replicator init" in answer.errors


@pytest.mark.servers
def test_progress_of_a_rule_that_is_gone_is_reported_and_moves_to_its_new_name(world: World) -> None:
    world.sound()
    progress(world, "before")
    listed = world.run("rules", "--json").json["rules"]
    assert [(rule["name"], rule["configured"], rule["progress"]) for rule in listed] == [
        ("orders", True, []),
        ("before", False, ["us:orders"]),
    ]
    checked = world.check()
    assert checked.code == 78
    assert "replicator rules rename before NEW" in checked.failures()[0]
    pause = {"pk": {"S": "test|rules"}, "sk": {"S": "before"}, "sv": {"N": "1"}, "paused_at": {"N": "5.000"}}
    world.put("us", "replicator-coordination", **pause, note={"S": "maintenance"})
    renamed = world.run("rules", "rename", "before", "orders", "--json")
    assert renamed.json == {"rule": "before", "rows": 3}
    assert [rule["paused"] for rule in world.run("status", "--json").json["rules"]] == [True]
    assert world.run("resume", "orders", "--json").json == {"rule": "orders", "paused": False, "changed": True}
    rows = stored(world)
    assert rows["shard|s1"]["at:orders/replica/eu:orders"] == {"S": "42"}
    assert "at:before/replica/eu:orders" not in rows["shard|s1"]
    assert rows["target|orders/replica/eu:orders"]["started_at"] == {"N": "1"}
    assert "target|before/replica/eu:orders" not in rows
    assert world.check().code == 0


@pytest.mark.servers
def test_a_corrupt_row_is_told_with_its_remedy_and_hides_nothing(world: World) -> None:
    world.sound()
    progress(world, "orders")
    world.put("us", "replicator-coordination", **{**SHARD, "sk": {"S": "shard|s2"}}, epoch={"S": "x"})
    answer = world.check()
    assert answer.code == 78
    (sentence,) = answer.failures()
    assert "shard|s2" in sentence
    assert "Delete the row: its shard is then read again" in sentence
    assert [problem["kind"] for problem in world.run("status", "--json").json["problems"]] == [
        "no_worker",
        "unreadable",
    ]


@pytest.mark.servers
def test_a_rule_that_never_started_on_a_stream_has_no_progress_there(world: World) -> None:
    """A start that was refused leaves the digest of the rule's filter."""
    world.sound()
    progress(world, "orders")
    digest = {**START, "sk": {"S": "target|other/replica/eu:orders"}, "shape": {"S": "x"}}
    del digest["started_at"]
    world.put("us", "replicator-coordination", **digest)
    listed = world.run("rules", "--json").json["rules"]
    assert [(rule["name"], rule["progress"]) for rule in listed] == [("orders", ["us:orders"])]
    assert world.run("status", "--json").json["unconfigured"] == []


@pytest.mark.servers
def test_progress_of_a_rule_that_is_gone_can_be_forgotten(world: World) -> None:
    world.sound()
    progress(world, "before")
    assert world.run("rules", "forget", "before").code == 0
    rows = stored(world)
    assert set(rows) == {"shard|s1"}
    assert "at:before/replica/eu:orders" not in rows["shard|s1"]
    assert ("owner" in rows["shard|s1"], rows["shard|s1"]["epoch"]) == (False, {"N": "4"})


@pytest.mark.servers
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["rename", "orders", "other"], "Rule orders is still in the configuration"),
        (["forget", "orders"], "Rule orders is still in the configuration"),
        (["rename", "before", "other"], "Rule other is not in the configuration"),
        (["forget", "nobody"], "There is no progress of rule nobody"),
    ],
)
def test_progress_in_use_is_never_touched(world: World, arguments: list[str], words: str) -> None:
    world.sound()
    progress(world, "before")
    before = stored(world)
    answer = world.run("rules", *arguments)
    assert answer.code == 78
    assert words in answer.errors
    assert stored(world) == before


@pytest.mark.servers
def test_two_positions_are_never_made_one(world: World) -> None:
    world.sound()
    progress(world, "before", **{"at:orders/replica/eu:orders": {"S": "50"}})
    answer = world.run("rules", "rename", "before", "orders")
    assert answer.code == 78
    assert "has progress of its own" in answer.errors


@pytest.mark.servers
def test_nothing_is_renamed_while_a_worker_is_alive(world: World) -> None:
    world.config["coordination"]["lease"] = "3s"  # a busy machine lets it beat within that
    world.sound()
    progress(world, "before")
    world.put("us", "replicator-coordination", pk={"S": "test|workers"}, sk={"S": "w0"}, beat={"N": "0"}, sv={"N": "1"})
    assert world.run("rules", "rename", "before", "orders").code == 0  # w0 is dead: its heartbeat stands still
    progress(world, "before")
    world.config["rules"].append({**world.rule, "name": "other", "table": "orders-2"})
    world.config["coordination"]["lease"] = "5m"  # it beats in time, however busy the machine is
    daemon = subprocess.Popen(
        [sys.executable, "-c", BEATING, world.endpoint_url, world.account], stdout=subprocess.PIPE, text=True
    )
    try:
        assert daemon.stdout is not None
        daemon.stdout.readline()
        answer = world.run("rules", "forget", "before")
    finally:
        daemon.kill()
        daemon.communicate()
    assert answer.code == 78
    assert "Worker w0 of group test is running." in answer.errors
    assert "at:before/replica/eu:orders" in stored(world)["shard|s1"]


BEATING = """
import sys, itertools, time
from pathlib import Path
from tests.cli.worlds import World
world = World(sys.argv[1], "", sys.argv[2], Path())
for number in itertools.count(1):
    beat = {"beat": {"N": str(number)}, "sv": {"N": "1"}}
    world.put("us", "replicator-coordination", pk={"S": "test|workers"}, sk={"S": "w0"}, **beat)
    print(number, flush=True)
    time.sleep(0.1)
"""
