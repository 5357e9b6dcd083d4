"""What the mirror asks of, and tells, whoever watches Brainy's tree for changes that are not ours."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from brainy.store.base import StoredObject


class SeenObjects(Protocol):
    """The versions of objects that what is served already includes.

    The mirror ``hold``s a key before its PUT or DELETE, and then says ``wrote``, ``deleted`` or, where nothing landed,
    ``release``.
    """

    @property
    def watches(self) -> bool:
        """Whether anybody takes over changes of Brainy's. If not, our state is the only one and is written as it is."""

    def unchanged(self, key: str, found: StoredObject | None) -> bool:
        """Whether what was read now is the version (None: the absence) that was taken over last."""

    def hold(self, key: str) -> None:
        """We are about to write or delete it."""

    def release(self, key: str) -> None:
        """Nothing landed."""

    def wrote(self, key: str, etag: str) -> None:
        """Our PUT landed under this ETag."""

    def deleted(self, key: str) -> None:
        """Our DELETE landed."""


class NothingSeen:
    """Nobody watches."""

    @property
    def watches(self) -> bool:
        """Nobody does."""
        return False

    def unchanged(self, key: str, found: StoredObject | None) -> bool:
        """Nobody knows better."""
        return True

    def hold(self, key: str) -> None:
        """Nothing to do."""

    def release(self, key: str) -> None:
        """Nothing to do."""

    def wrote(self, key: str, etag: str) -> None:
        """Nothing to do."""

    def deleted(self, key: str) -> None:
        """Nothing to do."""


class Book(Protocol):
    """The book of seen versions of one shard."""

    def version(self, key: str) -> Any:
        """The version of an object seen last, None if there was no such object. Has ``same_as``."""

    def hold(self, key: str) -> None:
        """Never report the key until released."""

    def release(self, key: str) -> None:
        """Nothing landed."""

    def wrote(self, key: str, etag: str) -> None:
        """A write landed."""

    def deleted(self, key: str) -> None:
        """A delete landed."""


class SeenInBook:
    """What a book says, where one is kept for the shard; while none is open yet, nothing counts as seen."""

    def __init__(
        self,
        book: Callable[[], Book | None],
        *,
        watches: Callable[[], bool],
        version_of: Callable[[str, float], Any],
    ) -> None:
        """Ask ``book`` each time; ``version_of`` makes a version of an ETag and a LastModified."""
        self._book = book
        self._watches = watches
        self._version_of = version_of

    @property
    def watches(self) -> bool:
        """Whether the namespace is followed."""
        return self._watches()

    def unchanged(self, key: str, found: StoredObject | None) -> bool:
        """Whether the book knows this version, or this absence."""
        book = self._book()
        if book is None:
            return False
        known = book.version(key)
        if found is None or known is None:
            return found is None and known is None
        return bool(known.same_as(self._version_of(found.etag, found.last_modified)))

    def hold(self, key: str) -> None:
        """Tell the book."""
        if (book := self._book()) is not None:
            book.hold(key)

    def release(self, key: str) -> None:
        """Tell the book."""
        if (book := self._book()) is not None:
            book.release(key)

    def wrote(self, key: str, etag: str) -> None:
        """Tell the book."""
        if (book := self._book()) is not None:
            book.wrote(key, etag)

    def deleted(self, key: str) -> None:
        """Tell the book."""
        if (book := self._book()) is not None:
            book.deleted(key)
