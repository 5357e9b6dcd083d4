"""Histories: what is persisted, who may write, what a replay refuses."""

from __future__ import annotations

import pytest

from brainy.bucket import layout
from brainy.clock import SystemClock
from brainy.errors import AlreadyExistsError, ConflictError, CorruptDataError, FencedError, PreconditionError
from brainy.ids import Ids
from brainy.store.base import ObjectStore
from brainy.store.memory import MemoryStore
from brainy.testing.clock import ManualClock
from brainy.testing.faulty import Fault, FaultyStore
from brainy_coordinator.migration.history import History
from brainy_coordinator.migration.record import Event, Request, fold, migration_id_for
from brainy_coordinator.migration.state import State, Trigger

ID = "m-1"
REQUEST = Request(
    request_id="r", namespace="n", strategy="rolling", source_generation=0, target_generation=1, requested_by="ann"
)


class Leads:
    def __init__(self, epoch: int) -> None:
        self.id = f"c{epoch}"
        self._epoch = epoch

    def epoch(self) -> int:
        return self._epoch


def history(store: ObjectStore, epoch: int = 1) -> History:
    return History(store, clock=SystemClock(), ids=Ids(), leader=Leads(epoch))


async def test_what_is_written_folds_back_to_the_same() -> None:
    store = MemoryStore(ManualClock())
    first = history(store)
    record = await first.create(ID, REQUEST, by="ann")
    record = await first.append(record, Trigger.BEGUN)
    record = await first.append(record, Trigger.PREFLIGHT_PASSED)
    record = await first.append(record, Trigger.COPY_DONE, items=(7, 9))
    assert await first.load(ID) == record
    assert await first.load_all() == {ID: record}
    assert (record.state, record.sequence, record.items_copied, record.items_total) == (State.CATCHING_UP, 4, 7, 9)
    assert [event.by for event in record.story] == ["ann", "c1", "c1", "c1"]
    assert await first.load("m-none") is None
    with pytest.raises(AlreadyExistsError):
        await first.create(ID, REQUEST, by="bob")
    with pytest.raises(PreconditionError):
        await first.append(record, Trigger.BEGUN)


async def test_a_new_leader_seals_and_the_old_one_is_fenced() -> None:
    store = MemoryStore(ManualClock())
    old, new = history(store, 1), history(store, 2)
    record = await old.create(ID, REQUEST, by="ann")
    seen_by_new = record
    record = await old.append(record, Trigger.BEGUN)
    # The old one wrote after the new one had read: the seal finds the true end.
    sealed = await new.seal(seen_by_new)
    assert [event.trigger for event in sealed.story] == [Trigger.REQUESTED, Trigger.BEGUN, Trigger.LEADER_CHANGED]
    assert await new.seal(sealed) is sealed
    with pytest.raises(FencedError):
        await old.append(record, Trigger.PREFLIGHT_PASSED)
    with pytest.raises(FencedError):
        await old.seal(sealed)
    assert await new.load(ID) == sealed


async def test_an_append_to_an_old_view_is_a_conflict() -> None:
    store = MemoryStore(ManualClock())
    one = history(store)
    record = await one.create(ID, REQUEST, by="ann")
    await one.append(record, Trigger.BEGUN)
    with pytest.raises(ConflictError):
        await one.append(record, Trigger.ABORT_REQUESTED)


async def test_a_replay_refuses_lower_epochs_gaps_and_wrong_states() -> None:
    store = MemoryStore(ManualClock())
    record = await history(store, 5).create(ID, REQUEST, by="ann")
    record = await history(store, 5).append(record, Trigger.BEGUN)
    events = list(record.story)
    with pytest.raises(FencedError):
        fold(ID, [events[0], events[1].model_copy(update={"leader_epoch": 4})])
    with pytest.raises(CorruptDataError):
        fold(ID, [events[0], events[1].model_copy(update={"sequence": 3})])
    with pytest.raises(CorruptDataError):
        fold(ID, [events[0], events[1].model_copy(update={"to_state": State.READY})])
    with pytest.raises(CorruptDataError):
        fold(ID, events[1:])
    with pytest.raises(CorruptDataError):
        fold(ID, [])


@pytest.mark.parametrize("fault", [Fault.LANDED_UNKNOWN, Fault.LOST_UNKNOWN, Fault.LANDED_LOST])
async def test_an_event_lands_once_whatever_the_store_says(fault: Fault) -> None:
    store = FaultyStore(MemoryStore(ManualClock()))
    one = history(store)
    record = await one.create(ID, REQUEST, by="ann")
    store.plan(kind="put_if_absent", fault=fault)
    record = await one.append(record, Trigger.BEGUN)
    assert record.state is State.PREFLIGHTING
    assert await history(store.inner).load(ID) == record


async def test_events_are_readable_objects_with_a_version() -> None:
    store = MemoryStore(ManualClock())
    await history(store).create(ID, REQUEST, by="ann")
    found = await store.get(layout.migration_event(ID, 1))
    assert found is not None
    event = Event.decode(found.body, key=found.key)
    assert (event.format_version, event.request) == (1, REQUEST)
    assert b'"trigger": "requested"' in found.body


def test_a_request_id_always_gets_the_same_migration() -> None:
    assert migration_id_for("n", "r") == migration_id_for("n", "r")
    assert len({migration_id_for(n, r) for n in ("a", "b") for r in ("a", "b")}) == 4
    assert layout.parse_migration_event(layout.migration_event(migration_id_for("n", "r"), 1)) is not None
