"""The states of a migration and what moves it.

```
 PENDING ─▶ PREFLIGHTING ─▶ COPYING ─▶ CATCHING_UP ⇄ READY ─▶ CUTTING_OVER ─▶ VERIFYING ═▶ COMPLETING
                                           ▲           ▲           │             │      ║       │    ▲
                                           └── writes had waited ──┴─────────────┘      ║       ▼    │ asked, or
                                               too long, or the leader or an owner died ║   SUCCEEDED│ seen enough
    any state left of the commit ─▶ ABORTING ─▶ ABORTED                                 ║            │
                                             the commit: one swap of the routing record ╚═▶ OBSERVING┘
                                                       ║   (with a way back kept)            │     ▲
                                                       ╚═══════ one swap back ═══ ROLLING_BACK ────┘
```

Left of the commit every failure leads back to the source. Without a way back the commit is the point of no return;
with one, it is completion. Which side is active the routing record says, never the history.
"""

from __future__ import annotations

import enum


class State(enum.Enum):
    """Where a migration stands. What is being done in each state is said in ``stages``."""

    PENDING = "pending"
    PREFLIGHTING = "preflighting"
    COPYING = "copying"
    CATCHING_UP = "catching_up"
    READY = "ready"
    #: Writes are stopped, or about to be; final positions are being taken.
    CUTTING_OVER = "cutting_over"
    #: Writes are stopped; the target reaches the final positions and is compared.
    VERIFYING = "verifying"
    #: Committed, and the source follows the target: it can be rolled back to.
    OBSERVING = "observing"
    #: Writes to the target are stopped, or about to be; the source reaches the final positions and is compared.
    ROLLING_BACK = "rolling_back"
    #: Committed; nodes are told, then the source is retired.
    COMPLETING = "completing"
    SUCCEEDED = "succeeded"
    ABORTING = "aborting"
    ABORTED = "aborted"

    @property
    def is_terminal(self) -> bool:
        """Whether nothing can happen any more."""
        return self in (State.SUCCEEDED, State.ABORTED)

    @property
    def is_committed(self) -> bool:
        """Whether the target is the active side."""
        return self in (State.OBSERVING, State.ROLLING_BACK, State.COMPLETING, State.SUCCEEDED)


class Trigger(enum.Enum):
    """What moves a migration from one state to the next."""

    #: Somebody asked for it; the first event of every history.
    REQUESTED = "requested"
    BEGUN = "begun"
    PREFLIGHT_PASSED = "preflight_passed"
    PREFLIGHT_FAILED = "preflight_failed"
    #: Every target shard holds the source's state at some position.
    COPY_DONE = "copy_done"
    #: The target could not read more objects than were accepted.
    QUARANTINE_EXCEEDED = "quarantine_exceeded"
    #: Another model embedded the target, and more nouns than were accepted have no text.
    WITHOUT_TEXT_EXCEEDED = "without_text_exceeded"
    LAG_IN_BOUNDS = "lag_in_bounds"
    LAG_EXCEEDED = "lag_exceeded"
    #: Everything that may move before the writes has moved.
    PROMOTED = "promoted"
    #: No write is in flight anywhere, and the final positions are known.
    DRAINED = "drained"
    #: The leader or an owner changed while writes were stopped.
    CUT_OVER_INTERRUPTED = "cut_over_interrupted"
    PAUSE_CAP_EXCEEDED = "pause_cap_exceeded"
    DIGEST_UNEQUAL = "digest_unequal"
    #: The routing record says that the target is active.
    COMMITTED = "committed"
    #: The same, and the source follows it.
    SWITCHED = "switched"
    #: Somebody wants the source back; it begins when the source is close behind.
    ROLLBACK_REQUESTED = "rollback_requested"
    ROLLBACK_BEGUN = "rollback_begun"
    #: The leader or an owner changed, or writes had waited too long; it is begun again.
    ROLLBACK_INTERRUPTED = "rollback_interrupted"
    #: Source and target differ; the target stays active, and somebody has to look.
    ROLLBACK_UNEQUAL = "rollback_unequal"
    #: The routing record says that the source is active again.
    ROLLED_BACK = "rolled_back"
    COMPLETE_REQUESTED = "complete_requested"
    #: A part of the time for which the way back is kept has passed, and nothing was wrong in it.
    OBSERVED_SO_FAR = "observed_so_far"
    #: The time for which the way back was to be kept is over.
    OBSERVED = "observed"
    #: It may switch; it was held.
    PROMOTE_REQUESTED = "promote_requested"
    #: It shall not switch for so long.
    POSTPONE_REQUESTED = "postpone_requested"
    #: A wave of nodes has answered from the target for as long as it was to be watched.
    WAVE_BAKED = "wave_baked"
    #: Somebody tries reads on the side that follows, or ends that.
    READS_SET = "reads_set"
    PAUSE_REQUESTED = "pause_requested"
    RESUME_REQUESTED = "resume_requested"
    #: Somebody says how fast the copy may be.
    COPY_RATE_SET = "copy_rate_set"
    COMPLETED = "completed"
    ABORT_REQUESTED = "abort_requested"
    #: What the target finds was held against what the source finds.
    QUALITY_MEASURED = "quality_measured"
    #: Somebody lets it switch though that is below the thresholds.
    QUALITY_ACCEPTED = "quality_accepted"
    #: Nothing of the migration is left in the routing record.
    UNDONE = "undone"
    #: A new leader seals the history with its epoch before it reads on.
    LEADER_CHANGED = "leader_changed"
