"""The checker itself: histories of a lock pass, histories of something else do not."""

from __future__ import annotations

import random  # noqa: TID251 - seeded by Hypothesis
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brainy.testing.linearizability import Call, check


def call(kind: Any, token: int, began: float, answered: float | None, *, ok: bool = True, **more: Any) -> Call:
    order = int(began * 1000)
    return Call(
        kind=kind,
        name=more.pop("name", "x"),
        caller=more.pop("caller", "c"),
        began=(began, order),
        answered=None if answered is None else (answered, order),
        ok=ok,
        token=token,
        ttl_seconds=more.pop("ttl", 10.0 if kind in ("grant", "renew") else 0.0),
        **more,
    )


def grant(token: int, began: float, answered: float | None, **more: Any) -> Call:
    return call("grant", token, began, answered, **more)


def release(token: int, began: float, answered: float | None, **more: Any) -> Call:
    return call("release", token, began, answered, **more)


def renew(token: int, began: float, answered: float | None, **more: Any) -> Call:
    return call("renew", token, began, answered, **more)


GOOD: dict[str, list[Call]] = {
    "nothing": [],
    "one after another": [grant(1, 0, 1), release(1, 2, 3), grant(2, 4, 5)],
    "a release and a grant side by side": [grant(1, 0, 1), release(1, 2, 6), grant(2, 3, 5)],
    "tokens may skip": [grant(1, 0, 1), release(1, 2, 3), grant(1001, 4, 5)],
    "the lease ran out": [grant(1, 0, 1), grant(2, 5, 11)],
    "renewals put it off": [grant(1, 0, 1), renew(1, 8, 9), grant(2, 10, 18.5)],
    "by force": [grant(1, 0, 1), grant(2, 2, 3, force=True), release(1, 4, 5, ok=False)],
    "broken": [grant(1, 0, 1), call("break", 2, 2, 3), grant(3, 4, 5), renew(1, 6, 7, ok=False)],
    "released twice": [grant(1, 0, 1), release(1, 2, 3), release(1, 4, 5)],
    "refused past its own deadline": [grant(1, 0, 1), renew(1, 9.5, 9.5, ok=False, deadline=9.0)],
    "an unanswered grant explains the wait": [grant(0, 0, None), grant(2, 1, 11)],
    "an unanswered grant never happened": [grant(0, 0, None), grant(1, 1, 2)],
    "an unanswered release happened": [grant(1, 0, 1), release(1, 2, None), grant(2, 3, 4)],
    "an unanswered release happened late": [grant(1, 0, 1), release(1, 2, None), renew(1, 3, 4), grant(2, 5, 6)],
    "two locks at once": [grant(1, 0, 1), grant(1, 0, 1, name="y")],
}

BAD: dict[str, list[Call]] = {
    "two holders": [grant(1, 0, 1), grant(2, 2, 3)],
    "two holders side by side": [grant(1, 0, 3), grant(2, 1, 2)],
    "one token twice": [grant(1, 0, 1), release(1, 2, 3), grant(1, 4, 5)],
    "tokens fall": [grant(5, 0, 1), release(5, 2, 3), grant(4, 4, 5)],
    "tokens fall after a loss": [grant(5, 0, 1), grant(1, 20, 21)],
    "taken before the lease was over": [grant(1, 0, 1), grant(2, 5, 9.5)],
    "taken although it was renewed": [grant(1, 0, 1), renew(1, 8, 9), grant(2, 10, 12)],
    "renewed after it was taken": [grant(1, 0, 1), grant(2, 11, 12), renew(1, 13, 14)],
    "renewed after it was released": [grant(1, 0, 1), release(1, 2, 3), renew(1, 4, 5)],
    "released by one who does not hold": [grant(1, 0, 1), grant(2, 11, 12), release(1, 13, 14)],
    "a stale release frees the successor": [
        *(grant(1, 0, 1), grant(2, 11, 12), release(1, 13, 14, ok=False), grant(3, 15, 16))
    ],
    "a healthy holder is refused": [grant(1, 0, 1), renew(1, 2, 3, ok=False, deadline=9.0)],
    "a healthy release is refused": [grant(1, 0, 1), release(1, 2, 3, ok=False)],
    "broken without a new token": [grant(1, 0, 1), call("break", 1, 2, 3)],
    "an unanswered release cannot come before it was sent": [grant(1, 0, 1), grant(2, 2, 3), release(1, 4, None)],
    "the second of two locks": [grant(1, 0, 1), grant(1, 0, 1, name="y"), grant(2, 2, 3, name="y")],
}


@pytest.mark.parametrize("name", GOOD)
def test_histories_of_a_lock_pass(name: str) -> None:
    verdict = check(GOOD[name])
    assert verdict, str(verdict)


@pytest.mark.parametrize("name", BAD)
def test_other_histories_do_not(name: str) -> None:
    verdict = check(BAD[name])
    assert not verdict
    assert verdict.stuck
    assert "is not a lock" in str(verdict)


def generated(rng: random.Random, rounds: int) -> list[Call]:
    """A history of a real lock: instants in order, each call stretched around its own."""
    calls, now, token = [], 100.0, 0
    for _ in range(rounds):
        token += rng.choice([1, 1, 1, 1000])
        calls.append(grant(token, now - rng.uniform(0, 2), now + rng.uniform(0, 2), ttl=1000.0))
        for _ in range(rng.randrange(3)):
            now += rng.uniform(0.01, 2)
            calls.append(renew(token, now - rng.uniform(0, 1), now + rng.uniform(0, 1), ttl=1000.0))
        now += rng.uniform(0.01, 2)
        calls.append(release(token, now - rng.uniform(0, 2), now + rng.uniform(0, 2)))
        now += rng.uniform(0.01, 2)
    rng.shuffle(calls)
    return calls


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32), rounds=st.integers(1, 60))
def test_what_a_lock_did_is_always_accepted(seed: int, rounds: int) -> None:
    verdict = check(generated(random.Random(seed), rounds))
    assert verdict, str(verdict)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32), rounds=st.integers(2, 40))
def test_a_doubled_token_or_a_lost_release_is_always_found(seed: int, rounds: int) -> None:
    rng = random.Random(seed)
    calls = generated(rng, rounds)
    grants = sorted((c for c in calls if c.kind == "grant"), key=lambda c: c.token)
    twice = replace(grants[-1], token=grants[0].token)
    assert not check([c for c in calls if c is not grants[-1]] + [twice])
    if rng.random() < 0.5:
        # Without the release the lock was held for 1,000 s; the next grant came far sooner.
        lost = next(c for c in calls if c.kind == "release" and c.token == grants[0].token)
        assert not check([c for c in calls if c is not lost])
