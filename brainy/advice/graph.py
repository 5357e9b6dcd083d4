"""The decision graph: the guide's three questions, and what is asked before and after them here. Pure.

The guide asks whether the bucket is shared, whether all instances can be stopped, and whether there must be no
downtime. Its answer is the leaf ``guide``. ``preferred`` is the order in which strategies are tried, which takes
account of what the guide does not ask; the first one that nothing rules out is advised.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from brainy.advice.situation import Situation
from brainy.advice.values import Crossing, Way

STOP = "Can all instances stop for as long as it takes?"
SHARED = "Is the bucket shared?"
ZERO = "Must there be no downtime at all?"
VECTORS = "Are there vectors, to be kept?"
ANYTHING = "Is there anything in the namespace?"
OWN_PREFIX = "Is a prefix of its own wanted?"
ELSEWHERE = "Shall it end up in another bucket or prefix?"
UNTOUCHED = "Must nothing change under the source's prefix?"
OLD_WRITERS = "Do Brainy processes write meanwhile?"
MACHINES = "Is there more than one node?"


_Ask: TypeAlias = Callable[[str, bool, str], bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class Walk:
    """A way through the graph."""

    path: tuple[Crossing, ...]
    #: Where the guide's own questions lead; None in an empty namespace.
    guide: Way | None
    preferred: tuple[Way, ...]


def walk(at: Situation, *, window_seconds: float | None, nodes: int) -> Walk:
    """Answer the graph's questions.

    ``window_seconds`` is how long everybody would have to stand still for an upgrade in place; None if unknown.
    """
    path: list[Crossing] = []

    def ask(question: str, answer: bool, why: str) -> bool:
        path.append(Crossing(question=question, answer="yes" if answer else "no", why=why))
        return answer

    if not ask(ANYTHING, at.facts.state != "empty", _contents(at)):
        return Walk(path=tuple(path), guide=None, preferred=(Way.SPARSE_IMPORT, Way.BACKUP_RESTORE))
    first: list[Way] = []
    if not ask(VECTORS, at.vectors, "" if at.vectors else "they are made anew from the texts"):
        first.append(Way.SPARSE_IMPORT)
    if ask(OWN_PREFIX, at.isolate, ""):
        first.append(Way.DEDICATED)
    guide, rest = _guides(at, ask, window_seconds, nodes)
    elsewhere = at.target is not None
    if ask(ELSEWHERE, elsewhere, at.target or "") or ask(UNTOUCHED, at.keep_source, ""):
        away = [Way.BACKUP_RESTORE, Way.BLUE_GREEN, Way.DEDICATED]
        # Two whole sides, of which the old one goes on until the last moment.
        if at.written and at.separate_nodes:
            away = [Way.BLUE_GREEN, Way.BACKUP_RESTORE, Way.DEDICATED]
        rest = [*away, *rest]
    return Walk(path=tuple(path), guide=guide, preferred=tuple(dict.fromkeys([*first, *rest])))


def _guides(at: Situation, ask: _Ask, window_seconds: float | None, nodes: int) -> tuple[Way, list[Way]]:
    if not ask(SHARED, at.shared, ""):
        return Way.BACKUP_RESTORE, [Way.BACKUP_RESTORE, Way.IN_PLACE, Way.ROLLING]
    enough = at.downtime == float("inf") or (window_seconds is not None and at.downtime >= window_seconds)
    needed = "how long it takes is not known" if window_seconds is None else f"it takes about {window_seconds:,.0f} s"
    if ask(STOP, enough, needed):
        if ask(OLD_WRITERS, at.old_writers, ""):
            return Way.IN_PLACE, [Way.COORDINATED, Way.IN_PLACE, Way.ROLLING]
        return Way.IN_PLACE, [Way.IN_PLACE, Way.ROLLING, Way.COORDINATED]
    if ask(ZERO, at.downtime <= 0, ""):
        return Way.BLUE_GREEN, [Way.BLUE_GREEN, Way.ROLLING, Way.IN_PLACE]
    if ask(MACHINES, nodes > 1, ""):
        return Way.ROLLING, [Way.ROLLING, Way.BLUE_GREEN, Way.IN_PLACE]
    return Way.ROLLING, [Way.IN_PLACE, Way.ROLLING, Way.BLUE_GREEN]


def _contents(at: Situation) -> str:
    facts = at.facts
    if facts.state == "empty":
        return "nothing of Brainy's, and no generation"
    if facts.nouns is None or facts.verbs is None:
        return f"Brainy's {' and '.join(facts.trees)} tree" if facts.trees else f"generation {facts.generation}"
    return f"{facts.nouns:,} nouns, {facts.verbs:,} verbs"
