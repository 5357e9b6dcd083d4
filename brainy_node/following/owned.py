"""What following needs of a shard this node owns."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol

from brainy.changelog.batch import Slot
from brainy.changelog.commits import GroupCommit
from brainy.errors import UnavailableError
from brainy_node.shard.shard import Shard


class OwnedShard(Protocol):
    """A shard of the write generation, fenced and open for commits under one epoch."""

    @property
    def generation(self) -> int:
        """Its generation."""

    @property
    def number(self) -> int:
        """Its number."""

    @property
    def shard_count(self) -> int:
        """Shards of the generation."""

    @property
    def epoch(self) -> int:
        """Fencing token of this ownership."""

    @property
    def shard(self) -> Shard:
        """What is served."""

    @property
    def commits(self) -> GroupCommit:
        """The way into the log.

        Raises:
            UnavailableError: the ownership ended.
        """

    @property
    def may_commit(self) -> bool:
        """Whether the routing record in force lets this generation take writes now."""

    def slots(self, from_position: int) -> AsyncIterator[Slot]:
        """Stream the log from a position on, for ever."""

    async def fit(self, dimensions: int) -> None:
        """See to it that a namespace that began empty has dimensions before its first vector is committed."""


def ownership_ended(shard: int) -> UnavailableError:
    """Return the error of a duty that is over."""
    return UnavailableError("the ownership of the shard ended", reason="NOT_OWNER", shard=shard)
