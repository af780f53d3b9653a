"""What in the chart is made from elsewhere.

`config` in the schema of its values comes from the program's settings, its README from the comments of its values,
alerts and dashboards from the files in `config/`, since Helm reads nothing outside of a chart. `generate.py` writes
them; `generate.py --check` only says which of them are stale.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from replicator.settings.schema import settings_schema

_PLACE = "#/definitions/config."
_PLAIN = {"string", "number", "integer", "boolean", "null"}
CHART = Path(__file__).parent / "replicator"
_README = """\
# replicator

{description}

    helm install replicator helm/replicator --values my-values.yaml
    helm test replicator

[`ci/`](ci) has whole examples: [the least](ci/minimal-values.yaml), [small, with a cache](ci/example-values.yaml),
[everything on](ci/full-values.yaml), [a role by IRSA](ci/irsa-values.yaml),
[by Pod Identity](ci/pod-identity-values.yaml), [two accounts](ci/cross-account-values.yaml),
[IPv6 only](ci/ipv6-values.yaml), [many rules](ci/many-rules-values.yaml),
[conflict files](ci/conflict-files-values.yaml), [a Redis cluster by TLS](ci/cache-cluster-values.yaml). Values that
the chart does not know are refused, in `config` too. [Operations](../../docs/operations.md) describes a day with it.

This page is made from the comments of [`values.yaml`](values.yaml).

| Value | Default | |
|---|---|---|
{rows}
"""


@dataclass
class _Value:
    path: str
    default: str
    about: list[str] = field(default_factory=list)


def main() -> int:
    """Write, or with `--check` compare; returns the exit code."""
    parser = argparse.ArgumentParser(description="Make the chart's schema of values, its README and its files.")
    parser.add_argument("--check", action="store_true", help="fail when one is stale")
    options = parser.parse_args()
    made = _made()
    stale = [path for path, text in made.items() if not path.is_file() or path.read_text() != text]
    for path in stale:
        if options.check:
            print(f"{path} is stale: run `make schema` and commit the result.", file=sys.stderr)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(made[path])
    return 1 if options.check and stale else 0


def _made() -> dict[Path, str]:
    schema = CHART / "values.schema.json"
    chart = (CHART / "Chart.yaml").read_text()
    description = re.search(r"^description: (.*)$", chart, re.MULTILINE)
    assert description is not None
    rows = "\n".join(_row(value) for value in _values((CHART / "values.yaml").read_text()))
    config = CHART.parents[1] / "config"
    dashboards = {CHART / "files" / "dashboards" / path.name: path for path in (config / "grafana").glob("*.json")}
    copied = {CHART / "files" / "alerts.yaml": config / "prometheus" / "alerts.yaml"} | dashboards
    return {
        **{to: path.read_text() for to, path in copied.items()},
        schema: json.dumps(_with_config(json.loads(schema.read_text())), indent=2) + "\n",
        CHART / "README.md": _README.format(description=f"{description[1]}.", rows=rows),
    }


def _with_config(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema of the values with the program's settings as `config`, as an object or as the text of a file."""
    settings = _moved(settings_schema())
    definitions = settings.pop("$defs")
    settings, definitions = (_plainer(part, definitions) for part in (settings, definitions))
    own = {name: value for name, value in schema["definitions"].items() if not name.startswith("config")}
    schema["definitions"] = own | {"config": settings} | {f"config.{name}": definitions[name] for name in definitions}
    schema["properties"]["config"] = {
        "type": ["object", "string", "null"],
        "if": {"type": "object"},
        "then": {"$ref": "#/definitions/config"},
    }
    return schema


def _moved(node: Any) -> Any:
    """The same with references to where the definitions stand in the chart's schema."""
    if isinstance(node, dict):
        return {
            key: value.replace("#/$defs/", _PLACE) if key == "$ref" else _moved(value) for key, value in node.items()
        }
    return [_moved(entry) for entry in node] if isinstance(node, list) else node


def _plainer(node: Any, definitions: dict[str, Any]) -> Any:
    """The same with fewer alternatives, of which a refusal would list each.

    Those that one key tells apart (`mode` of a rule) become a choice by it, plain ones of different types become one.
    """
    if isinstance(node, list):
        return [_plainer(entry, definitions) for entry in node]
    if not isinstance(node, dict):
        return node
    node = {key: _plainer(value, definitions) for key, value in node.items()}
    plain = node.get("anyOf", [])
    types = [entry["type"] for entry in plain if entry.get("type") in _PLAIN and not {"enum", "const"} & set(entry)]
    if types and len(set(types)) == len(plain):
        merged = {key: value for entry in node.pop("anyOf") for key, value in entry.items()}
        return node | merged | {"type": types}
    choices = [definitions.get(entry.get("$ref", "").removeprefix(_PLACE), {}) for entry in node.get("oneOf", [])]
    told = [
        name for name in (choices or [{}])[0].get("properties", {}) if all(_constant(each, name) for each in choices)
    ]
    return _choice(node, choices, told[0]) if told else node


def _constant(choice: dict[str, Any], name: str) -> str | None:
    found: str | None = choice.get("properties", {}).get(name, {}).get("const")
    return found


def _choice(node: dict[str, Any], choices: list[dict[str, Any]], name: str) -> dict[str, Any]:
    """One of the alternatives, by the key with this name; a default is chosen where the key is left out."""
    needed = [[name] if name in choice.get("required", ()) else [] for choice in choices]
    chosen = [
        {"if": {"properties": {name: {"const": _constant(choice, name)}}, "required": required}, "then": reference}
        for choice, required, reference in zip(choices, needed, node["oneOf"], strict=True)
    ]
    return {
        "type": "object",
        "properties": {name: {"enum": [_constant(choice, name) for choice in choices]}},
        "required": [name] if all(needed) else [],
        "allOf": chosen,
    }


def _values(text: str) -> Iterator[_Value]:
    """Each value with the comment above it; a comment above a group of values is the group's."""
    parents: list[str] = []
    about: list[str] = []
    for line in text.splitlines():
        comment = re.fullmatch(r" *# ?(.*)", line)
        entry = re.fullmatch(r"( *)([A-Za-z]+):(?: (.*))?", line)
        if comment:
            about.append(comment[1])
        elif entry:
            depth = len(entry[1]) // 2
            parents[depth:] = [entry[2]]
            default = entry[3] or ""
            if default or about:
                yield _Value(".".join(parents), default, about)
            about = []
        else:
            about = []


def _row(value: _Value) -> str:
    default = f"`{value.default}`" if value.default else ""
    return f"| `{value.path}` | {default} | {' '.join(value.about)} |".replace("  |", " |")


if __name__ == "__main__":
    sys.exit(main())
