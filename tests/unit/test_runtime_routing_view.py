import asyncio

import pytest

from brainy.bucket import layout
from brainy.bucket.records import Routing
from brainy.errors import PreconditionError, UnavailableError
from brainy.store.memory import MemoryStore
from brainy_node.runtime.routing_view import RoutingView


def record(epoch: int) -> bytes:
    return Routing(namespace="memory://abc", epoch=epoch, nonce=str(epoch), leader_epoch=1, active=0, write=0).encode()


async def test_only_newer_records_come_into_force():
    store, seen = MemoryStore(), []
    view = RoutingView(store, lambda routing: seen.append(routing.epoch))
    await view.refresh()
    assert view.known is None
    with pytest.raises(UnavailableError) as unplaced:
        _ = view.current
    assert unplaced.value.reason == "SHARD_NOT_READY"

    await store.put(layout.ROUTING, record(4))
    await view.refresh()
    await store.put(layout.ROUTING, record(3))
    await view.refresh()
    assert view.current.epoch == 4
    assert seen == [4]


async def test_waiting_for_a_newer_epoch_ends_when_it_comes():
    store = MemoryStore()
    view = RoutingView(store, lambda routing: None)
    await store.put(layout.ROUTING, record(1))
    await view.refresh()
    waiting = asyncio.create_task(view.wait_newer(1, 5.0))
    await store.put(layout.ROUTING, record(2))
    await view.refresh()
    assert await waiting
    assert not await view.wait_newer(2, 0.01)


async def test_an_epoch_in_force_needs_no_read():
    store = MemoryStore()
    view = RoutingView(store, lambda routing: None)
    await store.put(layout.ROUTING, record(5))
    await view.refresh()
    await store.put(layout.ROUTING, record(6))
    await view.refresh(5)
    assert view.current.epoch == 5
    await view.refresh(6)
    assert view.current.epoch == 6


async def test_a_newer_format_is_refused_and_changes_nothing():
    store = MemoryStore()
    view = RoutingView(store, lambda routing: None)
    await store.put(layout.ROUTING, record(1))
    await view.refresh()
    await store.put(layout.ROUTING, record(2).replace(b'"format_version": 1', b'"format_version": 2'))
    with pytest.raises(PreconditionError) as refused:
        await view.refresh()
    assert refused.value.reason == "UNSUPPORTED_FORMAT"
    assert view.current.epoch == 1
