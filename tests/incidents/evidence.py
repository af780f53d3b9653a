"""What is seen of a situation: screens, `/readyz`, metrics, alerts that fire, and figures beside the truth."""

from __future__ import annotations

import re
import shlex
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.incidents.scenes import REPLICAS, Scene, Shown
from tests.incidents.situations import Situation

ALERTS = Path(__file__).parents[2] / "config" / "prometheus" / "alerts.yaml"
_APART_SECONDS = 4.0
_NEAR_SECONDS = 2.0
_NEAR_SHARE = 0.01
_RETENTION_SECONDS = 86_400.0
_ANSWER_SECONDS = 5.0
_GROWS = 0.5
"""A second: what grows so fast, as ages and what is counted again and again, goes on growing."""
_LOOKS = re.compile(r"replicator (inspect|check|caches|parked list|gaps list|leases list|conflicts list)\b")
"""Commands that change nothing, so that what `status` advises is done as it stands."""
_MOST_METRICS = 5

Sample = tuple[str, float]


@dataclass(frozen=True)
class Evidence:
    """`alerts`: name and labels of what fires after half an hour like this, None where promtool is not installed."""

    situation: Situation
    screens: list[Shown]
    ready: str
    alerts: list[str] | None
    metrics: list[str]
    truths: list[str]
    contradictions: list[str]


def collected(scene: Scene, situation: Situation) -> Evidence:
    """Everything that a situation shows."""
    first, begun = _samples(scene), time.monotonic()
    screens = [scene.shows("status")]
    document = scene.command("status")
    kinds = {problem["kind"] for problem in document["problems"]}
    wrong = [] if situation.kind is None or situation.kind in kinds else [f"status does not say {situation.kind}"]
    if (screens[0].code == 0) != (not kinds):
        wrong.append(f"status ends with {screens[0].code} beside the problems {sorted(kinds)}")
    if max(map(len, screens[0].output.splitlines())) > 80:
        wrong.append("a line of status is longer than the terminal")
    for problem in document["problems"]:
        if _LOOKS.match(problem["command"] or "") and len(screens) == 1:
            screens.append(scene.shows(*shlex.split(problem["command"])[1:]))
    truths = list(_compared(scene, situation, document, wrong))
    time.sleep(max(0.0, _APART_SECONDS - (time.monotonic() - begun)))
    later, apart = _samples(scene), time.monotonic() - begun
    alerts = _alerts(first, later, apart, situation.minutes)
    named = set(re.findall(r"replicator_\w+", _expressions(alerts or [])))
    metrics = [f"{name} {value:g}" for name, value in later.items() if name.partition("{")[0] in named and value]
    return Evidence(situation, screens, _ready(scene), alerts, metrics[:_MOST_METRICS], truths, wrong)


def section(evidence: Evidence) -> str:
    """A situation for the page."""
    situation = evidence.situation
    lines = [f"### {situation.title}", "", f"{situation.about}", "", "```text"]
    for shown in evidence.screens:
        lines += [f"$ {shown.command}", *shown.output.splitlines(), f"(exit code {shown.code})", ""]
    lines += [f"/readyz: {evidence.ready}"]
    lines += [f"/metrics: {line}" for line in evidence.metrics]
    fired = ["promtool is not installed"] if evidence.alerts is None else evidence.alerts or ["none"]
    lines += [f"alert: {each}" for each in fired] + [f"truth: {each}" for each in evidence.truths] + ["```", ""]
    return "\n".join(lines)


# -- figures and truth ---------------------------------------------------------------------------------------------


def _compared(scene: Scene, situation: Situation, document: Any, wrong: list[str]) -> Iterator[str]:
    for region in situation.halted:
        if not scene.has_table(region):
            continue
        least = scene.writer.lag_in(region)
        document = scene.command("status")
        most = scene.writer.lag_in(region)
        lag, left = _figures(document, f"/{region}:{REPLICAS[region]}")
        shown = "not known" if lag is None else f"{lag:.1f} s"
        yield f"{region} lacks a write of {least:.1f} to {most:.1f} s ago by its writer's clock; lag by status: {shown}"
        if lag is None or not least - _NEAR_SECONDS <= lag <= most + _NEAR_SECONDS:
            wrong.append(f"lag of {region} is {shown}, and {least:.1f} to {most:.1f} s by the writer's clock")
        if left is None or abs(left - (_RETENTION_SECONDS - most)) > _NEAR_SHARE * _RETENTION_SECONDS:
            wrong.append(f"{region} is said to keep {left} s")


def _figures(document: Any, suffix: str) -> tuple[float | None, float | None]:
    """Lag and time left of a target over all shards; where rows do not answer, of what workers say of its shard."""
    for rule in document["rules"]:
        for target in [*rule["targets"], *(each for shard in rule["shards"] for each in shard["targets"])]:
            if target["target"].endswith(suffix):
                return target["lag_seconds"], target["retention_left_seconds"]
    return None, None


# -- what a worker says --------------------------------------------------------------------------------------------


def _get(scene: Scene, path: str) -> tuple[int, str]:
    port = scene.daemons[0].events("admin_listening")[-1]["port"]
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=_ANSWER_SECONDS) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def _ready(scene: Scene) -> str:
    try:
        code, body = _get(scene, "/readyz")
    except OSError as error:
        reason = getattr(error, "reason", error)
        return f"no answer ({reason})"
    return f"{code} {' '.join(body.split())}"


def _samples(scene: Scene) -> dict[str, float]:
    try:
        _, text = _get(scene, "/metrics")
    except OSError:
        return {}
    lines = (line.rpartition(" ") for line in text.splitlines() if line.startswith("replicator_"))
    return {name: float(value) for name, _, value in lines}


# -- alerts --------------------------------------------------------------------------------------------------------


def _alerts(first: dict[str, float], later: dict[str, float], apart: float, minutes: int) -> list[str] | None:
    """Which alerts fire when it goes on like this, as Prometheus' own tool evaluates them."""
    series = []
    for name, value in later.items():
        a_second = (value - first.get(name, value)) / apart
        grows = abs(a_second) > _GROWS  # else it is noise, or happened once
        step = f"{a_second * 60:+.6f}" if grows else "+0"
        labelled = name if "{" in name else f"{name}{{}}"
        series.append({"series": labelled.replace("{", '{instance="a",', 1), "values": f"{value:.6f}{step}x{minutes}"})
    with tempfile.TemporaryDirectory() as directory:
        test = {
            "rule_files": [str(ALERTS)],
            "tests": [
                {
                    "interval": "1m",
                    "input_series": series,
                    "promql_expr_test": [
                        {"expr": 'ALERTS{alertstate="firing"}', "eval_time": f"{minutes}m", "exp_samples": []}
                    ],
                }
            ],
        }
        path = Path(directory) / "tests.yaml"
        path.write_text(yaml.safe_dump(test))
        try:
            said = subprocess.run(["promtool", "test", "rules", path], capture_output=True, text=True, check=False)
        except FileNotFoundError:
            return None
    return sorted(_fired(said.stdout + said.stderr))


def _fired(said: str) -> set[str]:
    """Names and labels out of what promtool got where nothing was expected."""
    found = set()
    for labels in re.findall(r'\{__name__="ALERTS", ([^}]*)\}', said):
        pairs = dict(re.findall(r'(\w+)="([^"]*)"', labels))
        name, severity = pairs.pop("alertname"), pairs.pop("severity", "")
        shown = ", ".join(
            f"{label} {value}" for label, value in pairs.items() if label not in {"alertstate", "instance"}
        )
        found.add(f"{name} ({', '.join(filter(None, (severity, shown)))})")
    return found


def _expressions(alerts: list[str]) -> str:
    names = {alert.split()[0] for alert in alerts}
    groups = yaml.safe_load(ALERTS.read_text())["groups"]
    return " ".join(rule["expr"] for group in groups for rule in group["rules"] if rule.get("alert") in names)
