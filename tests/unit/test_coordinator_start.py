"""A start whose answer was lost: one effect, and nothing else begins before it is known."""

from __future__ import annotations

from collections.abc import Collection

import pytest

from brainy.bucket import layout
from brainy.clock import SystemClock
from brainy.errors import AlreadyExistsError, PreconditionError, UnavailableError
from brainy.ids import Ids
from brainy.store.memory import MemoryStore
from brainy.testing.clock import ManualClock
from brainy.testing.faulty import Fault, FaultyStore
from brainy_coordinator.changes import ChangeSignal
from brainy_coordinator.migration.executor import Executor
from brainy_coordinator.migration.history import History
from brainy_coordinator.migration.reconciler import Reconciler
from brainy_coordinator.migration.record import MigrationRecord, Request

FIRST = Request(request_id="r", namespace="n", strategy="rolling", source_generation=0, target_generation=1)
OTHER = FIRST.model_copy(update={"request_id": "other"})


class Leads:
    id = "c1"

    def epoch(self) -> int:
        return 1


def executor_for(record: MigrationRecord, others: Collection[str]) -> Executor:
    raise AssertionError("nothing is to be acted on here")


def reconciler(store: FaultyStore) -> Reconciler:
    history = History(store, clock=SystemClock(), ids=Ids(), leader=Leads())
    return Reconciler(history=history, executor_for=executor_for, clock=ManualClock(), changes=ChangeSignal())


@pytest.mark.parametrize("landed", [True, False])
async def test_a_start_whose_answer_was_lost_has_one_effect(landed: bool) -> None:
    store = FaultyStore(MemoryStore(ManualClock()))
    store.plan(kind="put_if_absent", fault=Fault.LANDED_UNKNOWN if landed else Fault.LOST_UNKNOWN)
    store.plan(kind="get", fault=Fault.UNAVAILABLE)
    migrations = reconciler(store)
    with pytest.raises(UnavailableError):
        await migrations.start("m-1", FIRST)
    # Another wish finds the first one running, although nobody was told that it does.
    with pytest.raises(PreconditionError, match="another migration"):
        await migrations.start("m-2", OTHER)
    record = await migrations.start("m-1", FIRST)
    assert record.id == "m-1"
    assert migrations.running() == record
    assert await migrations.start("m-1", FIRST) == record
    with pytest.raises(AlreadyExistsError, match="another migration"):
        await migrations.start("m-1", FIRST.model_copy(update={"strategy": "in_place_upgrade"}))
    events = [meta.key async for page in store.list(layout.migration_events("m-1")) for meta in page]
    assert events == [layout.migration_event("m-1", 1)]
