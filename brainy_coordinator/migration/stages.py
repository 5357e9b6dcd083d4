"""The stages every strategy goes through, in order, in words. Plans and documentation print them. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from brainy_coordinator.migration.state import State


@dataclass(frozen=True, slots=True)
class Stage:
    """What is done in one state."""

    state: State
    #: What the stage is for, in one line.
    purpose: str
    #: What happens to the stage's work when the leader dies in it.
    after_a_crash: str


STAGES: tuple[Stage, ...] = (
    Stage(State.PREFLIGHTING, "check that the change can succeed before anything is changed", "checked again"),
    Stage(State.COPYING, "create the target beside the source; its owners copy the source", "owners go on copying"),
    Stage(State.CATCHING_UP, "the target follows the source's change log", "owners go on following"),
    Stage(State.READY, "the target is close behind; reads move if the strategy says so", "moves are repeated"),
    Stage(
        State.CUTTING_OVER,
        "writes wait; no write is in flight; final positions are taken",
        "writes go on; retried",
    ),
    Stage(State.VERIFYING, "the target reaches the final positions; digests are compared", "writes go on; retried"),
    Stage(
        State.OBSERVING,
        "the target is the truth, the source follows it; it can be rolled back without loss",
        "owners go on following; what is left of the time to observe is watched",
    ),
    Stage(
        State.ROLLING_BACK,
        "writes wait; the source reaches the final positions and is compared; it becomes the truth again",
        "writes go on, on the target; retried",
    ),
    Stage(State.COMPLETING, "the target is the truth; nodes confirm; the source is retired", "goes on forward"),
)
