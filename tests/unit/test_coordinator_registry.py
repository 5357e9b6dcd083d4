"""Who is alive, silent, gone."""

from __future__ import annotations

import pytest

from brainy.bucket.records import NodeAddress
from brainy.errors import FencedError
from brainy_coordinator.membership.registry import NodeState, Registry, Report


def report(node: str = "a", incarnation: str = "1", *, draining: bool = False) -> Report:
    return Report(node_id=node, incarnation=incarnation, address=f"{node}:1", draining=draining)


def state(registry: Registry, now: float, node: str = "a") -> NodeState | None:
    return next((member.state for member in registry.members(now) if member.node_id == node), None)


def test_silence_is_judged_by_the_ttl_and_forgiven() -> None:
    registry = Registry(ttl_seconds=6.0)
    assert state(registry, 0.0) is None
    registry.heartbeat(report(), 0.0)
    assert state(registry, 6.0) is NodeState.ALIVE
    assert state(registry, 6.1) is NodeState.SILENT
    registry.heartbeat(report(), 7.0)
    assert state(registry, 7.0) is NodeState.ALIVE
    registry.heartbeat(report(draining=True), 8.0)
    assert state(registry, 8.0) is NodeState.DRAINING
    assert state(registry, 14.1) is NodeState.SILENT


def test_a_new_leader_gives_expected_nodes_one_full_ttl() -> None:
    registry = Registry(ttl_seconds=6.0)
    registry.heartbeat(report("b"), 99.0)
    registry.expect({n: NodeAddress(address=f"{n}:1", incarnation="0") for n in ("a", "b")}, 100.0)
    by_name = {member.node_id: member for member in registry.members(100.0)}
    assert (by_name["a"].heard, by_name["b"].heard) == (False, True)
    assert by_name["b"].report.incarnation == "1"
    assert state(registry, 106.0) is NodeState.ALIVE
    assert state(registry, 106.1) is NodeState.SILENT


def test_a_replaced_incarnation_is_refused_for_good() -> None:
    registry = Registry(ttl_seconds=6.0)
    registry.heartbeat(report(incarnation="1"), 0.0)
    registry.heartbeat(report(incarnation="2"), 1.0)
    with pytest.raises(FencedError):
        registry.heartbeat(report(incarnation="1"), 2.0)
    registry.leave("a", "1", 3.0)
    assert state(registry, 3.0) is NodeState.ALIVE


def test_leaving_is_final_for_the_incarnation_only() -> None:
    registry = Registry(ttl_seconds=6.0)
    registry.heartbeat(report(), 0.0)
    registry.leave("a", "1", 1.0)
    registry.heartbeat(report(), 2.0)
    assert state(registry, 2.0) is NodeState.LEFT
    registry.heartbeat(report(incarnation="2"), 3.0)
    assert state(registry, 3.0) is NodeState.ALIVE
    registry.leave("nobody", "1", 4.0)
    assert state(registry, 4.0, "nobody") is None


def test_a_process_that_is_gone_is_silent_before_its_time_until_it_speaks() -> None:
    registry = Registry(ttl_seconds=6.0)
    registry.heartbeat(report(), 10.0)
    assert not registry.lost("a", "0", 10.0)
    assert not registry.lost("a", "1", 9.0), "it was heard after the call began"
    assert not registry.lost("nobody", "1", 10.0)
    assert registry.lost("a", "1", 10.0)
    assert state(registry, 10.5) is NodeState.SILENT
    registry.heartbeat(report(), 11.0)
    assert state(registry, 11.0) is NodeState.ALIVE


def test_a_drain_lasts_as_long_as_the_process() -> None:
    registry = Registry(ttl_seconds=6.0)
    assert not registry.drain("a")
    registry.heartbeat(report(), 0.0)
    assert registry.drain("a")
    registry.heartbeat(report(), 1.0)
    assert state(registry, 1.0) is NodeState.DRAINING
    assert [member.node_id for member in registry.unwanted(1.0)] == ["a"]
    registry.heartbeat(report(incarnation="2"), 2.0)
    assert state(registry, 2.0) is NodeState.ALIVE
    assert registry.unwanted(2.0) == ()
