"""What becomes of items that the tree and the shard say differently: whose word is the later one.

An object whose version the book knows is no news; where all are known, our later word is on its way. One that says
what a state of ours said, and that our mirror may have written unknown to the book, is none either (``echoes``).
Neither is a word of Brainy's, and neither has a time that counts. What remains is Brainy's, and later than our clients'
last word if its LastModified is; if nothing remains, our word stays.

Of an item that is not in the tree: an object that is there and new is no deletion, whatever hides it.

Where the namespace is mirrored and our word is kept, the tree has to get it. A word that is later than what the tree
has is not mirrored yet, and will be. One that may have been in the tree already, and was replaced there (in the same
second, or by a deletion, which has no time), the mirror has behind it: it is *restated*, a record that says what is
served. The mirror writes it; it makes our word no younger. So it is with an echo: whether the mirror has come to the
newer state is not asked.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

import xxhash

from brainy.api.storage.v1 import log_pb2
from brainy.bucket.items import Noun, Verb, noun_to_proto, verb_to_proto
from brainy.clock import Clock
from brainy.legacy.keys import Kind
from brainy.legacy.part import Part
from brainy.legacy.places import Places
from brainy.legacy.seen import SeenBook, Version
from brainy.telemetry.logs import get_logger
from brainy_node.following.echoes import Echoes, OwnStates, halves_of
from brainy_node.following.own_words import ItemKind, Name, OwnWords
from brainy_node.following.owned import OwnedShard

_log = get_logger(__name__)


class Grounds(Protocol):
    """What is known of a shard when it is decided (``FollowedShard``)."""

    @property
    def owned(self) -> OwnedShard:
        """What is served."""

    @property
    def places(self) -> Places:
        """Where objects lie."""

    @property
    def book(self) -> SeenBook | None:
        """The versions known; None before everything was compared once."""

    @property
    def words(self) -> OwnWords:
        """Our clients' last words."""

    @property
    def echoes(self) -> Echoes:
        """What our mirror may have written unknown to the book."""

    @property
    def clock(self) -> Clock:
        """The time a record is stamped with."""

    def is_mirrored(self) -> bool:
        """Whether what our clients commit is written into the tree."""


class Decision:
    """What becomes of some ids, decided on the state of one moment."""

    def __init__(
        self,
        grounds: Grounds,
        part: Part,
        ids: Sequence[str],
        kinds: Sequence[ItemKind],
        busy: Collection[Name],
    ) -> None:
        shard = grounds.owned.shard
        self._grounds = grounds
        self._part = part
        self.records: list[log_pb2.LogRecord] = []
        #: Ours, said again for the mirror.
        self.restated: list[log_pb2.LogRecord] = []
        self.deferred: set[str] = set()
        self.conflicts = 0
        #: A time that has to be looked up first.
        self.unknown = False
        served: dict[ItemKind, Mapping[str, Noun | Verb]] = {
            "noun": {noun.id: noun for noun in shard.get_nouns(ids)},
            "verb": {verb.id: verb for verb in shard.get_verbs(ids)},
        }
        found: dict[ItemKind, Mapping[str, Noun | Verb]] = {"noun": part.nouns, "verb": part.verbs}
        for item_id in ids:
            for kind in kinds:
                ours, theirs = served[kind].get(item_id), found[kind].get(item_id)
                if ours == theirs or (ours is not None and theirs is not None and ours.digest() == theirs.digest()):
                    continue
                if ours is not None and item_id in part.unreadable:
                    continue
                if not self._is_new(kind, item_id, ours, theirs):
                    continue
                if (kind, item_id) in busy:
                    self.deferred.add(item_id)
                elif self._is_later(kind, item_id, theirs):
                    self.records.append(_record(kind, item_id, theirs, foreign_version=self._version(item_id)))
                elif grounds.is_mirrored() and self._may_be_mirrored(kind, item_id):
                    record = _record(kind, item_id, ours, restated=True)
                    # The mirror's entries in Brainy's change log are named by it.
                    record.written_at.FromMilliseconds(int(1000 * grounds.clock.wall()))
                    self.restated.append(record)
        if self.deferred:
            self.records = [record for record in self.records if _id(record) not in self.deferred]
            self.restated = [record for record in self.restated if _id(record) not in self.deferred]

    def _is_later(self, kind: ItemKind, item_id: str, theirs: Noun | Verb | None) -> bool:
        said = self._grounds.words.known_time((kind, item_id))
        if said is None:
            self.unknown = True
            return False
        news = self._news(kind, item_id, theirs)
        if news is None:
            written = self._part.latest(item_id)
        elif not news:
            _log.info("own_echo_passed_over", kind=kind, id=item_id, said=said)
            return False
        else:
            written = max((version.seconds for version in news.values() if version is not None), default=0)
        if not said or written > said:
            return True
        # Where the tree has no object there is no word of its own to be overruled.
        self.conflicts += written > 0
        _log.info("own_word_kept", kind=kind, id=item_id, said=said, written=written)
        return False

    def _is_new(self, kind: ItemKind, item_id: str, ours: Noun | Verb | None, theirs: Noun | Verb | None) -> bool:
        """Whether anything in the tree says what was not settled before; not so a delete entry alone, as a rule."""
        versions, book = self._part.versions.get(item_id), self._grounds.book
        if not versions or book is None or self._unknown(kind, item_id):
            return True
        if (kind, item_id) in self._grounds.words.foreign:
            return True  # served since the book was saved, which may know of a time before
        places = self._grounds.places
        there = [key for key in places.vectors_of(Kind(kind), item_id) if versions.get(key) is not None]
        if ours is None:
            # An item may come back because of an add entry that came late.
            return self._grounds.echoes.of((kind, item_id)) is None
        if theirs is not None or not there:
            return False
        # Hidden by the change log. Behind an object of ours its entry comes: on the way, or with the batch repeated.
        written = all((known := book.version(key)) is not None and not known.seconds for key in there)
        return not written and self._grounds.echoes.of((kind, item_id)) is None

    def _unknown(self, kind: ItemKind, item_id: str) -> dict[str, Version | None]:
        """Return the objects of an item that the book does not know as they were read."""
        places, versions = self._grounds.places, self._part.versions.get(item_id, {})
        keys = places.vectors_of(Kind(kind), item_id) | places.companions_of(Kind(kind), item_id)
        return {key: versions[key] for key in keys if key in versions and self._is_unknown(key, versions[key])}

    def _news(self, kind: ItemKind, item_id: str, theirs: Noun | Verb | None) -> dict[str, Version | None] | None:
        """Return the objects of an item that are a word of Brainy's, maybe none: then everything unknown is an echo.

        None where nothing is to be told apart.
        """
        states, unknown = self._grounds.echoes.of((kind, item_id)), self._unknown(kind, item_id)
        if states is None or not unknown:
            return None
        vectors = self._grounds.places.vectors_of(Kind(kind), item_id)
        if theirs is not None:
            return {
                key: version
                for key, version in unknown.items()
                if not self._is_echo(states, theirs, is_vector=key in vectors)
            }
        if states.deleted:
            return {}
        versions = self._part.versions[item_id]
        if any(versions.get(key) is not None for key in vectors):
            # Hidden: by the change log, where an entry of ours may be missing; or by a noun's metadata, null by now.
            deleted = kind == "noun" and any(key not in vectors for key in unknown)
        else:
            deleted = any(version is None for key, version in unknown.items() if key in vectors)
        return unknown if deleted else {}

    def _is_unknown(self, key: str, version: Version | None) -> bool:
        book = self._grounds.book
        return version is not None if book is None else not same(book.version(key), version)

    def _is_echo(self, states: OwnStates, theirs: Noun | Verb, *, is_vector: bool) -> bool:
        halves = halves_of(theirs)
        if not is_vector:
            return states.companion_said(halves[1])
        if isinstance(theirs, Verb) and self._grounds.echoes.one_piece:
            return states.both_said(halves)
        return states.vector_said(halves[0])

    def _may_be_mirrored(self, kind: ItemKind, item_id: str) -> bool:
        """Whether our word, which is kept, may have been in the tree before what is there now."""
        if written := self._part.latest(item_id):
            return written >= self._grounds.words.earliest_time((kind, item_id))
        # Gone, and it was there, known to the book or not; what was never there is on its way.
        book = self._grounds.book
        return book is not None and (
            self._grounds.echoes.of((kind, item_id)) is not None
            or any(book.version(key) for key in self._part.versions.get(item_id, {}))
        )

    def _version(self, item_id: str) -> str:
        state = xxhash.xxh3_128(item_id.encode())
        for key, version in sorted(self._part.versions.get(item_id, {}).items()):
            state.update(f"\0{key}\0{version}".encode())
        return state.hexdigest()


def same(known: Version | None, read: Version | None) -> bool:
    """Whether two versions may be one, or both are absent."""
    if known is None or read is None:
        return known is read
    return known.same_as(read)


def _record(
    kind: ItemKind, item_id: str, item: Noun | Verb | None, *, foreign_version: str = "", restated: bool = False
) -> log_pb2.LogRecord:
    record = log_pb2.LogRecord(foreign_version=foreign_version, restated=restated)
    if isinstance(item, Noun):
        record.upsert_noun.CopyFrom(noun_to_proto(item))
    elif isinstance(item, Verb):
        record.upsert_verb.CopyFrom(verb_to_proto(item))
    elif kind == "noun":
        record.delete_noun = item_id
    else:
        record.delete_verb = item_id
    return record


def _id(record: log_pb2.LogRecord) -> str | None:
    match record.WhichOneof("operation"):
        case "upsert_noun":
            return record.upsert_noun.id
        case "upsert_verb":
            return record.upsert_verb.id
        case "delete_noun":
            return record.delete_noun
        case _:
            return record.delete_verb
