"""How fast a copy may be: judged from searches, the store, and what it achieves."""

from __future__ import annotations

from collections import Counter

import numpy as np

from brainy.traffic.latencies import bucket_of
from brainy_node.runtime.copy_governor import Governor, usual_buckets

FLOOR = 100.0


BUCKETS = np.array([bucket_of(microseconds * 1e-6) for microseconds in range(1, 200_000, 25)])


def searches(count: int, seconds: float, rng: np.random.Generator, *, slower: float = 1.0) -> Counter[int]:
    """So many searches around a latency, with a tail of a hundredth three times as long."""
    times = seconds * rng.uniform(0.8, 1.2, count) * np.where(rng.random(count) < 0.01, 3.0, 1.0) * slower
    found, counts = np.unique(BUCKETS[(times * 1e6 / 25).astype(int)], return_counts=True)
    return Counter(dict(zip(found.tolist(), counts.tolist(), strict=True)))


class Copy:
    """A node whose searches suffer once its copy handles more than it can bear."""

    def __init__(self, *, can: float, bears: float, rate_of_searches: int = 200, seed: int = 1) -> None:
        self.rng = np.random.default_rng(seed)
        self.can, self.bears, self.searches = can, bears, rate_of_searches
        self.governor = Governor(FLOOR)
        self.now = 1000.0
        self.handled = 0.0
        self.stood = 0
        self.governor.begin(self.now, searches(self.searches * 60, 0.004, self.rng))

    def second(self, *, store_repeats: int = 0) -> float | None:
        rate = self.governor.rate
        speed = self.can if rate is None else min(rate, self.can)
        self.stood += rate == 0.0
        self.handled += speed
        self.now += 1.0
        found = searches(self.searches, 0.004, self.rng, slower=2.0 if speed > self.bears else 1.0)
        return self.governor.sample(self.now, searches=found, handled=int(speed), store_repeats=store_repeats)


def test_what_is_usual_are_the_buckets_that_few_searches_exceed() -> None:
    assert usual_buckets(Counter({10: 99, 30: 1})) == (10, 10)
    assert usual_buckets(Counter({10: 98, 30: 2})) == (30, 10)
    assert usual_buckets(Counter({10: 94, 20: 4, 30: 2})) == (30, 20)
    assert usual_buckets(Counter({7: 1})) == (7, 7)


def test_without_searches_nothing_is_held_back() -> None:
    governor = Governor(FLOOR)
    governor.begin(0.0, Counter())
    for second in range(1, 60):
        assert governor.sample(float(second), searches=Counter(), handled=5000, store_repeats=0) is None
    assert governor.reason == ""


def test_where_searches_do_not_suffer_it_becomes_as_fast_as_it_goes() -> None:
    copy = Copy(can=20_000, bears=1e9)
    assert (copy.governor.rate, copy.governor.reason) == (1000.0, "starting")
    seconds = 0
    while copy.second() is not None:
        seconds += 1
        assert seconds < 40, "the rate still holds it back"
    assert copy.governor.reason == ""


def test_it_settles_around_what_searches_bear_and_never_below_the_floor() -> None:
    copy = Copy(can=50_000, bears=8_000)
    rates = [copy.second() for _ in range(900)]
    assert all(rate is None or rate >= FLOOR or rate == 0.0 for rate in rates)
    settled = [rate for rate in rates[60:] if rate is not None]
    assert len(settled) == len(rates[60:]), "it was let go although searches suffer"
    working = [rate for rate in settled if rate]
    average = sum(settled) / len(settled)
    assert 0.4 * copy.bears < average <= 1.1 * copy.bears
    # Looking what is usual without it takes a small part of the time.
    assert len(working) > 0.8 * len(settled)
    assert max(working) < 2.5 * copy.bears


def test_a_copy_that_always_disturbs_goes_on_at_the_floor() -> None:
    copy = Copy(can=50_000, bears=0.5 * FLOOR)
    rates = [copy.second() for _ in range(300)]
    tail = [rate for rate in rates[100:] if rate]
    assert min(tail) == FLOOR
    assert copy.handled >= 150 * FLOOR


def test_searches_that_got_slower_by_themselves_are_the_new_usual() -> None:
    copy = Copy(can=5_000, bears=1e9)
    for _ in range(60):
        copy.second()
    assert copy.governor.rate is None
    base = copy.rng
    for _ in range(200):
        copy.now += 1.0
        handled = 5_000 if copy.governor.rate is None else int(min(copy.governor.rate, 5_000))
        copy.governor.sample(copy.now, searches=searches(200, 0.012, base), handled=handled, store_repeats=0)
    # Looked at, found to be the same without the copy, and let go.
    assert copy.governor.rate is None


def test_a_store_that_is_asked_again_halves_the_rate_at_once() -> None:
    copy = Copy(can=4_000, bears=1e9)
    for _ in range(40):
        copy.second()
    assert copy.governor.rate is None
    assert copy.second(store_repeats=3) is not None
    assert copy.governor.reason == "store"
    assert copy.governor.rate is not None
    assert copy.governor.rate <= 2_200
    before = copy.governor.rate
    for _ in range(4):
        copy.second(store_repeats=1)
    assert copy.governor.rate < before
    for _ in range(300):
        copy.second()
    assert copy.governor.rate is None


def test_a_usual_is_found_where_there_was_no_search_before() -> None:
    governor, rng, now = Governor(FLOOR), np.random.default_rng(3), 10.0
    governor.begin(now, Counter())
    rates = []
    for _ in range(60):
        now += 1.0
        slower = 1.0 if governor.rate == 0.0 else 2.0
        rates.append(
            governor.sample(now, searches=searches(100, 0.004, rng, slower=slower), handled=9000, store_repeats=0)
        )
    assert 0.0 in rates, "it never looked"
    assert governor.reason == "latency"
    assert governor.rate is not None
