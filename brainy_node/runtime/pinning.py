"""A tree that Brainy processes write is no base: the first owner that follows it pins one for everybody.

Generation 0 is read in place, by each node for itself and at its own time. As long as nobody writes the tree all
nodes read the same. While somebody does, two nodes read different states, and what one of them never saw (an item
added and deleted between two of the owner's passes) no record of the log would ever mend on the other.

*Before.* The namespace is followed; this node owns the shard, has fenced its log and serves it.

*Steps.*
  1. The owner publishes its base with the log folded in, as the owner of any later generation does: segments, index,
     and the manifest that names them (``builder.publication``). Nothing foreign was committed before.
  2. It swaps its own base for that one, and begins to follow.
  3. Whoever holds the shard on a base of its own (a replica, or an owner that was one) sees the manifest, and begins
     anew from the checkpoint. New replicas never read the tree.

*After.* Every replica is the published checkpoint plus the log. Both are the same for all, so all are equal at equal
positions. A migration fills from the checkpoints, too.

*If it crashes* before the manifest lands: orphans; the next owner publishes its own. After it: the next owner finds
the manifest and begins from it. Two owners cannot both win: the manifest is swapped by its ETag and epoch.

The manifest stays when following ends.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from brainy.bucket import layout
from brainy.errors import BrainyError
from brainy.telemetry.logs import get_logger
from brainy_node.runtime.host import Host
from brainy_node.shard.shard import Shard

if TYPE_CHECKING:
    from brainy_node.runtime.hosted_shard import HostedShard

_log = get_logger(__name__)


async def is_pinned(host: Host, shard: int) -> bool:
    """Whether a shard of generation 0 has a published base.

    Raises:
        BrainyError: what the store said.
    """
    return await host.store.get(layout.manifest(0, shard)) is not None


def stands_on_own_base(host: Host, shard: Shard) -> bool:
    """Whether a replica rests on what this node read from the tree by itself."""
    return host.supply.is_adopted(shard.spec, shard.base)


async def must_change_base(host: Host, shard: Shard) -> bool:
    """Whether a replica has to begin anew because a base was pinned since it was opened.

    Raises:
        BrainyError: what the store said.
    """
    return stands_on_own_base(host, shard) and await is_pinned(host, shard.number)


async def publish_base(host: Host, shard: Shard, epoch: int) -> None:
    """Publish what the owner serves and put it in force here; the steps are at the top of this module.

    Raises:
        BrainyError: the builder or the store.
        CorruptDataError: what was built is not what is served; nothing was changed here.
    """
    base = await host.supply.fold(shard.spec, shard.base, shard.number, up_to=shard.applied, epoch=epoch, publish=True)
    shard.swap_base(base)
    await host.supply.discard_others(shard.spec, shard.number, base)
    _log.info("base_pinned", shard=shard.number, position=base.position, epoch=epoch)


async def pin(host: Host, hosted: HostedShard) -> None:
    """See to it that a shard of a followed generation 0 rests on the base all its replicas share."""
    shard = hosted.shard
    if shard is None or not hosted.readable or not stands_on_own_base(host, shard):
        return
    try:
        if await is_pinned(host, shard.number):
            await hosted.begin_anew(shard)
        elif hosted.commits_now is not None:
            await publish_base(host, shard, hosted.assignment.epoch)
    except BrainyError as error:
        _log.warning("pin_failed", shard=shard.number, cause=str(error))
