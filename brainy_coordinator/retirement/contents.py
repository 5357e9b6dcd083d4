"""What lies in a generation: which objects go with it, and which stay for good. Pure but for the listing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from brainy.bucket import layout
from brainy.store.base import ObjectMeta, ObjectStore

_SPEC = "spec.json"
_COLLECTED = "collected"
_LOG = "change-log"


@dataclass(frozen=True, slots=True, kw_only=True)
class Count:
    """Objects of one kind."""

    objects: int = 0
    bytes: int = 0

    def plus(self, meta: ObjectMeta) -> Count:
        """Return it with one more object."""
        return Count(objects=self.objects + 1, bytes=self.bytes + meta.size)


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """What a generation's prefix holds, by kind."""

    deleted: Mapping[str, Count] = field(default_factory=dict)
    stays: Mapping[str, Count] = field(default_factory=dict)

    @property
    def total(self) -> Count:
        """Everything that is deleted."""
        counts = self.deleted.values()
        return Count(objects=sum(c.objects for c in counts), bytes=sum(c.bytes for c in counts))


def kind_of(number: int, key: str) -> str:
    """Return the kind of an object of a generation: the first part of its key there."""
    kind, slash, _ = key.removeprefix(layout.generation(number)).partition("/")
    return kind if slash else "spec" if kind == _SPEC else kind


def stays(number: int, key: str) -> bool:
    """Whether an object outlives its generation.

    The description does: it holds the number, which must not be given out again, and later generations inherit from it.
    So do the positions given up of its logs, which keep a stale owner from appending to a log that is gone. The log
    of generation 0 is kept because with Brainy's tree it is the only copy of what was committed there, in order.
    """
    kind = kind_of(number, key)
    return kind in ("spec", _COLLECTED) or (number == 0 and kind == _LOG)


async def count(store: ObjectStore, number: int) -> Contents:
    """List a generation and count.

    Raises:
        BrainyError: what the store said.
    """
    going: dict[str, Count] = {}
    staying: dict[str, Count] = {}
    async for page in store.list(layout.generation(number)):
        _add(number, page, going, staying)
    return Contents(deleted=going, stays=staying)


def _add(number: int, page: Iterable[ObjectMeta], going: dict[str, Count], staying: dict[str, Count]) -> None:
    for meta in page:
        into = staying if stays(number, meta.key) else going
        kind = kind_of(number, meta.key)
        into[kind] = into.get(kind, Count()).plus(meta)
