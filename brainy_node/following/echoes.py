"""Echoes: objects that our mirror wrote into the tree and that the book does not know.

The mirror tells the book of each of its writes. What it wrote after the book was saved for the last time, only the
owner knew that saved it; if that one dies, or a cut-over comes, the next one finds versions it has never seen. Most of
them say what is served. But a mirror that lags writes an *older* state after a newer one was committed, or one of an
item's two objects and not yet the other. Their LastModified is later than our client's last word. They are no word of
Brainy's, and must not be taken for one.

*Known again by what they say.* ``Echoes`` holds, for each item, what each half of it (the vector object, the metadata
or verb-metadata object) said in every state that our own log gives it, from the position on up to which the saved book
knows the mirror's writes. An unknown object that says one of these is ours: it is no news, and its time counts for
nothing.

*What is no echo.* A state that the mirror has left behind for good (the next state of the item is at or below its
cursor, and the tree can hold it), and a state before a record of Brainy's own: the mirror writes nothing over that. So
a Brainy process that brings back exactly an older state of ours is heard, unless it does so between the last save of
the book and the end of the owner, or before the next one's mirror has caught up: then ours stays, for it was
acknowledged.

*How long.* Only what was in the logs when the ownership began to follow can be an echo: afterwards the book is told.
``close`` ends it, when the mirror has passed all of that and a whole pass has begun after; or when nobody has mirrored
for a minute.

Memory: about 150 bytes for each item written in that part of the logs, and 16 for each state after the mirror's cursor,
a thousand at most: of an item with more, whatever stands in the tree counts as ours until then.

Pure: no I/O, no clock.
"""

from __future__ import annotations

import xxhash

from brainy.api.storage.v1 import log_pb2
from brainy.bucket.items import Noun, Verb, noun_from_proto, verb_from_proto
from brainy.bucket.partition import shard_of
from brainy.changelog.batch import Slot, is_copy
from brainy.legacy.seen import Mirrored
from brainy.legacy.values import UnreadableError, dump_json, parse_json
from brainy_node.following.own_words import Name, name_of

#: States of one item that are told apart.
MOST_STATES = 1000
_WIDTH = 8
_STATE = 2 * _WIDTH
#: The half of a deleted item whose object is not there.
_GONE = bytes(_WIDTH)
#: Any state.
_ANY = b""
_NULL = b"null"


def halves_of(item: Noun | Verb) -> tuple[bytes, bytes]:
    """Return what an item's vector object says and what the object beside it says, 8 bytes each."""
    if isinstance(item, Noun):
        return _half(item.vector, item.raw_vector, item.attributes), _half(item.metadata)
    ends = (item.source_id.encode(), item.target_id.encode(), item.type.encode())
    weight = None if item.weight is None else repr(float(item.weight)).encode()
    return _half(item.vector, item.raw_vector), _half(*ends, weight, item.metadata, _without_embedding(item.attributes))


def _half(*parts: bytes | None) -> bytes:
    state = xxhash.xxh3_64()
    for part in parts:
        state.update((-1 if part is None else len(part)).to_bytes(8, "little", signed=True))
        state.update(part or b"")
    return state.digest()


def _without_embedding(attributes: bytes | None) -> bytes | None:
    # A copy of the vector: a relation beside an older vector object shows it, one beside its own does not.
    if attributes is None or b'"embedding"' not in attributes:
        return attributes
    try:
        fields = parse_json(attributes)
    except UnreadableError:
        return attributes
    if not isinstance(fields, dict):
        return attributes
    rest = {name: value for name, value in fields.items() if name != "embedding"}
    return dump_json(rest) if rest else None


class OwnStates:
    """What one item was by our own log, in the states that may be in the tree unknown to the book."""

    def __init__(self, packed: bytes) -> None:
        self._any = packed == _ANY
        self._states = [
            (packed[at : at + _WIDTH], packed[at + _WIDTH : at + _STATE]) for at in range(0, len(packed), _STATE)
        ]

    @property
    def deleted(self) -> bool:
        """Whether it did not exist in one of them."""
        return self._any or any(first == _GONE for first, _ in self._states)

    def vector_said(self, half: bytes) -> bool:
        """Whether the vector object said this in one of them."""
        return self._any or any(first == half for first, _ in self._states)

    def companion_said(self, half: bytes) -> bool:
        """Whether the object beside it said this in one of them."""
        return self._any or any(second == half for _, second in self._states)

    def both_said(self, halves: tuple[bytes, bytes]) -> bool:
        """Whether it was this as a whole in one of them."""
        return self._any or halves in self._states


class Echoes:
    """Our own states of one shard's items from some positions of some logs on."""

    def __init__(
        self, shard: int, shard_count: int, *, dimensions: int = 0, one_piece: bool = False, since: Mirrored | None
    ) -> None:
        """Begin.

        Args:
            shard: whose items.
            shard_count: of its generation.
            dimensions: of a vector that the mirror writes.
            one_piece: whether the dialect has no verb-metadata.
            since: where reading the logs begins: what the mirror wrote up to there is in the book. None where nothing
                can be an echo.
        """
        self._shard = shard
        self._shard_count = shard_count
        self._vector_bytes = 4 * dimensions
        self.one_piece = one_piece
        #: None once closed.
        self.since = since
        #: Own log: read up to here, and what is committed after ``until`` is told to the book.
        self.position = 0
        self.until: int | None = None
        #: Hash of kind and id -> 16 bytes for each state, the oldest first.
        self._states: dict[int, bytes] = {}

    @property
    def open(self) -> bool:
        """Whether there may be echoes."""
        return self.since is not None

    def __len__(self) -> int:
        return len(self._states)

    def close(self) -> None:
        """Forget everything: the book knows all that is in the tree."""
        self.since = None
        self._states = {}

    def of(self, name: Name) -> OwnStates | None:
        """Return an item's states, None where our log says nothing of it."""
        packed = self._states.get(_hash(name))
        return None if packed is None else OwnStates(packed)

    def take(self, slot: Slot, *, mirrored: int, own: bool) -> None:
        """Take in a log object. Logs go oldest generation first, each in its order.

        Args:
            slot: the object. What was copied from an earlier generation is passed over: that one's log has it.
            mirrored: position in this log up to which the mirror has got, at least.
            own: whether this is the shard's own log.
        """
        if own:
            if slot.last <= self.position:
                return
            self.position = slot.last
        if self.since is None or is_copy(slot.batch):
            return
        for position, record in enumerate(slot.batch.records, slot.first):
            name = name_of(record)
            if name is None or shard_of(name[1], self._shard_count) != self._shard:
                continue
            key = _hash(name)
            if record.foreign_version:
                self._states.pop(key, None)
            elif self.until is None or not own or position <= self.until:
                state = _state_of(record)
                if position <= mirrored and self._fits(record):
                    self._states[key] = state
                else:
                    self._add(key, state)

    def _add(self, key: int, state: bytes) -> None:
        known = self._states.get(key)
        if known is None:
            self._states[key] = state
        elif len(known) >= _STATE * MOST_STATES:
            self._states[key] = _ANY
        elif known != _ANY and known[-_STATE:] != state:
            self._states[key] = known + state

    def _fits(self, record: log_pb2.LogRecord) -> bool:
        """Whether the tree can hold a state, so that the one before is gone once the mirror is past this."""
        if record.WhichOneof("operation") != "upsert_noun":
            return True
        noun = record.upsert_noun
        return len(noun.vector) == self._vector_bytes and not noun.HasField("raw_vector")


def _state_of(record: log_pb2.LogRecord) -> bytes:
    match record.WhichOneof("operation"):
        case "upsert_noun":
            return b"".join(halves_of(noun_from_proto(record.upsert_noun)))
        case "upsert_verb":
            return b"".join(halves_of(verb_from_proto(record.upsert_verb)))
        case "delete_noun":
            return _GONE + _half(_NULL)
        case _:
            return _GONE + _GONE


def _hash(name: Name) -> int:
    return xxhash.xxh3_64_intdigest(f"{name[0]}\0{name[1]}".encode())
