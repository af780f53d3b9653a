"""A wrong configuration is answered in sentences: the place, the key path, what is allowed; never a value."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from replicator.domain.rules import ActivePlan, KinesisSource
from replicator.settings import DEFAULT_PATH, OrderedRule
from replicator.settings.compiled_rules import rules_of
from replicator.settings.loading import ConfigurationProblems, configuration_path, load

GOOD = """\
group: test
regions:
  us: {region: us-east-1}
  eu: {region: eu-west-1}
coordination: {region: us}
caches:
  eu_main: {region: eu, url: "rediss://cache:6379/0"}
rules:
  - name: orders
    table: orders
    source: us
    replicas:
      - eu
    cache:
      - {cache: eu_main, key: "order:{pk}"}
"""
SECRET = "correct-horse"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "replicator.yaml"


def problems(path: Path, text: str) -> list[str]:
    path.write_text(text)
    with pytest.raises(ConfigurationProblems) as caught:
        load(path)
    assert caught.value.exit_code == 78
    return caught.value.sentences


def changed(old: str, new: str) -> str:
    assert old in GOOD
    return GOOD.replace(old, new)


def test_a_good_file_is_settings(path: Path) -> None:
    path.write_text(GOOD)
    assert load(path).rules[0].replica_tables == [("eu", "orders")]


def test_write_units_are_known_by_region_in_every_mode(path: Path) -> None:
    path.write_text(changed("      - eu\n", "      - {region: eu, write_units: 500}\n"))
    assert load(path).rules[0].write_units == {"eu": 500}
    path.write_text(ACTIVE.replace("- eu", "- {region: eu, write_units: 7}"))
    assert load(path).rules[0].write_units == {"eu": 7}
    path.write_text(GOOD)
    assert load(path).rules[0].write_units == {}


@pytest.mark.parametrize("bound", ["0", "-5", "1.5", "many", "20000000"])
def test_write_units_that_are_none_are_refused_at_their_place(path: Path, bound: str) -> None:
    (told,) = problems(path, changed("      - eu\n", f"      - {{region: eu, write_units: {bound}}}\n"))
    assert "rules[0].replicas[0].write_units" in told


@pytest.mark.parametrize(
    ("text", "line", "parts"),
    [
        (
            changed("      - eu\n", "      - {region: eu, tablee: x}\n"),
            13,
            ["`rules[0].replicas[0].tablee`", "`table`?"],
        ),
        (changed("group: test", "groupp: test"), 1, ["`groupp` is not a known key", "did you mean `group`?", "rules"]),
        (changed("group: test", "Group: test"), 1, ["`Group` is not a known key", "`group`"]),
        (changed("group: test", "_env_file: x\ngroup: test"), 1, ["`_env_file` is not a known key"]),
        (changed("{region: us}", "{region: us, lease: soon}"), 5, ["`coordination.lease` is not a duration", "10s"]),
        (changed("{region: us}", "{region: us, lease: .inf}"), 5, ["`coordination.lease` must be at most ten years"]),
        (changed("{region: us}", "{region: us, lease: -.inf}"), 5, ["`coordination.lease` must be longer than zero"]),
        (changed("{region: us}", "{region: us, lease: .nan}"), 5, ["`coordination.lease` is not a duration"]),
        (changed("{region: us}", "{region: us, lease: inf}"), 5, ["`coordination.lease` must be at most ten years"]),
        (changed("{region: us}", "{region: us, lease: nan}"), 5, ["`coordination.lease` is not a duration"]),
        (changed("{region: us}", "{region: us, lease: 1.0e+300}"), 5, ["`coordination.lease` must be at most ten"]),
        (changed("{region: us}", f"{{region: us, lease: {'9' * 400}d}}"), 5, ["`coordination.lease` must be at most"]),
        (changed("{region: us}", f"{{region: us, lease: {'9' * 400}}}"), 5, ["`coordination.lease` must be at most"]),
        (changed("{region: us}", "{region: us, lease: 3651d}"), 5, ["`coordination.lease` must be at most ten years"]),
        *(
            (changed('"order:{pk}"', f'"order:{{pk}}", {options}'), 15, ["`rules[0].cache[0]`", sentence])
            for options, sentence in (
                ("ttl: 1h", "ttl belongs to the actions refresh and write_through"),
                ("jitter: 10%", "jitter belongs to the actions refresh and write_through"),
                ("action: publish, stream: s, max_bytes: 1KiB", "max_bytes belongs to the actions refresh"),
                ("attributes: [pk]", "attributes belongs to the actions refresh and write_through, and to publish"),
                ("action: refresh, channel: c", "channel belongs to action publish"),
                ("action: publish", "needs a channel or a stream"),
                ("action: publish, channel: c, stream: s", "needs a channel or a stream"),
                ("action: publish, channel: c, maxlen: 5", "maxlen belongs to a stream"),
                ("action: refresh, numbers: number", "numbers belongs to value json, msgpack and hash"),
                ("action: publish, channel: c, values: true, value: msgpack", "messages are JSON"),
            )
        ),
        (
            changed('"order:{pk}"', '"order:{pk}", action: write_through, marker_ttl: 0.4ms'),
            15,
            ["`rules[0].cache[0].marker_ttl`: must be at least 1s"],
        ),
        (
            changed("6379/0", '6379/0", debt: {policy: flush}, prefix: "').replace(
                '"order:{pk}"', '"order:{pk}", action: publish, channel: c'
            ),
            15,
            ["`rules[0].cache[0].action`: caches.eu_main.debt.policy flush drops entries and tells of none"],
        ),
        (
            changed('"order:{pk}"', '"order:{pk}", action: refresh, ttl: 0.4ms'),
            15,
            ["`rules[0].cache[0].ttl`: must be at least 1s"],
        ),
        (changed("6379/0", "6379/abc"), 7, ["`caches.eu_main.url` must end in the number of a database"]),
        (changed("6379/0", "6379?db=x"), 7, ["`caches.eu_main.url` must end in the number of a database"]),
        (changed("6379/0", "6379/0?bogus=1"), 7, ["`caches.eu_main.url` has an unknown option; options are"]),
        (changed("6379/0", "6379/0?decode_responses=yes"), 7, ["`caches.eu_main.url` has an unknown option"]),
        (changed("rediss://cache:6379/0", "redis://cache/0?ssl_ca_certs=x"), 7, ["has a TLS option"]),
        (changed("rediss://cache:6379/0", "rediss://"), 7, ["`caches.eu_main.url` must name a host"]),
        (changed("group: test", "group: [test]"), 1, ["`group` must be text"]),
        (changed("source: us", "source: no"), 11, ["no is false to YAML and text to others", "quote it"]),
        (changed("table: orders", "table: or ders"), 10, ["`rules[0].table` must be a DynamoDB table name"]),
        (changed("table: orders", "table: xy"), 10, ["`rules[0].table` must have at least 3 characters"]),
        (
            changed("rules:\n", "admin: {port: 65536}\nrules:\n"),
            8,
            ["`admin.port` must be less than or equal to 65535"],
        ),
        (changed("rules:\n", "admin: {port: true}\nrules:\n"), 8, ["`admin.port` must be a number; to YAML true is a"]),
        (changed("rules:\n", "telemetry: {endpoint: x, sample: true}\nrules:\n"), 8, ["`telemetry.sample` must be a"]),
        (changed("rules:\n", "drain: true\nrules:\n"), 8, ["`drain` is not a duration", "to YAML true is a truth"]),
        (
            changed('"order:{pk}"', '"order:{pk}", action: refresh, jitter: some%'),
            15,
            ["`rules[0].cache[0].jitter` must be a share, for example 1% or 0.01."],
        ),
        (changed("table: orders", 'table: "or ders-*"'), 10, ["`rules[0].table.glob` must be letters", "wildcards"]),
        (
            changed("table: orders", "table: {globb: x}"),
            10,
            ["`rules[0].table.globb`", "`glob`? Allowed here: glob, tag"],
        ),
        (changed("table: orders", "table: {tag: {}}"), 10, ["`rules[0].table` must have a glob, a tag, or both."]),
        (changed("table: orders", "table: [orders]"), 10, ["`rules[0].table` must be text."]),
        (
            changed("table: orders", "table: orders-*").replace("- eu\n", "- {region: eu, table: copy}\n"),
            13,
            ["`rules[0].replicas[0].table`", "they have the same name everywhere"],
        ),
        (changed("rules:\n", "drain: ٣\nrules:\n"), 8, ["`drain` is not a duration", "250ms"]),
        (changed("rules:\n", "drain: ٣s\nrules:\n"), 8, ["`drain` is not a duration", "250ms"]),
        (changed("rules:\n", "polling: {memory: lots}\nrules:\n"), 8, ["`polling.memory` is not a size", "256MiB"]),
        (
            changed("source: us", "source: us\n    mode: chaotic"),
            12,
            ["`rules[0].mode` must be one of ordered, versioned, active-active."],
        ),
        (changed("source: us", "source: us\n    epoch: x"), 12, ["`rules[0].epoch` must be an integer"]),
        (changed("source: us", "source: us\n    epoch: 1000"), 12, ["`rules[0].epoch`", "999"]),
        (changed("source: us", "source: us\n    filter: {where: '[['}"), 12, ["`rules[0].filter.where`", "JMESPath"]),
        (changed("  us: {", "  usa: {"), 3, ["the name `regions.usa`", "two lower-case letters"]),
        (changed("order:{pk}", "order"), 15, ["`rules[0].cache[0]`", "no {attribute} placeholder"]),
        (changed("rediss:", "http:"), 7, ["`caches.eu_main.url` must begin with rediss://"]),
        (changed("eu-west-1}", "eu-west-1, endpoint_url: nowhere}"), 4, ["`regions.eu.endpoint_url` must be a URL"]),
        (changed("eu-west-1}", "eu-west-1, external_id: x}"), 4, ["`regions.eu`", "role_arn is not"]),
        (changed("rules:\n", "tombstone_ttl: 1h\nrules:\n"), 8, ["`tombstone_ttl`: must be at least 48h"]),
        (changed("source: us", "source: ap"), 11, ["`rules[0].source`: region 'ap' is not one of regions (us, eu)"]),
        (changed("      - eu\n", "      - us\n"), 13, ["`rules[0].replicas[0]`", "is the source of rule 'orders'"]),
        (
            GOOD + "  - {name: orders, table: more, source: us, replicas: [eu]}\n",
            16,
            ["`rules[1].name`", "there twice"],
        ),
    ],
)
def test_a_mistake_is_told_with_its_line_its_key_path_and_what_is_allowed(
    path: Path, text: str, line: int, parts: list[str]
) -> None:
    sentences = problems(path, text)
    told = [sentence for sentence in sentences if sentence.startswith(f"{path}:{line}: ")]
    assert any(all(part in sentence for part in parts) for sentence in told), sentences


ACTIVE = """\
group: test
regions:
  us: {region: us-east-1}
  eu: {region: eu-west-1}
coordination: {region: us}
rules:
  - name: orders
    table: orders
    mode: active-active
    regions:
      - us
      - eu
"""
VERSIONED = ACTIVE.replace("active-active", "versioned") + "    version: revision\n"
MODE = "`rules[0].mode` must be one of ordered, versioned, active-active"
OF_ORDERED = "and this rule's mode is ordered"
OF_ACTIVE = "and this rule's mode is active-active"
IN_ORDERED = (
    "allowed here: cache, canary, epoch, events, filter, insert_guard, mode, name, on_gap, primary_key, refused,"
    " replicas, source, start, stream, table,"
    " ttl_deletes, unstamped, verify."
)
HERE = (
    "allowed here: cache, canary, events, filter, guard, mode, name, on_gap, primary_key, refused, regions, stamp,"
    " start, stream, table, verify."
)


@pytest.mark.parametrize("options", [{"action": "refresh"}, {"action": "write_through"}])
def test_a_mesh_stores_entries_only_where_images_have_an_order(path: Path, options: dict[str, str]) -> None:
    entries = {"cache": [{"cache": "eu_main", "key": "order:{pk}", **options}]}
    caches = {"caches": {"eu_main": {"region": "eu", "url": "redis://127.0.0.1/0"}}}
    for text, problem in ((VERSIONED, None), (ACTIVE, "a cache beside a table that users write allows only")):
        content = yaml.safe_load(text) | caches
        content["rules"][0] |= entries
        if problem is None:
            path.write_text(yaml.safe_dump(content))
            assert load(path).rules[0].cache[0].stores
        else:
            (sentence,) = problems(path, yaml.safe_dump(content))
            assert problem in sentence
    content["rules"][0]["cache"][0] = {"cache": "eu_main", "key": "a:{pk}", "action": "publish", "channel": "c"}
    path.write_text(yaml.safe_dump(content))
    assert load(path).rules[0].cache[0].channel == "c"
    content["rules"][0]["cache"][0]["values"] = True
    (sentence,) = problems(path, yaml.safe_dump(content))
    assert "without values" in sentence


@pytest.mark.parametrize("text", [GOOD, ACTIVE, VERSIONED])
def test_every_mode_has_a_good_file(path: Path, text: str) -> None:
    path.write_text(text)
    assert load(path).rules[0].name == "orders"


@pytest.mark.parametrize(
    ("text", "line", "sentence"),
    [
        (
            ACTIVE + "    source: us\n",
            13,
            f"`rules[0].source` belongs to mode ordered, {OF_ACTIVE}; {HERE}",
        ),
        (
            ACTIVE + "    version: ver\n",
            13,
            f"`rules[0].version` belongs to mode versioned, {OF_ACTIVE}; {HERE}",
        ),
        (
            ACTIVE + "    filter: {where: 'a'}\n",
            13,
            f"`rules[0].filter.where` belongs to mode ordered, {OF_ACTIVE}; allowed here: equals, key_prefix.",
        ),
        (
            GOOD + "    regions: [us, eu]\n",
            16,
            f"`rules[0].regions` belongs to modes versioned and active-active, {OF_ORDERED}; {IN_ORDERED}",
        ),
        (ACTIVE + "    stampp: x\n", 13, "`rules[0].stampp` is not a known key; did you mean `stamp`? A" + HERE[1:]),
        (ACTIVE + "    ordered: x\n", 13, f"`rules[0].ordered` is not a known key; {HERE}"),
        (
            ACTIVE + "    filter: {equals: {pk: [1]}}\n",
            13,
            "`rules[0].filter.equals.pk` must be text or a number.",
        ),
        (
            GOOD + "    filter: {equals: {a: [1]}}\n",
            16,
            "`rules[0].filter.equals.a` must be text, a number, true, false or null.",
        ),
        (ACTIVE + "    guard: none\n", 13, "`rules[0].guard` must be 'read' or 'optimistic'."),
        (
            ACTIVE.replace("active-active", "true"),
            9,
            f"{MODE}; to YAML true is a truth value: quote it if it is text.",
        ),
        (ACTIVE.replace("      - eu\n", ""), 10, "`rules[0].regions` needs at least 2 elements."),
        (
            ACTIVE.split("    regions", maxsplit=1)[0],
            7,
            "`rules[0].regions` is missing (every region; users may write in each).",
        ),
        (
            ACTIVE.replace("- eu", "- {region: eu, tablee: x}"),
            12,
            (
                "`rules[0].regions[1].tablee` is not a known key; did you mean `table`? Allowed here: region, stream,"
                " table, write_units."
            ),
        ),
        (ACTIVE.replace("- eu", "- us"), 12, "`rules[0].regions[1].region`: region 'us' is there twice."),
        (
            ACTIVE.replace("- eu", "- ap"),
            12,
            "`rules[0].regions[1].region`: region 'ap' is not one of regions (us, eu).",
        ),
        (VERSIONED.replace("version: rev", "versions: rev"), 7, "`rules[0].version` is missing."),
        (
            VERSIONED.replace("revision", "{attribute: at, type: uuid}"),
            13,
            "`rules[0].version.type` must be 'number', 'string' or 'time'.",
        ),
    ],
)
def test_a_rule_is_judged_by_the_keys_of_its_own_mode(path: Path, text: str, line: int, sentence: str) -> None:
    assert f"{path}:{line}: {sentence}" in problems(path, text)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "is empty"),
        ("# nothing\n", "is empty"),
        ("group: [a\n", ":2:1: is not YAML"),
        ("group: \x01\n", ":1: is not YAML: it must not hold the character U+0001."),
        ("a: 1\nb: 2\nc: x\0\n", ":3: is not YAML: it must not hold the character U+0000."),
        (f"a: {'[' * 3000}", ": is not YAML: lists and mappings lie in one another too deeply."),
        (f"group: test  # {'x' * 2**23}\n", ": is longer than 8 MiB, which no configuration is"),
        ("- group\n", "is not a mapping"),
        ("just words\n", "is not a mapping"),
        ("a: 1\n---\nb: 2\n", "is not YAML"),
        ("group: a\nregions: {}\ngroup: b\n", ":3: key `group` is there twice (first in line 1)"),
        ("regions: {no: {region: eu-north-1}}\n", ":1: a key is not text to YAML"),
        ("group: 2020-13-45\n", ":1: a value is to YAML a date, a time, or a number in another notation"),
        ("a: {b: [x, 2e+06]}\n", ":1: a value with an exponent is a number to some programs and text to others"),
        ("a:\n  b: 1e-07\n", ":2: a value with an exponent"),
        ("a: 12e4567\n", ":1: a value with an exponent"),
        ("a: {b: [NO]}\n", ":1: NO is false to YAML and text to others: write false, or quote it"),
        ("a: On\n", ":1: On is true to YAML"),
        ("a: 01234\n", ":1: a value is to YAML a date, a time, or a number in another notation"),
        ("a:\n  b: 12:30:45\n", ":2: a value is to YAML a date, a time"),
        ("a: 12:30\n", ":1: a value is to YAML a date, a time"),
        ("a: 2026-01-01\n", ":1: a value is to YAML a date"),
        ("a: 2026-01-01T00:00:00Z\n", ":1: a value is to YAML a date"),
        ("a: 1_000\n", ":1: a value is to YAML a date, a time, or a number in another notation"),
        ("a: 0b11\n", ":1: a value is to YAML"),
        ("a: 1_0.5\n", ":1: a value is to YAML"),
        ("a: 0.1234567890123456\n", ":1: a number with a fraction keeps 15 digits"),
    ],
)
def test_a_file_that_is_no_configuration_says_so(path: Path, text: str, part: str) -> None:
    (sentence,) = problems(path, text)
    assert sentence.startswith(str(path))
    assert part in sentence


@pytest.mark.parametrize(
    ("password", "mark"),
    [
        (f"*{SECRET}", "*"),
        (f"!{SECRET}", "!"),
        (f'!{SECRET} "x"', "!"),
        (f"!{SECRET}!x", "!"),
        (f"!!{SECRET} x", "!"),
        (f"&{SECRET} x\n    username: &{SECRET} y", "&"),
    ],
)
def test_a_secret_that_begins_with_a_mark_of_yaml_is_not_told(path: Path, password: str, mark: str) -> None:
    text = f"group: test\ncaches:\n  eu_main:\n    password: {password}\n"
    (sentence,) = problems(path, text)
    assert re.search(rf":[45](:\d+)?: .*a value that begins with \{mark} .*: quote it if it is text\.$", sentence), (
        sentence
    )
    assert SECRET not in sentence


def test_missing_keys_are_named_with_what_they_are(path: Path) -> None:
    sentences = problems(path, "group: test\n")
    assert f"{path}: `rules` is missing." in sentences
    assert f"{path}: `coordination` is missing." in sentences


@pytest.mark.parametrize(
    "url",
    [
        "rediss://cache:6379",
        "redis://h/7?client_name=x",
        "unix:///run/x.sock?db=2",
        "unix:///run/a@b.sock",
        "unix://user:pw@/run/x.sock",  # pragma: allowlist secret
        "rediss://h/0?ssl_cert_reqs=none",
        "redis://user:p@ss@h:6379/0",  # pragma: allowlist secret
        "redis://:p%40%2F%23%3F@[::1]:6379/0",
    ],
)
def test_urls_of_caches_with_options_are_taken(path: Path, url: str) -> None:
    path.write_text(changed("rediss://cache:6379/0", url))
    assert load(path).caches["eu_main"].url == url


@pytest.mark.parametrize("scheme", ["rediss", "redis", "unix"])
@pytest.mark.parametrize(
    "password", [f"x?{SECRET}", f"x/{SECRET}", f"x#{SECRET}", f"12/{SECRET}", f"@/{SECRET}", f"x%{SECRET}"]
)
def test_a_password_that_a_url_cannot_hold_as_it_is_is_refused_and_not_told(
    path: Path, scheme: str, password: str
) -> None:
    place = "/run/cache.sock" if scheme == "unix" else "cache:6379/0"
    for user in ("", "user"):
        url = f"{scheme}://{user}:{password}@{place}"  # pragma: allowlist secret
        (sentence,) = problems(path, changed("rediss://cache:6379/0", url))
        assert "`caches.eu_main.url` must not hold / ? # or @ behind the host" in sentence
        assert "username and password" in sentence
        assert SECRET not in sentence


@pytest.mark.parametrize("port", ["port", "0", "99999", "-1", "6379x"])
def test_a_url_without_a_port_that_can_be_is_refused(path: Path, port: str) -> None:
    (sentence,) = problems(path, changed("cache:6379/0", f"cache:{port}/0"))
    assert "`caches.eu_main.url` must have the number of a port" in sentence


@pytest.mark.parametrize("key", ["username", "password"])
def test_credentials_of_a_cache_stand_in_one_place(path: Path, key: str) -> None:
    url = f'"rediss://user:{SECRET}@cache:6379/0"'  # pragma: allowlist secret
    text = changed('"rediss://cache:6379/0"', f"{url}, {key}: {SECRET}")
    (sentence,) = problems(path, text)
    assert "`caches.eu_main` has credentials in its url and in username or password" in sentence
    assert SECRET not in sentence


def test_every_problem_is_told_at_once(path: Path) -> None:
    text = changed("source: us", "source: us\n    epoch: x").replace("group: test", "group: T!")
    assert len(problems(path, text)) == 2


def test_a_file_that_is_not_there_names_the_ways_to_name_one(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigurationProblems, match=r"there is no such file; name .* --config PATH or REPLICATOR_CONFIG"
    ):
        load(tmp_path / "nowhere.yaml")


def test_a_directory_or_binary_file_is_told(path: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationProblems, match="cannot be read"):
        load(tmp_path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigurationProblems, match="not UTF-8"):
        load(path)


@pytest.mark.parametrize(
    "value", ["true", "False", "0", "-7", "31", "1.50", "0.001", ".5", "1.0e-7", "1.0e+3", "0x1F", "~", "null", "-.inf"]
)
def test_a_scalar_that_means_the_same_to_every_reader_is_taken(path: Path, value: str) -> None:
    (sentence,) = problems(path, GOOD + f"other: {value}\n")
    assert "`other` is not a known key" in sentence


@pytest.mark.parametrize("value", ["'NO'", '"01234"', "'12:30:45'", "'2026-01-01'", "no-one", "1.2.3", "10s", "v1_0"])
def test_text_is_text(path: Path, value: str) -> None:
    path.write_text(GOOD + f"    filter: {{equals: {{country: {value}}}}}\n")
    rule = load(path).rules[0]
    assert isinstance(rule, OrderedRule)
    assert rule.filter.equals == {"country": value.strip("'\"")}


@pytest.mark.parametrize(("value", "read"), [("true", True), ("false", False), ("null", None), ("1.5", 1.5)])
def test_a_filter_compares_with_any_scalar(path: Path, value: str, read: object) -> None:
    path.write_text(GOOD + f"    filter: {{equals: {{active: {value}}}}}\n")
    rule = load(path).rules[0]
    assert isinstance(rule, OrderedRule)
    assert rule.filter.equals == {"active": read}


@pytest.mark.parametrize(
    ("conditions", "words"),
    [
        ("where: 'status == \"active\"'", "`rules[0].filter.where` compares an attribute with another one"),
        ("where: 'active == true'", "`rules[0].filter.where` compares with an attribute of the name true or false"),
        ("where: '`false`'", "`rules[0].filter.where` can never hold"),
        (
            "{key_prefix: {pk: a}, equals: {pk: b}}",
            "`rules[0].filter` has under equals.pk what key_prefix.pk rules out",
        ),
        (
            "{key_prefix: {pk: a}, equals: {pk: 1}}",
            "`rules[0].filter` has under equals.pk what key_prefix.pk rules out",
        ),
        ("equals: {n: 1.0e+126}", "`rules[0].filter` has a number under equals.n that DynamoDB cannot hold"),
        ("equals: {n: .nan}", "`rules[0].filter` has a number under equals.n that DynamoDB cannot hold"),
        (f"equals: {{n: {'1' * 39}}}", "`rules[0].filter` has a number under equals.n that DynamoDB cannot hold"),
    ],
)
def test_a_filter_that_can_match_nothing_is_refused(path: Path, conditions: str, words: str) -> None:
    text = conditions if conditions.startswith("{") else f"{{{conditions}}}"
    (sentence,) = problems(path, GOOD + f"    filter: {text}\n")
    assert words in sentence


@pytest.mark.parametrize("number", ["1" * 38, "9.9e+125", "1.0e-130", "0", "-3", "1" + "0" * 100])
def test_a_number_that_dynamodb_holds_may_be_asked_for(path: Path, number: str) -> None:
    path.write_text(GOOD + f"    filter: {{equals: {{n: {number}}}}}\n")
    assert isinstance(load(path).rules[0], OrderedRule)


def test_a_merged_mapping_keeps_its_lines(path: Path) -> None:
    text = changed("  us: {region: us-east-1}", "  us: &us {region: us-east-1}").replace(
        "  eu: {region: eu-west-1}", "  eu: {<<: *us, regionn: x}"
    )
    (sentence,) = problems(path, text)
    assert sentence.startswith(f"{path}:4: `regions.eu.regionn` is not a known key; did you mean `region`?")


# -- environment and secrets ---------------------------------------------------------------------------------------


def test_the_environment_wins_over_secrets_and_these_over_the_file(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path.write_text(GOOD)
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    (secrets / "caches__eu_main__password").write_text(SECRET)
    (secrets / "drain").write_text("7s")
    monkeypatch.setenv("REPLICATOR_SECRETS_DIR", str(secrets))
    monkeypatch.setenv("REPLICATOR_DRAIN", "9s")
    settings = load(path)
    password = settings.caches["eu_main"].password
    assert password is not None
    assert password.get_secret_value() == SECRET
    assert settings.drain.total_seconds() == 9


def test_a_mistake_in_the_environment_says_that_it_stands_there(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REPLICATOR_ADMIN__PORT", "seven")
    assert problems(path, GOOD) == ["the environment (REPLICATOR_...): `admin.port` must be an integer."]


def test_what_is_missing_is_told_where_the_rest_stands(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    of_file = f"{path}:7: `caches.eu_main.region` is missing."
    of_environment = "the environment (REPLICATOR_...): `caches.more.region` is missing."
    monkeypatch.setenv("REPLICATOR_CACHES__EU_MAIN__PASSWORD", SECRET)
    monkeypatch.setenv("REPLICATOR_CACHES__MORE__URL", "redis://cache")
    assert problems(path, changed("region: eu, url", "url")) == [of_file, of_environment]
    monkeypatch.delenv("REPLICATOR_CACHES__MORE__URL")
    monkeypatch.setenv("REPLICATOR_RULES", '[{"name": "orders", "source": "us"}]')
    sentences = problems(path, GOOD)
    assert all(sentence.startswith("the environment (REPLICATOR_...): `rules[0].") for sentence in sentences), sentences


def test_a_variable_that_names_no_setting_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REPLICATOR_CACHE__EU_MAIN__PASSWORD", SECRET)
    (sentence,) = problems(path, GOOD)
    assert "REPLICATOR_CACHE__EU_MAIN__PASSWORD names no setting" in sentence
    assert "REPLICATOR_CACHES" in sentence
    assert SECRET not in sentence


def test_variables_of_the_program_itself_are_no_settings(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path.write_text(GOOD)
    monkeypatch.setenv("REPLICATOR_CONFIG", str(path))
    assert load(configuration_path(None)).group == "test"
    assert configuration_path(Path("other.yaml")) == Path("other.yaml")
    monkeypatch.delenv("REPLICATOR_CONFIG")
    assert configuration_path(None) == DEFAULT_PATH


def test_a_collection_in_the_environment_that_is_not_json_is_told(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REPLICATOR_RULES", SECRET)
    (sentence,) = problems(path, GOOD)
    assert sentence == "the environment: `rules` must be written as JSON there."
    monkeypatch.delenv("REPLICATOR_RULES")
    monkeypatch.setenv("REPLICATOR_ADMIN", SECRET)
    (sentence,) = problems(path, GOOD)
    assert sentence.endswith("`admin` must be written as JSON there, or by its parts: REPLICATOR_ADMIN__<key>.")


@pytest.mark.parametrize("name", ["caches__eu_main__passwordd", "cache__eu_main__password"])
def test_a_secret_under_a_wrong_name_is_told_without_its_value(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    (secrets / name).write_text(SECRET)
    monkeypatch.setenv("REPLICATOR_SECRETS_DIR", str(secrets))
    (sentence,) = problems(path, GOOD)
    assert str(secrets) in sentence
    assert SECRET not in sentence


@pytest.fixture
def secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty secrets directory."""
    directory = tmp_path / "secrets"
    directory.mkdir()
    monkeypatch.setenv("REPLICATOR_SECRETS_DIR", str(directory))
    return directory


PASSWORD_FILE = "caches__eu_main__password"


def password_of(path: Path, cache: str = "eu_main") -> str | None:
    password = load(path).caches[cache].password
    return None if password is None else password.get_secret_value()


def test_a_link_out_of_the_secrets_directory_is_followed(path: Path, secrets: Path, tmp_path: Path) -> None:
    path.write_text(GOOD)
    (tmp_path / "elsewhere").write_text(f"{SECRET}\n")
    (secrets / PASSWORD_FILE).symlink_to(tmp_path / "elsewhere")
    assert password_of(path) == SECRET


def test_a_directory_as_kubernetes_mounts_it_is_read(path: Path, secrets: Path) -> None:
    path.write_text(GOOD)
    version = secrets / "..2026_01_01"
    version.mkdir()
    (version / PASSWORD_FILE).write_text(SECRET)
    (secrets / "..data").symlink_to("..2026_01_01")
    (secrets / PASSWORD_FILE).symlink_to(f"..data/{PASSWORD_FILE}")
    assert password_of(path) == SECRET


def test_a_file_that_names_no_setting_is_left_alone_whatever_it_holds(path: Path, secrets: Path) -> None:
    path.write_text(GOOD)
    (secrets / "keystore.jks").write_bytes(bytes(range(256)))
    (secrets / "nowhere").symlink_to("gone")
    (secrets / "more").mkdir()
    (secrets / PASSWORD_FILE).write_text(SECRET)
    assert password_of(path) == SECRET


def unusable_link(entry: Path) -> str:
    entry.symlink_to("gone")
    return "is a link that leads nowhere"


def unusable_directory(entry: Path) -> str:
    entry.mkdir()
    return "is a directory"


def unusable_bytes(entry: Path) -> str:
    entry.write_bytes(b"\xff\xfe")
    return "is not UTF-8 text"


def unusable_length(entry: Path) -> str:
    entry.write_text("x" * (2**20 + 1))
    return "is longer than 1 MiB"


def unusable_twin(entry: Path) -> str:
    entry.write_text(SECRET)
    entry.with_name(entry.name.upper()).write_text(SECRET)
    return "is the same setting as"


@pytest.mark.parametrize("breaks", [unusable_link, unusable_directory, unusable_bytes, unusable_length, unusable_twin])
def test_a_file_that_names_a_setting_and_cannot_be_used_is_refused_with_its_name(
    path: Path, secrets: Path, breaks: Callable[[Path], str]
) -> None:
    words = breaks(secrets / PASSWORD_FILE)
    (sentence,) = problems(path, GOOD)
    assert sentence.startswith(str(secrets / PASSWORD_FILE))
    assert words in sentence


def test_a_secrets_directory_that_is_named_must_be_there(path: Path, secrets: Path) -> None:
    secrets.rmdir()
    (sentence,) = problems(path, GOOD)
    assert sentence == f"the secrets directory {secrets}: cannot be read (No such file or directory)."


@pytest.mark.parametrize("written", ["eu-main", "eu_main"])
def test_a_name_with_a_hyphen_is_set_from_a_file_and_by_the_environment(
    path: Path, secrets: Path, monkeypatch: pytest.MonkeyPatch, written: str
) -> None:
    path.write_text(GOOD.replace("eu_main", "eu-main"))
    (secrets / f"caches__{written}__password").write_text("from a file")
    assert password_of(path, "eu-main") == "from a file"
    monkeypatch.setenv("REPLICATOR_CACHES__EU_MAIN__PASSWORD", SECRET)
    assert password_of(path, "eu-main") == SECRET
    monkeypatch.setenv("REPLICATOR_CACHES__EU_MAIN__PASSWORDD", SECRET)
    (sentence,) = problems(path, path.read_text())
    assert sentence.startswith("the environment (REPLICATOR_...): `caches.eu-main.passwordd` is not a known key")


def test_more_targets_than_one_row_can_hold_are_refused(path: Path) -> None:
    content = yaml.safe_load(GOOD)
    (rule,) = content["rules"]

    def rules(count: int) -> str:
        many = [{**rule, "name": f"r{n}", "replicas": [{"region": "eu", "table": f"to-{n}"}]} for n in range(count)]
        return yaml.safe_dump({**content, "rules": many})

    path.write_text(rules(80))
    assert len(load(path).rules) == 80
    (sentence,) = problems(path, rules(81))
    assert "table orders in region us is brought to 81 targets; at most 80 may follow one" in sentence


@pytest.mark.parametrize(
    ("primary_key", "template", "lacking"),
    [
        (["pk"], "order:{email}", "pk"),
        (["pk", "sk"], "order:{pk}", "sk"),
        (["pk", "sk"], "order:{email}", "pk and sk"),
        (["pk", "sk"], "order:{sk}:{email}:{pk}", None),
        ([], "order:{email}", None),
    ],
)
def test_a_refreshed_template_without_the_whole_primary_key_is_refused(
    path: Path, primary_key: list[str], template: str, lacking: str | None
) -> None:
    content = yaml.safe_load(GOOD)
    content["rules"][0] |= {
        "primary_key": primary_key,
        "cache": [{"cache": "eu_main", "key": template, "action": "refresh"}],
    }
    if lacking is None:
        path.write_text(yaml.safe_dump(content))
        assert load(path).rules[0].primary_key == primary_key
        return
    (sentence,) = problems(path, yaml.safe_dump(content))
    assert f"`rules[0].cache[0].key`: lacks {lacking} of the primary key" in sentence
    content["rules"][0]["cache"][0]["action"] = "invalidate"
    path.write_text(yaml.safe_dump(content))
    assert load(path).rules[0].cache[0].action == "invalidate"


def test_a_filter_of_a_mesh_over_other_attributes_than_the_key_is_refused(path: Path) -> None:
    text = ACTIVE + "    primary_key: [pk]\n    filter: {key_prefix: {pk: a}, equals: {country: se}}\n"
    (sentence,) = problems(path, text)
    assert "`rules[0].filter.equals`: 'country' is no attribute of primary_key" in sentence


def test_two_names_that_are_one_in_the_environment_are_refused(path: Path) -> None:
    content = yaml.safe_load(GOOD)
    content["caches"]["eu-main"] = content["caches"]["eu_main"]
    content["rules"] = [{**content["rules"][0], "name": name} for name in ("a-b", "a_b")]
    found = "".join(problems(path, yaml.safe_dump(content, sort_keys=False)))
    assert "`caches.eu-main`: 'eu-main' and 'eu_main' are one name in the environment" in found
    assert "`rules[1].name`: 'a_b' and 'a-b' are one name in the environment" in found


@pytest.mark.parametrize(
    "broken",
    [
        {"url": f"http://user:{SECRET}@cache"},  # pragma: allowlist secret
        {"password": [SECRET]},
        {"password": SECRET, "passwordd": SECRET},
        {"username": {"x": SECRET}},
    ],
)
def test_no_sentence_holds_a_value(path: Path, broken: dict[str, Any]) -> None:
    content = yaml.safe_load(GOOD)
    content["caches"]["eu_main"] |= broken
    assert SECRET not in "".join(problems(path, yaml.safe_dump(content)))


def test_an_error_of_yaml_holds_no_value(path: Path) -> None:
    assert SECRET not in "".join(problems(path, f"caches: {{eu: {{password: {SECRET}: {SECRET}}}\n"))


# -- streams -------------------------------------------------------------------------------------------------------

KINESIS = "    stream: {kinesis: changes}\n"


def streams(path: Path, text: str) -> list[Any]:
    """Where the rule is read, by region."""
    path.write_text(text)
    settings = load(path)
    return [(rule.source, rule.stream) for rule in rules_of(settings)]


def test_a_stream_stands_at_the_rule_or_at_a_region(path: Path) -> None:
    changes = KinesisSource("changes")
    assert streams(path, GOOD) == [("us", None)]
    assert streams(path, GOOD + KINESIS) == [("us", changes)]
    at_source = GOOD.replace("source: us", "source: {region: us, stream: {kinesis: changes}}")
    assert streams(path, at_source) == [("us", changes)]
    assert streams(path, GOOD.replace("source: us", "source: {region: us}")) == [("us", None)]
    arn = "arn:aws:kinesis:us-east-1:111122223333:stream/changes"
    slow = f"    stream: {{kinesis: '{arn}', precision: millisecond, reorder: 5s}}\n"
    assert streams(path, GOOD + slow) == [("us", KinesisSource(arn, in_microseconds=False, reorder_seconds=5.0))]
    assert streams(path, ACTIVE + KINESIS) == [("us", changes), ("eu", changes)]
    mixed = ACTIVE.replace("      - eu\n", "      - {region: eu, stream: {kinesis: others}}\n")
    assert streams(path, mixed) == [("us", None), ("eu", KinesisSource("others"))]


def test_shards_are_pushed_in_one_region_and_polled_in_another_to_a_consumer_of_each_table(path: Path) -> None:
    pushed = "      - {region: eu, stream: {kinesis: others, fan_out: true}}\n"
    mixed = ACTIVE.replace("      - us\n", "      - {region: us, stream: {kinesis: changes}}\n")
    eu = KinesisSource("others", group="test")
    assert streams(path, mixed.replace("      - eu\n", pushed)) == [("us", KinesisSource("changes")), ("eu", eu)]
    source = KinesisSource("others", group="g" * 64)
    names = [source.consumer_of(table) for table in ("orders", "x" * 255, "x" * 254 + "y")]
    assert len({*names, KinesisSource("others", group="g").consumer_of("orders")}) == 4
    assert all(re.fullmatch(r"[a-zA-Z0-9_.-]{1,128}", name) for name in names)
    assert KinesisSource("others").consumer_of("orders") == ""


def test_nothing_is_looked_for_ahead_where_a_source_keeps_no_order(path: Path) -> None:
    path.write_text(ACTIVE.replace("      - eu\n", "      - {region: eu, stream: {kinesis: others}}\n"))
    plans = {rule.source: rule.mesh for rule in rules_of(load(path))}
    looks = {region: plan.policy.look_ahead for region, plan in plans.items() if isinstance(plan, ActivePlan)}
    assert looks == {"us": True, "eu": False}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (GOOD + "    stream: {kinesis: 'no name'}\n", "`rules[0].stream.kinesis`"),
        (GOOD + "    stream: {kinesis: changes, precision: second}\n", "must be 'microsecond' or 'millisecond'"),
        (GOOD + "    stream: {kinesis: changes, reorder: 61s}\n", "must be at most 60s"),
        (ACTIVE + "    stream: {kinesis: changes, precision: millisecond}\n", "would have one version"),
        (GOOD.replace("source: us", "source: {region: us, table: x}"), "has 'table', which is no key here"),
        (
            GOOD.replace("source: us", "source: {region: us, stream: {kinesis: a}}") + KINESIS,
            "names a stream at the rule and at its source; leave one out",
        ),
        (GOOD.replace("table: orders", 'table: "orders-*"') + KINESIS, "chooses its tables, and which of them send"),
    ],
)
def test_a_stream_that_cannot_be_read_is_refused_with_one_sentence(path: Path, text: str, sentence: str) -> None:
    (found,) = problems(path, text)
    assert sentence in found


def test_rules_that_read_one_table_read_it_in_one_stream(path: Path) -> None:
    other = "  - {name: again, table: orders, source: us, replicas: [{region: eu, table: other}]}\n"
    (found,) = problems(path, GOOD + KINESIS + other)
    assert "rules 'orders' and 'again' read table 'orders' in region 'us' in different streams" in found
