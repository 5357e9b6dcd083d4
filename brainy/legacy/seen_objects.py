"""What the mirror asks of, and tells, whoever watches Brainy's tree for changes that are not ours."""

from __future__ import annotations

from typing import Protocol

from brainy.store.base import StoredObject


class SeenObjects(Protocol):
    """The versions of objects that what is served already includes.

    The mirror ``hold``s a key before its PUT or DELETE, and then says ``wrote``, ``deleted`` or, where nothing landed,
    ``release``. With ``reached`` it says how far it has got.
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

    def reached(self, position: int) -> None:
        """Everything of the shard's log up to here, and of the logs before it, is in the tree; each write was told."""


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

    def reached(self, position: int) -> None:
        """Nothing to do."""
