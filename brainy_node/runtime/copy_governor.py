"""How fast a copy may be so that searches do not suffer: pure, told of everything.

The searches of the minute before the copy say what is usual. While it runs, searches slower than 1.2 times the usual
p99 are counted, and those slower than 1.2 times the usual p95. More of them than one in a hundred, or one in twenty, by
more than chance would have it, halve the rate; so does a store that has to be asked again. (The p95 is asked besides
because a hundredth of some hundred searches is a matter of luck.) Otherwise the rate grows: at first it doubles, after
the first cut by a twentieth of the fastest there was, until it no longer holds anything back. It never falls below a
floor, so that every copy ends.

What is usual changes with the day. A cut by an old usual is therefore checked: the copy stands still for a moment, and
the searches of that moment are the new usual.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import Final

#: Buckets above a usual one that are not slow yet: two are a factor of 1.19.
_TOLERATED: Final = 2
#: Shares of searches that are slower than what is usual for the rest.
_SHARES: Final = (0.01, 0.05)
#: Standard deviations that chance may take; a verdict is given every second.
_CHANCE: Final = 3.0
#: Fewest searches that say what is usual, and that a verdict is given on.
_FEWEST_USUAL: Final = 50
_FEWEST_JUDGED: Final = 20
#: Longest time a verdict is waited for; with fewer searches by then there is nobody to disturb.
_LONGEST_SECONDS: Final = 5.0
#: A usual older than this is looked at anew before the rate is cut because of it.
_OLD_SECONDS: Final = 30.0
_LOOK_SECONDS: Final = 2.0
_LONGEST_LOOK_SECONDS: Final = 6.0
#: After a change what happened is of before for so long.
_SETTLE_SECONDS: Final = 1.0
_FIRST_RATE: Final = 1000.0
_STEP: Final = 0.05


def usual_buckets(searches: Counter[int]) -> tuple[int, ...]:
    """Return the buckets that 99 and 95 of 100 searches do not exceed; there must be a search."""
    return tuple(_bucket(searches, 1.0 - share) for share in _SHARES)


def _bucket(searches: Counter[int], share: float) -> int:
    wanted = math.ceil(share * searches.total())
    seen = 0
    for bucket in sorted(searches):
        seen += searches[bucket]
        if seen >= wanted:
            return bucket
    raise AssertionError("there was no search")


@dataclass(slots=True)
class Governor:
    """The rate of one copy on one node."""

    #: Items a second that it never falls below.
    floor: float
    #: Items a second; None for as fast as it goes, 0 while it looks.
    rate: float | None = None
    #: starting, latency or store; "" where nothing holds it back.
    reason: str = ""
    _usual: tuple[int, ...] | None = None
    _usual_at: float = -math.inf
    _searches: Counter[int] = field(default_factory=Counter)
    _since: float = 0.0
    _settled_at: float = 0.0
    _handled: int = 0
    _fastest: float = 0.0
    _cut: bool = False
    #: The rate before a look, and since when it looks.
    _looking: tuple[float | None, float] | None = None

    def begin(self, now: float, before: Counter[int]) -> None:
        """Start a copy; ``before`` are the searches of the last minute."""
        self._since = self._settled_at = now
        if before.total() >= _FEWEST_USUAL:
            self._usual, self._usual_at = usual_buckets(before), now
        if before:
            self.rate, self.reason = max(self.floor, _FIRST_RATE), "starting"

    def sample(self, now: float, *, searches: Counter[int], handled: int, store_repeats: int) -> float | None:
        """Take what happened since the last sample (once a second or so); returns the rate from now on.

        Args:
            now: monotonic seconds.
            searches: by bucket.
            handled: items that the copy read or indexed.
            store_repeats: calls of the store that were repeated.
        """
        if self._looking is not None:
            return self._look(now, searches)
        if now - self._settled_at >= _SETTLE_SECONDS:
            self._searches += searches
        self._handled += handled
        if store_repeats and now >= self._settled_at:
            self._cut_by("store", now)
            return self.rate
        count, elapsed = self._searches.total(), now - self._since
        if count < _FEWEST_JUDGED and elapsed < _LONGEST_SECONDS:
            return self.rate
        if count < _FEWEST_JUDGED:
            self._grow(now)
        elif self._usual is None:
            self._begin_look(now)
        elif not self._is_slow():
            self._grow(now)
        elif now - self._usual_at > _OLD_SECONDS:
            self._begin_look(now)
        else:
            self._cut_by("latency", now)
        return self.rate

    def rest(self, now: float) -> None:
        """Nobody asks for the rate now; what happens is not of its doing."""
        self._searches, self._handled, self._since, self._looking = Counter(), 0, now, None
        self._settled_at = now + _SETTLE_SECONDS
        if self.rate == 0.0:
            self.rate = max(self.floor, _FIRST_RATE)

    def _is_slow(self) -> bool:
        total = self._searches.total()
        for usual, share in zip(self._usual or (), _SHARES, strict=True):
            slow = sum(count for bucket, count in self._searches.items() if bucket > usual + _TOLERATED)
            if slow > share * total + _CHANCE * math.sqrt(share * total):
                return True
        return False

    def _throughput(self, now: float) -> float:
        return self._handled / max(now - self._since, 0.1)

    def _anew(self, now: float, *, settles: bool) -> None:
        self._fastest = max(self._fastest, self._throughput(now))
        self._searches, self._handled, self._since = Counter(), 0, now
        self._settled_at = now + _SETTLE_SECONDS if settles else self._settled_at

    def _cut_by(self, reason: str, now: float) -> None:
        speed = self._throughput(now)
        allowed = speed if self.rate is None else min(self.rate, speed) if speed else self.rate
        self.rate, self.reason, self._cut = max(self.floor, allowed / 2.0), reason, True
        self._anew(now, settles=True)

    def _grow(self, now: float) -> None:
        speed = self._throughput(now)
        self._anew(now, settles=False)
        if self.rate is None:
            return
        if speed < self.rate / 2.0 and self.rate > self._fastest:
            # It does not hold anything back any more.
            self.rate, self.reason = None, ""
        elif self._cut:
            self.rate += max(self.floor, self._fastest * _STEP)
        else:
            self.rate *= 2.0

    def _begin_look(self, now: float) -> None:
        self._looking = (self.rate, now)
        self._anew(now, settles=True)
        self.rate, self.reason = 0.0, "latency"

    def _look(self, now: float, searches: Counter[int]) -> float | None:
        assert self._looking is not None
        before, since = self._looking
        if now - since >= _SETTLE_SECONDS:
            self._searches += searches
        enough = self._searches.total() >= _FEWEST_USUAL and now - since >= _LOOK_SECONDS
        if not enough and now - since < _LONGEST_LOOK_SECONDS:
            return self.rate
        if self._searches.total() >= _FEWEST_JUDGED:
            self._usual = usual_buckets(self._searches)
        self._usual_at, self._looking = now, None
        self.rate, self.reason = before, "" if before is None else "latency" if self._cut else "starting"
        self._searches, self._handled, self._since = Counter(), 0, now
        self._settled_at = now + _SETTLE_SECONDS
        return self.rate
