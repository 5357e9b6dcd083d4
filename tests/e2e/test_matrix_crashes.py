"""Every strategy with the coordinator, a node or both killed at every step its history passes through.

By itself each strategy goes there and back once and is struck at several steps on the way. With ``CRASH_MATRIX=each``
it does so once for each kind of victim, so that every step is struck by somebody; ``CRASH_MATRIX=full`` plays every
step, victim and strategy apart.
"""

from __future__ import annotations

import os  # which part of the matrix is the caller's
from collections import Counter
from dataclasses import dataclass

import pytest

from brainy.testing.proxy import LossyProxy
from brainy.testing.servers import S3Server
from tests.e2e.conftest import RunCluster, unexpected
from tests.e2e.killing import COPYING, Killer
from tests.e2e.stages import staged
from tests.e2e.strategies import ROWS, moved, moved_back_and_forth

MATRIX = os.environ.get("CRASH_MATRIX", "")  # noqa: TID251 - a knob of the test, not of the product
VICTIMS = ("coordinator", "node", "both")
#: What a history passes through, there and back and completed, in order; by trigger, first time each.
TURNING = (
    "requested",
    "begun",
    "preflight_passed",
    COPYING,
    "copy_done",
    "lag_in_bounds",
    "promoted",
    "drained",
    "switched",
    "rollback_requested",
    "rollback_begun",
    "rolled_back",
    "promote_requested",
    "complete_requested",
    "completed",
)
#: What is only passed through without a way back.
ONE_WAY = ("committed",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    strategy: str
    victim: str
    steps: tuple[str, ...]

    @property
    def way_back(self) -> bool:
        return ROWS[self.strategy].way_back and not set(self.steps) <= {*ONE_WAY}

    def __str__(self) -> str:
        return f"{self.strategy}-{self.victim}-{'+'.join(self.steps)}"


def steps_of(strategy: str) -> tuple[str, ...]:
    """Every step of a strategy."""
    if ROWS[strategy].way_back:
        return TURNING + ONE_WAY
    return (*TURNING[: TURNING.index("switched")], *ONE_WAY, "completed")


def cases() -> list[Case]:
    if MATRIX == "full":
        return [
            Case(strategy=strategy, victim=victim, steps=(step,))
            for strategy in ROWS
            for victim in VICTIMS
            for step in steps_of(strategy)
        ]
    chosen = []
    for number, strategy in enumerate(ROWS):
        steps = [step for step in steps_of(strategy) if step not in ONE_WAY]
        for offset, victim in enumerate(VICTIMS):
            if MATRIX == "each" or offset == number % len(VICTIMS):
                chosen.append(Case(strategy=strategy, victim=victim, steps=tuple(steps[offset :: len(VICTIMS)])))
        if MATRIX == "each":
            chosen.append(Case(strategy=strategy, victim="both", steps=ONE_WAY))
    return chosen


@pytest.mark.long
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("case", cases(), ids=str)
async def test_a_kill_at_any_step_changes_nothing(case: Case, run_cluster: RunCluster, object_server: S3Server) -> None:
    row = ROWS[case.strategy]
    async with LossyProxy(object_server.endpoint) as proxy:
        settings = {**object_server.environment}
        settings |= {name: proxy.endpoint for name in settings if name.startswith("AWS_ENDPOINT_URL")}
        async with staged(row, "tree", run_cluster, seed=len(str(case)), settings=settings) as (stage, store):
            killer = Killer(stage.cluster, store, case.victim, case.steps)
            proxy.hold(killer.on_answer)
            ended = await (moved_back_and_forth if case.way_back else moved)(row, stage)
            proxy.heal()
            never = await killer.ended()
            await stage.load.wrote()
            ledger = await stage.load.stop()
            served = await row.arrived(stage)
            verdict = await stage.load.judge(served, store)
            print(f"\n{case.strategy}: {'; '.join(killer.struck)}: {ended.state}", end=" ")
            print(f"digest equal={ended.digest_equal} source reads={killer.source_reads} {ledger}; {verdict}")
            assert never == []
            assert (ended.state, ended.digest_equal) == ("SUCCEEDED", True), ended.message
            turns = Counter(event.trigger for event in ended.story)
            assert turns["copy_done"] == 1
            assert (turns["switched"], turns["rolled_back"]) == ((2, 1) if case.way_back else (0, 0))
            assert (ledger.failed_writes, ledger.failed_reads) == ([], [])
            assert not ledger.seen, ledger.seen
            assert not verdict, verdict
            odd = unexpected(stage.cluster)
            assert not odd, odd[:2]
