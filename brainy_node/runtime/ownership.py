"""The shards of this node as following sees them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import TYPE_CHECKING

from brainy.changelog.batch import Slot
from brainy.changelog.commits import GroupCommit
from brainy.errors import BrainyError
from brainy_node.following.owned import OwnedShard, ownership_ended
from brainy_node.runtime.host import Host
from brainy_node.runtime.pinning import stands_on_own_base
from brainy_node.shard.shard import Shard

if TYPE_CHECKING:
    from brainy_node.runtime.hosted_shard import HostedShard


class Ownership:
    """A hosted shard under the epoch at which it was looked at (``OwnedShard``)."""

    def __init__(self, host: Host, hosted: HostedShard, settle_dimensions: Callable[[int], Awaitable[object]]) -> None:
        self._host = host
        self._hosted = hosted
        self._settle_dimensions = settle_dimensions
        self.generation = hosted.assignment.generation
        self.number = hosted.assignment.shard
        self.epoch = hosted.assignment.epoch

    @property
    def shard_count(self) -> int:
        """Shards of the generation."""
        return self.shard.spec.shard_count

    @property
    def shard(self) -> Shard:
        """What is served.

        Raises:
            UnavailableError: the ownership ended.
        """
        shard = self._hosted.shard
        if shard is None or self._hosted.assignment.epoch != self.epoch:
            raise ownership_ended(self.number)
        return shard

    @property
    def commits(self) -> GroupCommit:
        """The way into the log.

        Raises:
            UnavailableError: the ownership ended.
        """
        commits = self._hosted.commits_now
        if commits is None or self._hosted.assignment.epoch != self.epoch:
            raise ownership_ended(self.number)
        return commits

    @property
    def may_commit(self) -> bool:
        """Whether the routing record in force lets this generation take writes now."""
        routing = self._host.routing
        return routing.write == self.generation and routing.phase == "serving"

    async def slots(self, from_position: int) -> AsyncIterator[Slot]:
        """Stream the log from a position on, until the ownership ends."""
        try:
            async for slot in self._hosted.follow(from_position):
                yield slot
        except BrainyError:
            return

    async def fit(self, dimensions: int) -> None:
        """Give a namespace that began empty its dimensions."""
        await self._settle_dimensions(dimensions)
        await self._hosted.settle_dimensions()


def owned_now(
    host: Host, hosted: Iterable[HostedShard], settle_dimensions: Callable[[int], Awaitable[object]]
) -> list[OwnedShard]:
    """Return the shards to be followed here: of the generation that takes writes, owned, open, on a shared base."""
    routing = host.view.known
    if routing is None:
        return []
    return [
        Ownership(host, each, settle_dimensions)
        for each in hosted
        if each.assignment.generation == routing.write
        and each.commits_now is not None
        and each.shard is not None
        and not stands_on_own_base(host, each.shard)
    ]
