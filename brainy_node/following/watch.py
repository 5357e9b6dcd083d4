"""What a mirror tells, and asks of, whoever follows the tree for a shard; valid whatever becomes of the ownership."""

from __future__ import annotations

from typing import TYPE_CHECKING

from brainy.store.base import StoredObject

if TYPE_CHECKING:
    from brainy_node.following.follower import Follower


class ShardWatch:
    """The book of one shard as it is at each moment (``brainy.legacy.seen``, *Own writes*).

    While the namespace is followed and the shard's book is not complete yet, nothing counts as unchanged: whoever wants
    to write waits until the tree was compared.
    """

    def __init__(self, follower: Follower, generation: int, shard: int) -> None:
        self._follower = follower
        self._generation = generation
        self._shard = shard

    @property
    def watches(self) -> bool:
        """Whether somebody takes over what Brainy processes write."""
        return self._follower.choice.follow

    def unchanged(self, key: str, found: StoredObject | None) -> bool:
        """Whether what was read now is the version (None: the absence) that was taken over last."""
        followed = self._follower.followed(self._generation, self._shard)
        if followed is None or followed.book is None:
            return not self.watches
        return followed.book.unchanged(key, found)

    def hold(self, key: str) -> None:
        """We are about to write or delete it."""
        if (followed := self._follower.followed(self._generation, self._shard)) is not None:
            followed.seen.hold(key)

    def release(self, key: str) -> None:
        """Nothing landed."""
        if (followed := self._follower.followed(self._generation, self._shard)) is not None:
            followed.seen.release(key)

    def wrote(self, key: str, etag: str) -> None:
        """Our PUT landed under this ETag."""
        if (followed := self._follower.followed(self._generation, self._shard)) is not None:
            followed.seen.wrote(key, etag)

    def deleted(self, key: str) -> None:
        """Our DELETE landed."""
        if (followed := self._follower.followed(self._generation, self._shard)) is not None:
            followed.seen.deleted(key)

    def reached(self, position: int) -> None:
        """Everything of the shard's log up to here is in the tree, and of the logs before it."""
        if (followed := self._follower.followed(self._generation, self._shard)) is not None:
            followed.mirror_reached(position)
