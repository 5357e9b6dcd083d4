"""``cluster/follow.json``: what a namespace is to do while Brainy processes live on it. A person's choice."""

from __future__ import annotations

from typing import Literal, get_args

from brainy.bucket import layout
from brainy.bucket.records import Record, Routing, Spec
from brainy.clock import Clock
from brainy.errors import ConflictError, PreconditionError
from brainy.ids import Ids
from brainy.store.base import ObjectStore
from brainy.store.cas import CasRegister

MirrorDialect = Literal["", "flat-one-piece", "flat-split", "entity"]
DIALECTS: tuple[MirrorDialect, ...] = get_args(MirrorDialect)
_ATTEMPTS = 8


class FollowChoice(Record):
    """The choice; absent is the same as neither."""

    nonce: str = ""
    #: Take over what Brainy processes write into the tree.
    follow: bool = False
    #: Write the cluster's commits back in the dialect of this tree; "" for not.
    mirror: MirrorDialect = ""
    #: ISO 8601, for people.
    changed_at: str = ""


def follow_register(store: ObjectStore, *, clock: Clock, ids: Ids) -> CasRegister[FollowChoice]:
    """Return the one object the choice is in."""
    return CasRegister(
        store,
        layout.FOLLOW,
        encode=FollowChoice.encode,
        decode=lambda body: FollowChoice.decode(body, key=layout.FOLLOW),
        clock=clock,
        ids=ids,
    )


async def read_choice(store: ObjectStore) -> FollowChoice:
    """Read the choice (one GET).

    Raises:
        BrainyError: what the store said, or the record is damaged.
    """
    found = await store.get(layout.FOLLOW)
    return FollowChoice() if found is None else FollowChoice.decode(found.body, key=layout.FOLLOW)


async def change_choice(
    store: ObjectStore,
    *,
    follow: bool | None = None,
    mirror: MirrorDialect | None = None,
    changed_at: str,
    clock: Clock,
    ids: Ids,
) -> FollowChoice:
    """Change what is given, leave the rest as it is; returns what is stored now.

    Raises:
        ConflictError: somebody else changed it at each attempt.
        PreconditionError: it would begin beside a way back that a migration keeps (WRONG_PHASE).
    """
    if follow or mirror:
        await _require_alone(store)
    register = follow_register(store, clock=clock, ids=ids)
    for _ in range(_ATTEMPTS):
        found = await register.load()
        old = FollowChoice() if found is None else found[0]
        changes: dict[str, object] = {"nonce": ids.nonce().hex(), "changed_at": changed_at}
        if follow is not None:
            changes["follow"] = follow
        if mirror is not None:
            changes["mirror"] = mirror
        new = old.model_copy(update=changes)
        if (new.follow, new.mirror) == (old.follow, old.mirror) and found is not None:
            return old
        if await register.swap(new, None if found is None else found[1]):
            return new
    raise ConflictError("the choice was changed by somebody else each time", remedy="try again", key=layout.FOLLOW)


async def _require_alone(store: ObjectStore) -> None:
    """Refuse to begin beside a way back: the tree would be read, or written, from two generations in turn."""
    found = await store.get(layout.ROUTING)
    if found is None:
        return
    routing = Routing.decode(found.body, key=layout.ROUTING)
    if any(placed.follow_from for placed in routing.generations.values()):
        raise PreconditionError(
            "a migration keeps a way back, and Brainy's own tree cannot be followed or mirrored to meanwhile",
            reason="WRONG_PHASE",
            remedy="complete the migration (brainy migrate complete), or roll it back and abort it",
            migration=routing.migration,
        )
    if 0 < routing.rolled_back_from <= routing.active:
        # Both begin with what was ever committed, in its order, and that alternates between two logs.
        raise PreconditionError(
            "the namespace was rolled back and went forward again: its commits cannot be told one after the other",
            reason="WRONG_PHASE",
            remedy="back it up, and restore it into another namespace",
            generation=routing.active,
        )
    for number in routing.generations:
        if await _was_reembedded(store, number):
            raise PreconditionError(
                "another model than Brainy's embeds the texts here, and its tree holds vectors of its own",
                reason="WRONG_PHASE",
                remedy="let Brainy's processes become clients of the cluster",
                generation=number,
            )


async def _was_reembedded(store: ObjectStore, number: int) -> bool:
    """Whether the model was changed by the migration that made a generation, or by one before it."""
    next_one: int | None = number
    while next_one is not None:
        found = await store.get(layout.spec(next_one))
        if found is None:
            return False
        spec = Spec.decode(found.body, key=found.key)
        if spec.reembedding is not None:
            return True
        next_one = spec.made_of
    return False
