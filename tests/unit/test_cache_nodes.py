"""What the servers of a cache say of themselves."""

from __future__ import annotations

from replicator.domain.cache_nodes import CacheNode, eviction_trouble
from replicator.domain.values import replace

NODE = CacheNode("a:1", "primary", "valkey 9.1.2", 5461, 0, "noeviction")


def test_a_node_is_shown_on_one_line() -> None:
    assert NODE.shown == "a:1 (primary, 5461 slots, valkey 9.1.2, noeviction)"
    assert replace(NODE, role="replica", slots=None).shown == "a:1 (replica, valkey 9.1.2, noeviction)"
    assert replace(NODE, trouble="It does not answer.").shown == "a:1 (primary): It does not answer."


def test_a_server_that_refuses_when_it_is_full_and_nodes_that_differ_are_told() -> None:
    evicts = replace(NODE, address="b:1", eviction="allkeys-lru", memory=10)
    assert eviction_trouble([NODE]) is None, "it has no limit"
    assert eviction_trouble([evicts, replace(evicts, address="c:1")]) is None
    assert "a:1: maxmemory is set" in str(eviction_trouble([replace(NODE, memory=10), evicts]))
    assert "Nodes differ: a:1 noeviction, b:1 allkeys-lru" in str(eviction_trouble([NODE, evicts]))
    assert eviction_trouble([NODE, replace(evicts, trouble="away")]) is None
