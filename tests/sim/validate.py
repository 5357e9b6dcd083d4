"""The judgement at the end: the log in the bucket against what clients were told."""

from __future__ import annotations

from brainy.bucket import layout
from brainy.changelog.batch import Slot
from brainy.changelog.reading import read_log
from brainy.dataset.snapshot import stream_current
from brainy.errors import BrainyError
from brainy.store.base import ObjectStore
from tests.sim.model import Model
from tests.sim.nouns import Nouns


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


async def check_nouns(model: Model, store: ObjectStore, nouns: Nouns) -> None:
    """Every acknowledged write is in the bucket's current state, and nothing else is."""
    found: dict[str, bytes | None] = {}
    try:
        async for batch in stream_current(store):
            for noun in batch.nouns:
                if noun.id in found:
                    model.violated("a noun is there once", id=noun.id)
                found[noun.id] = noun.metadata
    except BrainyError as error:
        model.violated("the namespace is readable", error=error)
        return
    for name, noun in nouns.known.items():
        if found.get(name) not in (noun.last, *noun.maybe):
            model.violated(
                "no acknowledged write is lost", id=name, told=noun.last, found=found.get(name), maybe=noun.maybe
            )
    for name in found.keys() - nouns.known.keys():
        model.violated("nothing appears that nobody wrote", id=name)


async def check_one_effect(model: Model, store: ObjectStore) -> None:
    """In each generation a request id is found once, and every log is linear."""
    logs: dict[tuple[int, int], None] = {}
    async for page in store.list(layout.GENERATIONS):
        for meta in page:
            if (parsed := layout.parse_log_slot(meta.key)) is not None:
                logs[parsed[0], parsed[1]] = None
    seen: dict[tuple[int, str], tuple[int, int]] = {}
    for generation, shard in logs:
        try:
            async for slot in read_log(store, generation, shard, from_position=1):
                for place, record in enumerate(slot.batch.records, slot.first):
                    if not record.request_id:
                        continue
                    first = seen.setdefault((generation, record.request_id), (shard, place))
                    if first != (shard, place):
                        model.violated(
                            "a request id has one effect",
                            generation=generation,
                            request=record.request_id,
                            first=first,
                            second=(shard, place),
                        )
        except BrainyError as error:
            model.violated("every log is readable and dense", generation=generation, shard=shard, error=error)
