"""The questions of the decision graph, each with the answer that counts. Pure.

The operator's word goes before what the bucket shows, and that before the careful guess. Where the operator's word and
the bucket disagree, the word counts and a warning says what speaks against it.
"""

from __future__ import annotations

from dataclasses import dataclass

from brainy.advice.facts import Facts
from brainy.advice.values import Answer, Answers, Risk, Source
from brainy.legacy.wording import many, span


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """All questions, answered."""

    facts: Facts
    shared: bool
    downtime: float
    keep_source: bool
    vectors: bool
    old_writers: bool
    separate_nodes: bool
    rollback: bool
    isolate: bool
    target: str | None
    answers: tuple[Answer, ...]
    contradictions: tuple[Risk, ...]

    @property
    def written(self) -> bool:
        """Whether anybody may write to the source while its data move."""
        return self.old_writers or self.facts.state in ("served", "generation")


class _Asked:
    def __init__(self) -> None:
        self.answers: list[Answer] = []
        self.contradictions: list[Risk] = []

    def yes(self, question: str, said: bool | None, found: bool | None, careful: bool, why: str) -> bool:
        """Settle a question; ``why`` is what the bucket shows."""
        by: Source
        if said is not None:
            by, value = "operator", said
            if found is not None and found != said and why:
                self.contradictions.append(
                    Risk(code="ANSWER_CONTRADICTED", message=f"{question} You say {_word(said)}; the bucket: {why}")
                )
        elif found is not None:
            by, value = "bucket", found
        else:
            by, value = "assumed", careful
        reason = why if said is None or found == value else ""
        self.answers.append(Answer(question=question, answer=_word(value), by=by, why=reason))
        return value


def settle(facts: Facts, said: Answers) -> Situation:
    """Answer every question."""
    asked = _Asked()
    old_writers = asked.yes(
        "Do Brainy processes write to it meanwhile?",
        said.old_writers,
        *_writers(facts),
    )
    shared = asked.yes(
        "Is the bucket and prefix shared with other processes?",
        said.shared,
        *_sharers(facts, old_writers),
    )
    asked.answers.append(
        Answer(
            question="How long may nobody be able to write?",
            answer=_time(said.downtime_seconds or 0.0),
            by="assumed" if said.downtime_seconds is None else "operator",
            why="" if said.downtime_seconds is not None else "not said, so not at all",
        )
    )
    vectors = asked.yes("Are there vectors, to be kept?", said.vectors, *_vectors(facts))
    keep_source = asked.yes("Must nothing change under the source's prefix?", said.keep_source or None, None, False, "")
    separate = asked.yes("Are there machines for a second side?", said.separate_nodes, None, False, "not said, so no")
    rollback = asked.yes("Must there be a way back after the switch?", said.rollback, None, True, "not said, so yes")
    return Situation(
        facts=facts,
        shared=shared,
        downtime=said.downtime_seconds or 0.0,
        keep_source=keep_source,
        vectors=vectors,
        old_writers=old_writers,
        separate_nodes=separate,
        rollback=rollback,
        isolate=said.isolate,
        target=said.target,
        answers=tuple(asked.answers),
        contradictions=tuple(asked.contradictions),
    )


def _writers(facts: Facts) -> tuple[bool | None, bool, str]:
    """Return what the bucket shows, the careful guess, and what shows it."""
    if not facts.trees:
        return False, False, "no tree of Brainy's"
    if facts.state == "generation" and not facts.following:
        return False, False, "the cluster does not follow Brainy's tree"
    if facts.looks_live:
        if facts.live_locks:
            return True, True, f"{many(facts.live_locks, 'lock')} of Brainy's not over"
        return True, True, f"something wrote {max(0.0, facts.idle_seconds or 0.0):,.0f} s ago"
    if facts.mirroring:
        return None, True, "the cluster's mirror writes there too, so it cannot be told"
    if facts.idle_seconds is None:
        return None, True, "not looked at, so they may"
    return False, True, f"the last write is {span(facts.idle_seconds)} old"


def _sharers(facts: Facts, old_writers: bool) -> tuple[bool | None, bool, str]:
    if facts.state == "generation" and not old_writers:
        return None, False, "the cluster is its only writer"
    if facts.state == "empty":
        return None, False, "nothing is there"
    if facts.instances > 1:
        return True, True, f"{facts.instances} instances are registered as alive"
    if len(facts.services) > 1:
        return True, True, f"items of {len(facts.services)} services"
    if facts.foreign_objects:
        return True, True, f"{many(facts.foreign_objects, 'object')} that are not Brainy's"
    if old_writers:
        return None, True, "processes write there"
    if facts.basis == "survey":
        return None, True, "not looked at, so it may be"
    return None, False, "no sign of others"


def _vectors(facts: Facts) -> tuple[bool | None, bool, str]:
    looked = sum(facts.dimensions.values())
    if not looked:
        # Of an empty namespace nothing is to be kept; of one not looked into, all.
        return (False, False, "no nouns") if facts.state == "empty" else (None, True, "none were looked at")
    without = facts.without_vectors
    if not without:
        return True, True, ""
    return 2 * without < looked, True, f"{without:,} of {looked:,} nouns looked at have none"


def _word(value: bool) -> str:
    return "yes" if value else "no"


def _time(seconds: float) -> str:
    if seconds == float("inf"):
        return "as long as it takes"
    return "not at all" if seconds <= 0 else span(seconds)
