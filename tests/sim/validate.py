"""The judgement at the end: the log in the bucket against what clients were told."""

from __future__ import annotations

from brainy.changelog.batch import Slot
from brainy.changelog.reading import read_log
from brainy.errors import BrainyError
from brainy.store.base import ObjectStore
from tests.sim.model import Model


async def check_log(model: Model, store: ObjectStore, generation: int, shard: int) -> list[Slot]:
    """No acknowledged write lost, one effect a request id, order as seen from outside, one linear history."""
    slots: list[Slot] = []
    try:
        async for slot in read_log(store, generation, shard, from_position=1):
            slots.append(slot)
    except BrainyError as error:
        model.violated("the log is readable and dense", error=error)
        return slots
    positions: dict[str, int] = {}
    for slot in slots:
        for place, record in enumerate(slot.batch.records):
            if record.request_id:
                if record.request_id in positions:
                    model.violated(
                        "a request id has one effect",
                        request=record.request_id,
                        first=positions[record.request_id],
                        second=slot.first + place,
                    )
                positions[record.request_id] = slot.first + place
    nonces = {slot.batch.writer.nonce for slot in slots}
    if len(nonces) != len(slots):
        model.violated("every batch has its own nonce", batches=len(slots), nonces=len(nonces))
    check_requests(model, positions)
    return slots


def check_requests(model: Model, positions: dict[str, int]) -> None:
    """Acknowledged writes are where their callers were told, in an order that outsiders can have seen."""
    done = [request for request in model.requests if request.position is not None]
    for request in done:
        held = [positions.get(name) for name in request.ids]
        if None in held:
            model.violated("no acknowledged write is lost", request=request.ids, position=request.position)
        elif max(at for at in held if at is not None) != request.position:
            model.violated("an answer names the position", request=request.ids, told=request.position, is_at=held)
    latest, at = 0, ""
    waiting = sorted(done, key=lambda request: request.acknowledged)
    for request in sorted(done, key=lambda request: request.first_sent):
        while waiting and waiting[0].acknowledged < request.first_sent:
            earlier = waiting.pop(0)
            if (earlier.position or 0) > latest:
                latest, at = earlier.position or 0, earlier.ids[0]
        if request.position is not None and request.position <= latest:
            model.violated(
                "writes keep the order they were seen in", earlier=at, later=request.ids, position=request.position
            )
