"""The comparison of two datasets, from beginning to end (docs/protocols/verify.md).

1. *Scan.* Both sides are read through once, at the same time, each at a point of its own: a multiset digest in 4,096
   buckets, and a row on disk for each item.
2. *Compare.* 4,096 sums. All equal: done.
3. *Suspect.* In the buckets that differ, the rows that only one side has.
4. *Recheck* (``rechecking``): suspected items are read again on both sides until only what holds still and differs is
   left.
5. *Relate* (``relating``), if asked.

*After.* ``equal``: every item that A held at its position was held by B at its own, field by field, or was caught up
with at a recheck, and nothing else. *If it is killed* at any step, the same call with the same state file goes on:
parts read through and buckets looked at are not done again. *Cancellation* is a crash. Nothing is written to either
side.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from brainy.bucket.digest import BUCKETS, MultisetDigest
from brainy.clock import Clock
from brainy.errors import InvalidRequestError, LogCollectedError
from brainy.ids import Ids
from brainy.verify.rechecking import Patience, recheck
from brainy.verify.relating import relate
from brainy.verify.rows import suspects
from brainy.verify.scanning import Scan, digest_path, scan_part
from brainy.verify.sides import Side
from brainy.verify.state import PartDone, SideState, State, StateFile, decode_findings, encode_findings
from brainy.verify.together import together
from brainy.verify.values import (
    Comparison,
    Findings,
    Name,
    Place,
    Progress,
    Relations,
    Remark,
    Sample,
    SideReport,
    Verdict,
    nobody,
)

#: Suspected items read again at once; they are in memory, on both sides.
AT_ONCE: Final = 20_000
#: With so many items that differ for good, the rest is not looked at again.
ENOUGH: Final = 100_000
_SCAN_TRIES: Final = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyOptions:
    """How to compare."""

    patience: Patience = field(default_factory=Patience)
    relations: bool = False
    #: About so many items of A, chosen by the hash of their ids, and the same ids of B; 0 for all.
    sample: int = 0
    #: Where to keep what was done, so that a killed run goes on.
    resume: Path | None = None
    at_once: int = AT_ONCE
    enough: int = ENOUGH
    on_progress: Progress = nobody
    on_remark: Remark = nobody


async def verify(a: Side, b: Side, options: VerifyOptions, *, clock: Clock, ids: Ids) -> Comparison:
    """Compare two sides.

    Raises:
        InvalidRequestError: options that exclude each other.
        PreconditionError: the state file belongs to another comparison, or a side cannot be read by this version.
        CorruptDataError: something stored, or the state file, is damaged.
        NotFoundError: a side does not exist.
        UnavailableError: a store cannot be read now; with a state file the same call goes on.
    """
    if options.relations and options.sample:
        raise InvalidRequestError(
            "the ends of verbs cannot be looked up in a sample", remedy="leave out either --sample or --relations"
        )
    with _state_file(options.resume) as files:
        done = await _Run(a, b, options, files, clock).compare(ids)
        files.remove()
    return done


class _Run:
    """One comparison."""

    def __init__(self, a: Side, b: Side, options: VerifyOptions, files: StateFile, clock: Clock) -> None:
        self._sides = {"a": a, "b": b}
        self._options = options
        self._files = files
        self._clock = clock
        self._scans = {"a": Scan(), "b": Scan()}
        self._read = 0
        self._total: int | None = None
        self._sample: Sample | None = None
        self._resumed = False
        self._places: tuple[Place, Place] | None = None

    async def compare(self, ids: Ids) -> Comparison:
        state = await self._begin(ids)
        await self._count()
        state = await self._scan(state)
        scans = self._scans["a"], self._scans["b"]
        unequal = scans[0].digest.differing(scans[1].digest)
        findings, unexamined = await self._examine(state, unequal)
        relations = None
        if self._options.relations:
            relations = await relate(
                self._sides["a"], self._sides["b"], scans, self._files.rows, self._options.patience, self._clock
            )
        return self._result(len(unequal), findings, unexamined, relations)

    async def _begin(self, ids: Ids) -> State:
        a, b = self._sides["a"], self._sides["b"]
        question = f"{a.identity} | {b.identity} | sample {self._options.sample} | relations {self._options.relations}"
        found = self._files.load(question)
        if found is not None:
            self._resumed = True
            await a.begin(found.a.point)
            await b.begin(found.b.point)
            if found.sample_of:
                self._sample = Sample(of=found.sample_of, part=found.sample_part)
        else:
            await together(a.begin(), b.begin())
            if self._options.sample:
                of = max(1, await a.total() // self._options.sample)
                self._sample = Sample(of=of, part=int.from_bytes(ids.nonce(), "little") % of)
        a.sampled(self._sample)
        b.sampled(self._sample)
        if found is not None:
            for label, state in (("a", found.a), ("b", found.b)):
                for part, done in sorted(state.parts.items()):
                    self._include(label, part, done)
                    self._read += done.nouns + done.verbs
            return found
        return State(
            question=question,
            sample_of=self._sample.of if self._sample else 0,
            sample_part=self._sample.part if self._sample else 0,
            a=SideState(point=a.save()),
            b=SideState(point=b.save()),
        )

    async def _count(self) -> None:
        totals = await together(self._sides["a"].total(), self._sides["b"].total())
        self._total = sum(totals) // (self._sample.of if self._sample else 1)
        self._tell(0)

    def _tell(self, items: int) -> None:
        self._read += items
        # What the logs add is not counted before it is read.
        self._options.on_progress(self._read, None if not self._total else max(self._total, self._read))

    async def _scan(self, state: State) -> State:
        states = {"a": state.a, "b": state.b}

        async def through(label: str) -> None:
            for _ in range(_SCAN_TRIES):
                try:
                    await parts(label)
                    return
                except LogCollectedError:
                    # The point is too old to be read from: take another one and read this side from its beginning.
                    self._options.on_remark("the change log moved on; reading this side again")
                    await self._sides[label].begin()
                    self._scans[label] = Scan()
                    states[label] = SideState(point=self._sides[label].save())
            await parts(label)

        async def parts(label: str) -> None:
            side = self._sides[label]
            for part in range(side.parts):
                if part in states[label].parts:
                    continue
                done = await scan_part(
                    side, label, part, self._files.rows, relations=self._options.relations, tell=self._tell
                )
                self._include(label, part, done)
                known = {**states[label].parts, part: done}
                states[label] = SideState(point=side.save(), parts=known)
                self._files.save(state.model_copy(update=states))

        await together(through("a"), through("b"))
        return state.model_copy(update=states)

    def _include(self, label: str, part: int, done: PartDone) -> None:
        body = digest_path(self._files.rows, label, part).read_bytes()
        self._scans[label].include(label, part, done, MultisetDigest.decode(body))

    async def _examine(self, state: State, unequal: list[int]) -> tuple[Findings, int]:
        findings = decode_findings(state.findings) if state.findings else Findings()
        if not unequal:
            return findings, 0
        rows = self._scans["a"].rows(self._files.rows), self._scans["b"].rows(self._files.rows)
        waiting: list[Name] = []
        unexamined = 0
        left = [bucket for bucket in unequal if bucket >= state.next_bucket]
        for at, bucket in enumerate(left):
            found = suspects(*rows, bucket)
            if findings.different >= self._options.enough:
                unexamined += len(found)
                continue
            waiting += found
            if len(waiting) < self._options.at_once and at + 1 < len(left):
                continue
            self._options.on_remark(f"{len(waiting):,} items differ as they were read; reading them again")
            self._places = await recheck(
                self._sides["a"], self._sides["b"], waiting, self._options.patience, self._clock, findings
            )
            waiting = []
            state = state.model_copy(update={"next_bucket": bucket + 1, "findings": encode_findings(findings)})
            self._files.save(state)
        return findings, unexamined

    def _result(self, unequal: int, findings: Findings, unexamined: int, relations: Relations | None) -> Comparison:
        verdict = Verdict.EQUAL
        if findings.unsettled:
            verdict = Verdict.UNSETTLED
        if findings.different or (relations is not None and relations.different):
            verdict = Verdict.DIFFERENT
        return Comparison(
            verdict=verdict,
            a=self._report("a"),
            b=self._report("b"),
            buckets=BUCKETS,
            unequal_buckets=unequal,
            suspected=findings.suspected + unexamined,
            missing=findings.missing,
            extra=findings.extra,
            mismatched=findings.mismatched,
            unsettled=findings.unsettled,
            unexamined=unexamined,
            differences=tuple(findings.differences),
            unsettled_items=tuple(findings.unsettled_items),
            settled_a=self._places[0] if self._places else None,
            settled_b=self._places[1] if self._places else None,
            rechecks=self._options.patience.rechecks,
            sample=self._sample,
            relations=relations,
            resumed=self._resumed,
        )

    def _report(self, label: str) -> SideReport:
        side, scan = self._sides[label], self._scans[label]
        return SideReport(
            name=side.name,
            read_at=side.place,
            nouns=scan.nouns,
            verbs=scan.verbs,
            quarantined=scan.quarantined,
            digest=scan.digest.fold(),
        )


@contextmanager
def _state_file(path: Path | None) -> Iterator[StateFile]:
    if path is not None:
        yield StateFile(path)
        return
    with tempfile.TemporaryDirectory(prefix="brainy-verify-") as directory:
        yield StateFile(Path(directory) / "state")
