"""Which of the suspected items differ, and which were only seen between two writes.

The two sides were not read at one instant, so what is being written looks different. Every suspected item is read again
on both sides, at once and then after pauses that double. It is let go when both sides agree; or when one side follows,
that is, *changed* to what the other held at an earlier look or between looks (a log tells that), or changed to
something new by way of it. A side that merely stands at what the other once held is not let go by that: it is stale,
or brought back what was deleted. In the end:

* neither side changed between the last two looks: the difference is real;
* one of them did: nobody can say (``unsettled``); it is counted, and is neither.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from brainy.clock import Clock
from brainy.verify.fields import difference
from brainy.verify.sides import Side, Watch
from brainy.verify.together import together
from brainy.verify.values import Findings, Holding, Item, Name, Place, What

#: Differences and unsettled items that are named; all are counted.
LISTED = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How often and after what pauses suspected items are read again."""

    rechecks: int = 3
    #: Seconds before the first; each further one is twice as long.
    pause: float = 5.0


class _Held:
    """What one side was seen to hold of an item."""

    __slots__ = ("changed", "item", "now", "seen")

    def __init__(self, item: Item | None) -> None:
        self.item = item
        self.now = _digest(item)
        #: Digests from the first look on.
        self.seen = {self.now}
        #: Between the last two looks.
        self.changed = False


class _Suspect:
    """An item that both sides held differently at every look so far."""

    __slots__ = ("a", "b")

    def __init__(self, a: Item | None, b: Item | None) -> None:
        self.a, self.b = _Held(a), _Held(b)

    @property
    def changed(self) -> bool:
        return self.a.changed or self.b.changed

    def agree(self, a: tuple[Item | None, set[bytes]], b: tuple[Item | None, set[bytes]]) -> bool:
        """Take in another look (the item now, and digests it passed through); whether the item may be let go."""
        before = frozenset(self.a.seen), frozenset(self.b.seen)
        steps = []
        for held, (item, passed) in ((self.a, a), (self.b, b)):
            now = _digest(item)
            # The same written again is no change.
            held.changed = bool((passed | {now}) - {held.now})
            held.item, held.now = item, now
            steps.append(passed | {now} if held.changed else set())
            held.seen |= passed | {now}
        return (
            self.a.now == self.b.now
            or _follows(self.b, steps[1], before[1], self.a.seen, before[0])
            or _follows(self.a, steps[0], before[0], self.b.seen, before[1])
        )


def _follows(
    held: _Held, steps: set[bytes], own_before: frozenset[bytes], other: set[bytes], other_before: frozenset[bytes]
) -> bool:
    """Whether a side changed to what the other held, or went by way of it to something it never held."""
    if not held.changed:
        return False
    return held.now in other or (bool(steps & other_before) and held.now not in own_before)


async def recheck(
    a: Side, b: Side, names: Sequence[Name], patience: Patience, clock: Clock, findings: Findings
) -> tuple[Place, Place]:
    """Add to the findings what remains of the suspected items; returns where the last looks were.

    Memory: the items, on both sides. Errors as ``Watch.look``.
    """
    watches = a.watch(names), b.watch(names)
    held_a, held_b = await _look(watches, names)
    pending = {
        name: _Suspect(held_a[name], held_b[name]) for name in names if _digest(held_a[name]) != _digest(held_b[name])
    }
    for turn in range(patience.rechecks if a.moves or b.moves else 0):
        if not pending:
            break
        await clock.sleep(patience.pause * 2**turn)
        held_a, held_b = await _look(watches, tuple(pending))
        for name, suspect in list(pending.items()):
            if suspect.agree((held_a[name], watches[0].passed(name)), (held_b[name], watches[1].passed(name))):
                del pending[name]
    findings.suspected += len(names)
    for name, suspect in pending.items():
        _settle(findings, name, suspect)
    return watches[0].place, watches[1].place


async def _look(watches: tuple[Watch, Watch], names: Sequence[Name]) -> tuple[Holding, Holding]:
    return await together(watches[0].look(names), watches[1].look(names))


def _settle(findings: Findings, name: Name, suspect: _Suspect) -> None:
    if suspect.changed:
        findings.unsettled += 1
        if len(findings.unsettled_items) < LISTED:
            findings.unsettled_items.append(name)
        return
    found = difference(name, suspect.a.item, suspect.b.item)
    findings.missing += found.what is What.MISSING
    findings.extra += found.what is What.EXTRA
    findings.mismatched += found.what is What.MISMATCHED
    if len(findings.differences) < LISTED:
        findings.differences.append(found)


def _digest(item: Item | None) -> bytes:
    return b"" if item is None else item.digest()
