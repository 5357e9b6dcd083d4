"""Checking a Brainy backup file, and reading its items.

A file of ours must be whole to the last byte. One of the real Brainy carries no hash: it is read through, every
element is looked at, and what cannot be an item is named and left out, as Brainy's own restore leaves it out
silently. Elements are parsed one at a time; memory grows with the number of ids only.
"""

from __future__ import annotations

import hashlib
import mmap
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

import orjson

from brainy.backup.document import HEADER, INTEGRITY, OURS, SEAL, seal
from brainy.backup.elements import brainy_noun, brainy_verb, our_noun, our_verb, parse_element
from brainy.backup.held import as_held
from brainy.backup.scanning import Scanner, not_whole
from brainy.backup.values import BackupFormat, Progress, Skipped, Verification, no_progress
from brainy.bucket.digest import MultisetDigest
from brainy.bucket.items import Noun, Verb, check_id
from brainy.dataset.base import ItemBatch
from brainy.errors import BrainyError, InvalidRequestError
from brainy.legacy.batch import Reason
from brainy.legacy.values import UnreadableError, parse_json

_BATCH: Final = 1000
#: The end of a file is looked for within so many bytes of it.
_SEAL_BYTES: Final = 1024
_HASH_BYTES: Final = 1 << 20
_MEMBERS: Final = ("nouns", "verbs", "version")
_SHA256: Final = re.compile(r"[0-9a-f]{64}")

I = TypeVar("I", Noun, Verb)  # noqa: E741 - an item
#: (kind, place) -> element, in the order of the document.
Elements = Iterator[tuple[str, int, dict[str, Any] | UnreadableError]]


@dataclass(slots=True)
class _Found:
    """What the first reading learned."""

    ours: bool = False
    seal: dict[str, Any] | None = None
    nouns: int = 0
    verbs: int = 0
    state: MultisetDigest = field(default_factory=MultisetDigest)
    lengths: Counter[int] = field(default_factory=Counter)
    skipped: list[Skipped] = field(default_factory=list)
    #: Elements to leave out: kind and place.
    left_out: set[tuple[str, int]] = field(default_factory=set)
    noun_ids: dict[str, int] = field(default_factory=dict)
    verb_ids: dict[str, int] = field(default_factory=dict)
    ends: Counter[tuple[str, str]] = field(default_factory=Counter)
    dimension: int = 0


class CheckedDocument:
    """A Brainy backup that was checked: a file, or the same as Python values."""

    def __init__(self, source: Path | dict[str, Any], *, accept_rewritten: bool, on_progress: Progress) -> None:
        """Check it.

        Raises:
            CorruptDataError: it is not whole.
            InvalidRequestError: it is no backup of Brainy's.
        """
        self._source = source
        self._data: mmap.mmap | bytes = b""
        self._warnings: list[str] = []
        raw_sealed = False
        if isinstance(source, Path):
            if not source.stat().st_size:
                raise no_backup("it is empty")
            with source.open("rb") as file:
                self._data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            if self._data[: len(HEADER)] == HEADER or _seal_at(self._data) >= 0:
                raw_sealed = self._check_bytes(accept_rewritten)
        self._found = self._read_through(on_progress)
        if self._found.ours and isinstance(source, Path) and not raw_sealed and not accept_rewritten:
            raise rewritten()
        self._verification = self._judge()

    @property
    def verification(self) -> Verification:
        """What the check found."""
        return self._verification

    @property
    def state(self) -> MultisetDigest:
        """The digest of its items, not yet folded."""
        return self._found.state

    def items(self) -> Iterator[ItemBatch]:
        """Yield the items, each once, nouns first."""
        batch = ItemBatch()
        for kind, place, element in self._elements():
            if (kind, place) in self._found.left_out or isinstance(element, UnreadableError):
                continue
            if kind == "noun":
                batch.nouns.append(as_held((our_noun if self._found.ours else brainy_noun)(element)))
            else:
                batch.verbs.append(as_held((our_verb if self._found.ours else brainy_verb)(element)))
            if len(batch.nouns) + len(batch.verbs) >= _BATCH:
                yield batch
                batch = ItemBatch()
        if batch.nouns or batch.verbs:
            yield batch

    # --- whole to the last byte -------------------------------------------------------------------------------

    def _check_bytes(self, accept_rewritten: bool) -> bool:
        """Compare the seal with the bytes before it; returns whether they agree."""
        data = self._data
        at = _seal_at(data)
        try:
            told = orjson.loads(b"{" + data[at + 2 :]) if at >= 0 else {}
            body = told[INTEGRITY]
            expected = seal(
                sha256=_hash(data, at), nouns=body["nouns"], verbs=body["verbs"], digest=str(body["digest"])
            )
            whole = data[at:] == expected and data[: len(HEADER)] == HEADER
        except (orjson.JSONDecodeError, KeyError, TypeError):
            whole = False
        if not whole and not accept_rewritten:
            raise rewritten()
        return whole

    # --- reading ----------------------------------------------------------------------------------------------

    def _elements(self, found: _Found | None = None) -> Elements:
        """Yield the elements of both arrays; ``found`` learns of the other members."""
        if isinstance(self._source, dict):
            yield from self._elements_of_values(self._source, found)
            return
        scanner = Scanner(self._data)
        seen: set[str] = set()
        for quoted in scanner.members():
            key = _key(quoted, scanner)
            if key in seen:
                raise scanner.error(f"there are two members {key[:40]!r}")
            seen.add(key)
            if key in ("nouns", "verbs"):
                kind = key[:-1]
                for place, body in enumerate(scanner.elements()):
                    try:
                        yield kind, place, parse_element(body)
                    except UnreadableError as error:
                        yield kind, place, error
            elif found is None:
                scanner.skip()
            else:
                _learn(found, key, _value(scanner))
        scanner.end()
        _check_members(seen)

    def _elements_of_values(self, source: dict[str, Any], found: _Found | None) -> Elements:
        for kind in ("noun", "verb"):
            listed = source.get(f"{kind}s")
            if not isinstance(listed, list):
                raise no_backup(f"{kind}s is no array")
            for place, element in enumerate(listed):
                good = isinstance(element, dict)
                yield kind, place, element if good else UnreadableError(Reason.WRONG_SHAPE)
        if found is not None:
            for key in source.keys() - {"nouns", "verbs"}:
                _learn(found, key, source[key])
        _check_members({key for key, value in source.items() if value is not None})

    def _read_through(self, on_progress: Progress) -> _Found:
        found = _Found()
        # Whose file it is decides how its elements are read, so it must be known before the first of them.
        if isinstance(self._source, dict):
            found.ours = OURS in self._source
        else:
            found.ours = self._begins_as_ours()
        for read, (kind, place, element) in enumerate(self._elements(found), 1):
            if read % _BATCH == 0:
                on_progress(read, None)
            if kind == "noun":
                self._see(found, kind, place, element, our_noun if found.ours else brainy_noun, found.noun_ids)
            else:
                self._see(found, kind, place, element, our_verb if found.ours else brainy_verb, found.verb_ids)
        if not found.ours:
            self._drop_verbs_among_nouns(found)
        if found.left_out:
            self._count_again(found)
        return found

    def _begins_as_ours(self) -> bool:
        scanner = Scanner(self._data)
        if scanner.peek() != b"{":
            raise no_backup("it does not begin with an object")
        for quoted in scanner.members():
            return _key(quoted, scanner) == OURS
        return False

    def _see(
        self,
        found: _Found,
        kind: str,
        place: int,
        element: dict[str, Any] | UnreadableError,
        build: Callable[[dict[str, Any]], Noun] | Callable[[dict[str, Any]], Verb],
        ids: dict[str, int],
    ) -> None:
        try:
            if isinstance(element, UnreadableError):
                raise element
            item = as_held(build(element))  # type: ignore[type-var]
            check_id(item.id)
            if isinstance(item, Verb):
                check_id(item.source_id)
                check_id(item.target_id)
        except (UnreadableError, InvalidRequestError, UnicodeError) as error:
            reason = error.cause if isinstance(error, UnreadableError) else Reason.INVALID_ID
            if found.ours:
                raise not_whole(f"{kind} {place} cannot be read: {reason}") from error
            found.left_out.add((kind, place))
            found.skipped.append(Skipped(kind=kind, id=_name(element, place), reason=reason))
            return
        if item.id in ids:
            if found.ours:
                raise not_whole(f"{kind} {place} has the id of another", id=item.id)
            # Brainy's restore goes through the file in order, so the later one counts.
            found.left_out.add((kind, ids[item.id]))
            found.skipped.append(Skipped(kind=kind, id=item.id, reason=Reason.DUPLICATE_ID))
        ids[item.id] = place
        if isinstance(item, Verb):
            found.verbs += 1
            found.ends[item.source_id, item.target_id] += 1
        else:
            found.nouns += 1
            found.lengths[len(item.vector) // 4] += 1
        found.state.add(item.id, item.digest())

    def _drop_verbs_among_nouns(self, found: _Found) -> None:
        """Up to 0.27 a backup lists the verbs of the process among the nouns, without metadata."""
        both = found.noun_ids.keys() & found.verb_ids.keys()
        if not both:
            return
        for kind, place, element in self._elements():
            if kind != "noun" or isinstance(element, UnreadableError) or element.get("metadata") is not None:
                continue
            if (item_id := element.get("id")) in both and found.noun_ids[item_id] == place:
                found.left_out.add((kind, place))
                found.skipped.append(Skipped(kind=kind, id=item_id, reason=Reason.VERB_STORED_AS_NOUN))
                del found.noun_ids[item_id]

    def _count_again(self, found: _Found) -> None:
        found.nouns = found.verbs = 0
        found.state = MultisetDigest()
        found.lengths.clear()
        self._found = found
        for batch in self.items():
            found.nouns += len(batch.nouns)
            found.verbs += len(batch.verbs)
            found.lengths.update(len(noun.vector) // 4 for noun in batch.nouns)
            for noun in batch.nouns:
                found.state.add(noun.id, noun.digest())
            for verb in batch.verbs:
                found.state.add(verb.id, verb.digest())

    # --- judgement --------------------------------------------------------------------------------------------

    def _judge(self) -> Verification:
        found = self._found
        digest = found.state.fold()
        if found.ours or found.seal is not None:
            told = found.seal
            if not isinstance(told, dict) or not found.ours:
                raise not_whole("its seal is missing")
            for name, value in (("nouns", found.nouns), ("verbs", found.verbs), ("digest", digest)):
                if told.get(name) != value:
                    raise not_whole(f"its {name} are not those it was sealed with", found=value, sealed=told.get(name))
        else:
            self._warnings.append(
                "the file carries no hashes (the real Brainy writes none): it was read through, but a number that "
                "was altered in it cannot be noticed"
            )
            if not found.nouns and found.verbs:
                self._warnings.append("there are verbs but no nouns: Brainy from 0.41 on loses all nouns of a bucket")
        nouns = found.noun_ids.keys()
        dangling = sum(n for (source, target), n in found.ends.items() if source not in nouns or target not in nouns)
        lengths = {length: count for length, count in found.lengths.items() if length}
        if len(lengths) > 1:
            listed = ", ".join(f"{length} x {count:,}" for length, count in Counter(lengths).most_common())
            self._warnings.append(f"vectors have several lengths: {listed}")
        return Verification(
            file=str(self._source) if isinstance(self._source, Path) else "",
            format=BackupFormat.BRAINY,
            nouns=found.nouns,
            verbs=found.verbs,
            dimensions=found.dimension if found.ours else max(lengths, key=lengths.__getitem__, default=0),
            digest=digest,
            sealed=found.ours,
            dangling_verbs=dangling,
            skipped=tuple(found.skipped),
            warnings=tuple(self._warnings),
            chain=(str(self._source),) if isinstance(self._source, Path) else (),
        )


def check_document(
    source: Path | dict[str, Any], *, accept_rewritten: bool = False, on_progress: Progress = no_progress
) -> CheckedDocument:
    """Read a Brainy backup from its first to its last byte.

    Args:
        source: a file, or what ``json.load`` made of one.
        accept_rewritten: take a file of ours whose text was rewritten by another program, if its values still have
            the digest they were sealed with.
        on_progress: told of every thousand elements.

    Raises:
        CorruptDataError: it is not whole. Nothing of it is used.
        InvalidRequestError: it is no backup of Brainy's.
    """
    return CheckedDocument(source, accept_rewritten=accept_rewritten, on_progress=on_progress)


def rewritten() -> BrainyError:
    """Build the error of a file whose bytes are not those that were sealed."""
    error = not_whole("its bytes are not those that were sealed")
    error.remedy = (
        "take another copy of the file; nothing was changed. If a program rewrote it on purpose (pretty-printed, "
        "stringified), --accept-rewritten compares its values instead of its bytes"
    )
    return error


def no_backup(why: str) -> InvalidRequestError:
    """Build the error of a file that is something else."""
    return InvalidRequestError(
        f"not a backup of Brainy's: {why}", remedy="name a file that backup() or brainy backup wrote"
    )


def _check_members(seen: set[str]) -> None:
    for name in _MEMBERS:
        if name not in seen:
            raise no_backup(f"it has no {name}")


def _learn(found: _Found, key: str, value: object) -> None:
    if key == INTEGRITY:
        found.seal = value if isinstance(value, dict) else {}
    elif key == "version" and not value:
        raise no_backup("its version is empty")
    elif key == "hnswIndex" and isinstance(value, dict):
        dimension = value.get("dimension")
        found.dimension = dimension if isinstance(dimension, int) else 0


def _key(quoted: bytes, scanner: Scanner) -> str:
    try:
        key = parse_json(quoted)
    except UnreadableError as error:
        raise scanner.error("a name is no text") from error
    return str(key)


def _value(scanner: Scanner) -> object:
    begin, end = scanner.skip()
    if end - begin > 16 << 20:
        return None  # the graph of a large index; nothing of it is used
    try:
        return parse_json(bytes(scanner.data[begin:end]))
    except UnreadableError as error:
        raise scanner.error(f"a member cannot be read: {error.cause}") from error


def _name(element: dict[str, Any] | UnreadableError, place: int) -> str:
    found = element.get("id") if isinstance(element, dict) else None
    return found[:64].encode("utf-8", "backslashreplace").decode() if isinstance(found, str) and found else f"#{place}"


def _seal_at(data: mmap.mmap | bytes) -> int:
    return data.rfind(SEAL, max(0, len(data) - _SEAL_BYTES))


def _hash(data: mmap.mmap | bytes, end: int) -> str:
    state = hashlib.sha256()
    for start in range(0, end, _HASH_BYTES):
        state.update(data[start : min(start + _HASH_BYTES, end)])
    return state.hexdigest()
