"""Each alert fires in a situation that it is for, and not in one beside it: as Prometheus' own tool evaluates them."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.unit.test_alerts import ROOT, RULES, labels

TARGET = 'rule="orders",region="eu"'
LAG, LEFT = f"replicator_lag_seconds{{{TARGET}}}", f"replicator_retention_left_seconds{{{TARGET}}}"
IDLE = f"replicator_seconds_since_progress{{{TARGET}}}"
PAUSED = f'replicator_target_shards{{{TARGET},state="paused"}}'
RESTS = 'replicator_paused_seconds{rule="orders"}'
OPEN, OWNED = (f'replicator_{word}_shards{{table="orders",region="us",instance="a"}}' for word in ("open", "owned"))
CONFLICTS = f'replicator_conflicts_total{{{TARGET},kind="%s",outcome="logged"}}'
HELD = f'replicator_rule_held{{{TARGET},cause="%s"}}'
THROTTLED = f"replicator_throttled_requests_total{{{TARGET}}}"
LIMIT = f'replicator_request_limit{{{TARGET},kind="single"}}'
LOOKS = 'replicator_cache_verified_entries_total{{cache="main",region="eu",horizon="1s",outcome="{}"}}'
CANARY = f'{TARGET},source="us",cache="main"'
LEASES = 'replicator_leases_total{event="lost",instance="a"}'

Series = dict[str, str]
SITUATIONS: dict[str, tuple[Series, Series]] = {
    "ReplicatorDown": ({}, {'replicator_coordination_unreachable_seconds{instance="a"}': "0x60"}),
    "ReplicatorLags": ({LAG: "300x60"}, {LAG: "300x60", PAUSED: "1x60"}),
    "ReplicatorTargetDown": ({LAG: "300x60", IDLE: "300x60"}, {LAG: "300x60", IDLE: "1x60"}),
    "ReplicatorLagUnknown": (
        {f"replicator_lag_unknown_shards{{{TARGET}}}": "2x60"},
        {f"replicator_lag_unknown_shards{{{TARGET}}}": "0x60"},
    ),
    "ReplicatorRulePaused": (
        {'replicator_paused_seconds{rule="orders"}': "18000x60"},
        {'replicator_paused_seconds{rule="orders"}': "600x60"},
    ),
    "ReplicatorCoordinationUnreachable": (
        {'replicator_coordination_unreachable_seconds{instance="a"}': "90x60"},
        {'replicator_coordination_unreachable_seconds{instance="a"}': "5x60"},
    ),
    "ReplicatorConfigurationRefused": (
        {'replicator_configuration_refused_seconds{instance="a"}': "300x60"},
        {'replicator_configuration_refused_seconds{instance="a"}': "0x60"},
    ),
    "ReplicatorClockIsOff": (
        {'replicator_clock_behind_seconds{instance="a"}': "-90x60"},
        {'replicator_clock_behind_seconds{instance="a"}': "7x60"},
    ),
    "ReplicatorRetentionRunsOut": ({LEFT: "7200x60"}, {LEFT: "80000x60"}),
    "ReplicatorDoesNotProgress": ({IDLE: "300x60"}, {IDLE: "300x60", RESTS: "60x60"}),
    "ReplicatorShardStalled": (
        {f"replicator_stalled_shards{{{TARGET}}}": "1x60"},
        {f"replicator_stalled_shards{{{TARGET}}}": "0x60"},
    ),
    "ReplicatorRuleWaits": (
        {f'replicator_waiting_shards{{{TARGET},why="unclaimed"}}': "1x60"},
        {f'replicator_waiting_shards{{{TARGET},why="unclaimed"}}': "0x60"},
    ),
    "ReplicatorRuleHeld": ({HELD % "missing": "1x60"}, {HELD % "replaced": "1x60"}),
    "ReplicatorReplicaReplaced": ({HELD % "replaced": "1x60"}, {HELD % "missing": "1x60"}),
    "ReplicatorTargetBlocked": (
        {f"replicator_blocked_targets{{{TARGET}}}": "1x60"},
        {f"replicator_blocked_targets{{{TARGET}}}": "0x60"},
    ),
    "ReplicatorCacheFull": (
        {f"replicator_cache_unstored_refreshes_total{{{TARGET}}}": "0+5x60"},
        {f"replicator_cache_unstored_refreshes_total{{{TARGET}}}": "5x60"},
    ),
    "ReplicatorParkedKeys": (
        {f"replicator_parked_keys{{{TARGET}}}": "1x60"},
        {f"replicator_parked_keys{{{TARGET}}}": "0x60"},
    ),
    "ReplicatorRegionAway": (
        {f"replicator_region_away{{{TARGET}}}": "1x60"},
        {f"replicator_region_away{{{TARGET}}}": "0x60"},
    ),
    "ReplicatorKeysOwed": (
        {f"replicator_owed_oldest_seconds{{{TARGET}}}": "90000x60"},
        {f"replicator_owed_oldest_seconds{{{TARGET}}}": "60x60"},
    ),
    "ReplicatorCacheAway": (
        {'replicator_cache_away{cache="main",region="eu"}': "1x60"},
        {
            'replicator_cache_away{cache="main",region="eu"}': "0x60",
            'replicator_cache_owed_oldest_seconds{cache="main",region="eu"}': "2x60",
        },
    ),
    "ReplicatorCacheActionsIgnored": (
        {'replicator_cache_ignored_actions_total{cache="main",region="eu"}': "0+1x60"},
        {'replicator_cache_ignored_actions_total{cache="main",region="eu"}': "4x60"},
    ),
    "ReplicatorCacheInconsistent": (
        {LOOKS.format("inconsistent"): "0+1x60"},
        {LOOKS.format("inconsistent"): "3x60", LOOKS.format("consistent"): "0+9x60"},
    ),
    "ReplicatorCanaryLate": (
        {f"replicator_canary_late{{{CANARY}}}": "1x60"},
        {f"replicator_canary_late{{{CANARY}}}": "0x60"},
    ),
    "ReplicatorLostRecords": (
        {f"replicator_gaps_open{{{TARGET}}}": "1x60"},
        {f"replicator_gaps_open{{{TARGET}}}": "0x60", f"replicator_gaps_total{{{TARGET}}}": "3x60"},
    ),
    "ReplicatorSweepFoundDifferences": (
        {'replicator_sweep_differences{rule="orders"}': "2x60"},
        {'replicator_sweep_differences{rule="orders"}': "0x60"},
    ),
    "ReplicatorShardsWithoutOwner": (
        {OPEN: "4x60", OWNED: "3x60", RESTS: "0x60"},
        {OPEN: "4x60", OWNED: "3x60", RESTS: "60x60"},
    ),
    "ReplicatorLosesLeases": ({LEASES: "0+2x60"}, {LEASES: "5x60"}),
    "ReplicatorReplicaThrottles": ({THROTTLED: "0+60x60", LIMIT: "2x60"}, {THROTTLED: "0+60x60", LIMIT: "64x60"}),
    "ReplicatorReplicaWritten": (
        {f"replicator_replica_written_total{{{TARGET}}}": "0+1x60"},
        {f"replicator_replica_written_total{{{TARGET}}}": "7x60"},
    ),
    "ReplicatorConflicts": ({CONFLICTS % "put_put": "0+60x60"}, {CONFLICTS % "put_put": "0+1x60"}),
    "ReplicatorVersionsRegress": ({CONFLICTS % "version_regress": "0+1x60"}, {CONFLICTS % "put_put": "0+1x60"}),
    "ReplicatorShardFailed": (
        {'replicator_shard_faults_total{rule="orders"}': "0+1x60"},
        {'replicator_shard_faults_total{rule="orders"}': "2x60"},
    ),
}
"""By alert: what a worker shows when it fires, and when it does not, one value a minute for an hour."""


def test_every_alert_has_a_situation_of_metrics_and_labels_that_exist() -> None:
    assert SITUATIONS.keys() == {rule["alert"] for rule in RULES}
    known = labels()
    for alert, situations in SITUATIONS.items():
        rule = next(rule for rule in RULES if rule["alert"] == alert)
        for series in {name for situation in situations for name in situation}:
            metric, _, inner = series.partition("{")
            assert metric in rule["expr"], (alert, metric)
            assert set(re.findall(r"(\w+)=", inner)) - {"instance"} <= known[metric], series


@pytest.mark.skipif(shutil.which("promtool") is None, reason="needs Prometheus' promtool")
def test_every_alert_fires_in_its_situation_and_not_beside_it(tmp_path: Path) -> None:
    def case(alert: str, shown: Series, times: int) -> dict[str, Any]:
        expr = f'count(ALERTS{{alertname="{alert}",alertstate="firing"}}) or vector(0)'
        samples = [{"labels": "{}", "value": times}]
        return {
            "name": f"{alert} {'fires' if times else 'is silent'}",
            "interval": "1m",
            "input_series": [{"series": name, "values": values} for name, values in shown.items()],
            "promql_expr_test": [{"expr": expr, "eval_time": "50m", "exp_samples": samples}],
        }

    cases = [case(name, each, 1 - index) for name, both in SITUATIONS.items() for index, each in enumerate(both)]
    rules = str(ROOT / "config/prometheus/alerts.yaml")
    (tmp_path / "tests.yaml").write_text(yaml.safe_dump({"rule_files": [rules], "tests": cases}))
    for command in (["check", "rules", rules], ["test", "rules", str(tmp_path / "tests.yaml")]):
        told = subprocess.run(["promtool", *command], capture_output=True, text=True, check=False)
        assert told.returncode == 0, told.stdout + told.stderr
