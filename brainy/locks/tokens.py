"""Where a backend that can forget gets its tokens from: blocks of them, set aside in the object store.

A Redis that is flushed, restarted from an old snapshot or replaced by a replica that lags has lost count. So it
never counts by itself: it hands out tokens of a *block*, and a block is written to the lock's record in the
bucket (its ``epoch`` becomes the block's last token) before the first of its tokens exists. Whoever has lost
count takes the next block. Most tokens of a lost block are never used; they are not missed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol

from brainy.ids import Ids
from brainy.locks.object_store import ObjectStoreLocks

#: Tokens a block has: a bucket write for this many grants.
BLOCK_TOKENS: Final = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenBlock:
    """The right to hand out the tokens ``first`` to ``last`` of one lock, in rising order, once."""

    id: str
    first: int
    last: int


class TokenFloor(Protocol):
    """A durable record of which tokens of a name may exist. Errors: those of ``LockProvider``."""

    async def current(self, name: str) -> str:
        """Return the id of the block that may be handed out now, or "" when there is none."""

    async def reserve(self, name: str, *, above: int) -> TokenBlock | None:
        """Make a new block the current one: above ``above`` and above every token of the record.

        Returns:
            The block, durable; or None when another party changed the record meanwhile.

        Raises:
            LeaseHeldError: the lock is held through the durable record itself.
        """


class BucketTokens:
    """``TokenFloor`` over the records of ``ObjectStoreLocks``: a reserve is one GET and one PUT."""

    def __init__(self, locks: ObjectStoreLocks, ids: Ids, *, owner: str = "redis", tokens: int = BLOCK_TOKENS) -> None:
        self._locks = locks
        self._ids = ids
        self._owner = owner
        self._tokens = tokens

    async def current(self, name: str) -> str:
        """Return the id of the current block; one GET."""
        state = await self._locks.describe(name)
        if state is None or state.held or state.owner != self._owner:
            return ""
        return state.incarnation

    async def reserve(self, name: str, *, above: int) -> TokenBlock | None:
        """Make a new block the current one; see ``TokenFloor``."""
        block = self._ids.nonce().hex()
        last = await self._locks.reserve(name, count=self._tokens, floor=above, owner=self._owner, block=block)
        return None if last is None else TokenBlock(id=block, first=last - self._tokens + 1, last=last)
