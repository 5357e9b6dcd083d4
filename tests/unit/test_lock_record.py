"""The arithmetic of leases."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brainy.locks import record as lease
from brainy.locks.record import LockRecord


def grant(previous: LockRecord | None = None, *, floor: int = 0) -> LockRecord:
    return lease.granted(previous, owner="o", incarnation="i", ttl_seconds=10, purpose="p", nonce="n", floor=floor)


@given(st.lists(st.sampled_from(["renew", "free", "grant"]), max_size=30))
def test_tokens_never_fall_and_rise_with_every_grant(steps: list[str]) -> None:
    record = grant()
    for step in steps:
        before = record
        if step == "renew":
            record = lease.renewed(record, nonce="x")
            assert (record.epoch, record.renew_seq) == (before.epoch, before.renew_seq + 1)
        elif step == "free":
            record = lease.freed(record, nonce="x")
            assert (record.epoch, record.state) == (before.epoch, "free")
            assert not lease.holds(record, token=record.epoch, owner="o", incarnation="i")
        else:
            record = grant(record)
            assert record.epoch == before.epoch + 1
            assert lease.holds(record, token=record.epoch, owner="o", incarnation="i")
    assert LockRecord.decode(record.encode(), key="k") == record


def test_a_floor_lifts_the_token() -> None:
    assert grant(None, floor=41).epoch == 42
    assert grant(grant(), floor=0).epoch == 2


@pytest.mark.parametrize("other", [{"token": 2}, {"owner": "x"}, {"incarnation": "x"}])
def test_a_holder_is_token_owner_and_incarnation(other: dict[str, object]) -> None:
    mine: dict[str, object] = {"token": 1, "owner": "o", "incarnation": "i"}
    assert lease.holds(grant(), **mine)  # type: ignore[arg-type]
    assert not lease.holds(grant(), **(mine | other))  # type: ignore[arg-type]


def test_the_holder_stops_before_any_observer_takes_over() -> None:
    # Both rates off by just under a tenth, in the worst direction.
    sent_at = 100.0
    holder_stops = (lease.deadline(sent_at, 10) - sent_at) / 0.91
    observer_takes = lease.patience(grant()) / 1.09
    assert holder_stops < observer_takes
