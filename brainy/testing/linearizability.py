"""Was it a lock? A checker for histories of lock calls, after Wing & Gong and Lowe ("Testing for linearizability").

A history is a set of calls, each with the time it began and the time it was answered. It is *linearizable* if
every call can be given one instant between the two such that, in the order of those instants, a plain lock would
have answered the same:

* a grant succeeds only when nobody holds the lock, or the holder's lease has been over (its length after the
  last grant or renewal *began*, the earliest a server can count it from), or by force; its token is above every
  earlier one's;
* a renewal or release succeeds only for the holder (releasing again what was released, too), and is refused only
  to one who is not, or whose own deadline has passed;
* a call that was never answered may have happened at any time since, or never.

The search goes through all orders, but a state (calls placed, lock) is visited once, and grants can only be
placed by rising token, so histories of some hundred calls take milliseconds. Locks are independent: each name is
checked by itself.
"""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from brainy.clock import Clock
from brainy.errors import FencedError, LeaseHeldError
from brainy.locks.base import Grant, LockProvider, LockState
from brainy.locks.record import DRIFT

#: A point in time: seconds on one clock, and a number that orders what happened at the same reading of it.
Moment = tuple[float, int]
_NEVER: Moment = (math.inf, 0)
_NOBODY = 0
_UNKNOWN = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call of a lock provider, as its caller saw it."""

    kind: Literal["grant", "renew", "release", "break"]
    name: str
    #: For people: who called.
    caller: str
    began: Moment
    #: None: no answer, or one that says nothing of what happened.
    answered: Moment | None
    ok: bool
    #: Of the grant, given or used; of an unanswered grant unknown and 0.
    token: int
    #: Of a grant or renewal.
    ttl_seconds: float = 0.0
    force: bool = False
    #: Of a refused renewal: the holder's own deadline.
    deadline: float = math.inf

    def __str__(self) -> str:
        answer = "?" if self.answered is None else "ok" if self.ok else "refused"
        return f"{self.caller} {self.kind} {self.token} {answer} [{self.began[0]:.4f}]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The result of a check."""

    linearizable: bool
    #: Of the first lock that was none.
    name: str = ""
    #: The longest order that worked, and the calls none of which could come next.
    order: Sequence[Call] = ()
    stuck: Sequence[Call] = ()

    def __bool__(self) -> bool:
        return self.linearizable

    def __str__(self) -> str:
        if self.linearizable:
            return "linearizable"
        done = "; ".join(str(call) for call in self.order[-6:])
        stuck = "; ".join(str(call) for call in self.stuck[:6])
        return f"{self.name} is not a lock: after {len(self.order)} calls ({done}) none of these fits: {stuck}"


@dataclass(frozen=True, slots=True)
class _Lock:
    """The plain lock: what a state of the search looks like."""

    #: Of the latest grant or break.
    token: int
    #: The holder's token, _NOBODY, or _UNKNOWN and below for a grant that was never answered.
    holder: int
    #: The holder's lease cannot be over before.
    safe_until: float
    #: No instant before this can be chosen any more.
    now: Moment


class History:
    """Calls as they happen; wrap each process's provider with ``recorded``."""

    def __init__(self, clock: Clock) -> None:
        """Begin; ``clock`` is the one all callers are timed by."""
        self._clock = clock
        self._order = itertools.count()
        self.calls: list[Call] = []

    def moment(self) -> Moment:
        """Return now, later than every moment returned before."""
        return (self._clock.monotonic(), next(self._order))

    def recorded(self, locks: LockProvider, caller: str) -> RecordedLocks:
        """Return a provider that passes calls on and notes them."""
        return RecordedLocks(locks, self, caller)


class RecordedLocks:
    """A ``LockProvider`` whose calls end up in a ``History``."""

    def __init__(self, locks: LockProvider, history: History, caller: str) -> None:
        self._locks = locks
        self._history = history
        self._caller = caller

    async def grant(
        self,
        name: str,
        *,
        owner: str,
        incarnation: str,
        ttl_seconds: float,
        purpose: str = "",
        force: bool = False,
    ) -> Grant:
        """Pass on and note."""
        began = self._history.moment()
        try:
            grant = await self._locks.grant(
                name, owner=owner, incarnation=incarnation, ttl_seconds=ttl_seconds, purpose=purpose, force=force
            )
        except LeaseHeldError:
            raise  # changes nothing; why is not part of the model (waiters may go first)
        except BaseException:
            self._note("grant", name, began, answered=False, ok=False, ttl_seconds=ttl_seconds, force=force)
            raise
        self._note("grant", name, began, ok=True, token=grant.token, ttl_seconds=ttl_seconds, force=force)
        return grant

    async def acquire(
        self,
        name: str,
        *,
        owner: str,
        incarnation: str,
        ttl_seconds: float,
        wait_until: float,
        purpose: str = "",
    ) -> Grant:
        """Pass on and note."""
        began = self._history.moment()
        try:
            grant = await self._locks.acquire(
                name,
                owner=owner,
                incarnation=incarnation,
                ttl_seconds=ttl_seconds,
                wait_until=wait_until,
                purpose=purpose,
            )
        except LeaseHeldError:
            raise
        except BaseException:
            self._note("grant", name, began, answered=False, ok=False, ttl_seconds=ttl_seconds)
            raise
        # The request that was granted was sent after the waiting; the deadline tells when.
        began = max(began, (grant.deadline - ttl_seconds * (1 - DRIFT), began[1]))
        self._note("grant", name, began, ok=True, token=grant.token, ttl_seconds=ttl_seconds)
        return grant

    async def renew(self, grant: Grant) -> Grant:
        """Pass on and note."""
        began = self._history.moment()
        try:
            renewed = await self._locks.renew(grant)
        except FencedError:
            self._note("renew", grant.name, began, ok=False, token=grant.token, deadline=grant.deadline)
            raise
        except BaseException:
            self._note(
                "renew", grant.name, began, answered=False, ok=False, token=grant.token, ttl_seconds=grant.ttl_seconds
            )
            raise
        self._note("renew", grant.name, began, ok=True, token=grant.token, ttl_seconds=grant.ttl_seconds)
        return renewed

    async def release(self, grant: Grant) -> None:
        """Pass on and note."""
        began = self._history.moment()
        try:
            await self._locks.release(grant)
        except FencedError:
            self._note("release", grant.name, began, ok=False, token=grant.token)
            raise
        except BaseException:
            self._note("release", grant.name, began, answered=False, ok=False, token=grant.token)
            raise
        self._note("release", grant.name, began, ok=True, token=grant.token)

    async def force_release(self, name: str, *, by: str, reason: str) -> LockState:
        """Pass on and note."""
        began = self._history.moment()
        try:
            state = await self._locks.force_release(name, by=by, reason=reason)
        except BaseException:
            self._note("break", name, began, answered=False, ok=False)
            raise
        self._note("break", name, began, ok=True, token=state.token)
        return state

    async def describe(self, name: str) -> LockState | None:
        """Pass on."""
        return await self._locks.describe(name)

    async def list(self, prefix: str = "") -> Sequence[LockState]:
        """Pass on."""
        return await self._locks.list(prefix)

    async def close(self) -> None:
        """Pass on."""
        await self._locks.close()

    def _note(
        self,
        kind: Literal["grant", "renew", "release", "break"],
        name: str,
        began: Moment,
        *,
        ok: bool,
        answered: bool = True,
        token: int = 0,
        ttl_seconds: float = 0.0,
        force: bool = False,
        deadline: float = math.inf,
    ) -> None:
        self._history.calls.append(
            Call(
                kind=kind,
                name=name,
                caller=self._caller,
                began=began,
                answered=self._history.moment() if answered else None,
                ok=ok,
                token=token,
                ttl_seconds=ttl_seconds,
                force=force,
                deadline=deadline,
            )
        )


def check(calls: Iterable[Call]) -> Verdict:
    """Say whether a history is one of locks; the first name that is not makes the verdict."""
    by_name: dict[str, list[Call]] = defaultdict(list)
    for call in calls:
        by_name[call.name].append(call)
    for name, some in sorted(by_name.items()):
        verdict = _check_one(name, some)
        if not verdict:
            return verdict
    return Verdict(linearizable=True)


def _check_one(name: str, calls: Sequence[Call]) -> Verdict:
    calls = sorted(calls, key=lambda call: call.began)
    needed = sum(1 << place for place, call in enumerate(calls) if call.answered is not None)
    start = _Lock(0, _NOBODY, 0.0, (-math.inf, 0))
    if not needed:
        return Verdict(linearizable=True)
    # Depth first, by hand: histories are longer than Python's stack.
    seen: set[tuple[int, _Lock]] = set()
    stack: list[tuple[int, Iterator[tuple[int, _Lock]]]] = [(0, _next(calls, 0, start))]
    path: list[int] = []
    longest: list[int] = []
    longest_state: tuple[int, _Lock] = (0, start)
    while stack:
        placed, options = stack[-1]
        step = next(options, None)
        if step is None:
            stack.pop()
            if path:
                path.pop()
            continue
        place, lock = step
        now_placed = placed | 1 << place
        if (now_placed, lock) in seen:
            continue
        seen.add((now_placed, lock))
        path.append(place)
        if len(path) > len(longest):
            longest, longest_state = list(path), (now_placed, lock)
        if now_placed & needed == needed:
            return Verdict(linearizable=True)
        stack.append((now_placed, _next(calls, now_placed, lock)))
    stuck = [
        call for place, call in enumerate(calls) if not longest_state[0] >> place & 1 and call.answered is not None
    ]
    return Verdict(linearizable=False, name=name, order=[calls[place] for place in longest], stuck=stuck)


def _next(calls: Sequence[Call], placed: int, lock: _Lock) -> Iterator[tuple[int, _Lock]]:
    """Yield every call that can come next, with the lock after it; the likeliest first."""
    open_calls = [(place, call) for place, call in enumerate(calls) if not placed >> place & 1]
    # Whatever comes next must come before the earliest answer that is still to be accounted for.
    limit = min((call.answered for _, call in open_calls if call.answered is not None), default=_NEVER)
    tokens = [call.token for _, call in open_calls if call.answered is not None and call.ok and _raises(call)]
    lowest = min(tokens, default=0)
    candidates = [(place, call) for place, call in open_calls if call.began <= limit]
    candidates.sort(key=lambda item: (item[1].answered is None, item[1].answered or _NEVER))
    for place, call in candidates:
        if call.answered is not None and call.ok and _raises(call) and call.token > lowest:
            continue  # the one with the lowest token could never be placed after it
        after = _apply(lock, place, call)
        if after is not None and after.now <= min(limit, call.answered or _NEVER):
            yield place, after


def _raises(call: Call) -> bool:
    return call.kind in ("grant", "break")


def _apply(lock: _Lock, place: int, call: Call) -> _Lock | None:
    """Return the lock after a call at the earliest instant it can have, or None if it cannot have been."""
    now = max(lock.now, call.began)
    done = call.ok or call.answered is None
    mine = lock.holder == call.token
    # The server counts a lease from when it was reached, which is not before the call began.
    end = call.began[0] + call.ttl_seconds
    if call.kind == "grant":
        if lock.holder != _NOBODY and not call.force:
            now = max(now, (lock.safe_until, 0))
        if call.answered is None:
            # Nobody knows its token, so nobody presents it; it lies between its neighbours'.
            return _Lock(lock.token, _UNKNOWN - place, end, now)
        return _Lock(call.token, call.token, end, now) if call.token > lock.token else None
    if call.kind == "break":
        token = lock.token if call.answered is None else call.token
        return _Lock(token, _NOBODY, 0.0, now) if call.answered is None or token > lock.token else None
    if call.kind == "renew":
        if done:
            return _Lock(lock.token, lock.holder, max(lock.safe_until, end), now) if mine else None
        if mine:
            now = max(now, (min(lock.safe_until, call.deadline), 0))
        return _Lock(lock.token, lock.holder, lock.safe_until, now)
    if done:
        again = lock.holder == _NOBODY and lock.token == call.token
        return _Lock(lock.token, _NOBODY, 0.0, now) if mine or again else None
    return None if mine else _Lock(lock.token, lock.holder, lock.safe_until, now)
