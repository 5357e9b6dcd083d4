"""The change logs of another namespace, read from its bucket while its own cluster goes on serving.

*Before.* The target shard includes the other log up to the position before the first one asked for.
*Steps.* 1. GET the key of the next slot: positions are dense, so its name is known. 2. While there is none, ask again
after a while, which grows as long as there is none. When this namespace begins to drain, writers over there are about
to wait for this: it is asked at once, and then in short intervals. 3. Once there is one, read on from there in bulk,
until the end.
*After.* It goes on for ever, like the stream of an owner.
*Nothing is assumed* of the other cluster: a slot that is there was acknowledged or will be, and never changes.
*Crash, cancel.* Nothing is shared; the cursor in this namespace's log says where to go on.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

from brainy.bucket import layout
from brainy.changelog.batch import Slot
from brainy.changelog.collection import collected_position
from brainy.changelog.reading import read_log
from brainy.errors import LogCollectedError
from brainy_node.runtime.host import Host

#: Between two looks for the next slot: at first, and at most.
_POLL_SECONDS = 0.1
_LONGEST_POLL_SECONDS = 1.0
#: The same while writers wait.
_HASTE_SECONDS = 0.02
#: Looks in vain before it is asked whether the log was given up to here.
_LOOKS = 50


async def slots_elsewhere(
    host: Host, namespace: str, generation: int, shard: int, from_position: int
) -> AsyncIterator[Slot]:
    """Yield the slots of a log of another namespace from the one that holds a position on, for ever.

    Raises:
        LogCollectedError: that part of the log is gone: it has to be copied anew.
        UnavailableError: the store cannot be read now.
        CorruptDataError: the log is damaged.
    """
    store = host.elsewhere.store(namespace)
    position, looks = from_position, 0
    while True:
        if await store.get(layout.log_slot(generation, shard, position)) is not None:
            looks = 0
            async for slot in read_log(store, generation, shard, from_position=position):
                yield slot
                position = slot.last + 1
            continue
        looks += 1
        if looks % _LOOKS == 1 and position <= await collected_position(store, generation, shard):
            raise LogCollectedError(
                "the other namespace has given up this part of its log",
                remedy="abort the migration and start it again; raise node.log_retention_seconds over there first",
                namespace=namespace,
                shard=shard,
                position=position,
            )
        routing = host.routing
        if routing.phase == "draining":
            await host.clock.sleep(host.ids.jitter(_HASTE_SECONDS / 2, _HASTE_SECONDS))
        else:
            pause = min(_LONGEST_POLL_SECONDS, _POLL_SECONDS * 1.2 ** min(looks, 20))
            await host.view.wait_newer(routing.epoch, host.ids.jitter(pause / 2, pause))
