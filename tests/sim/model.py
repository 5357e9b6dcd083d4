"""What the participants were told, and what the bucket saw: the facts the validators judge."""

from __future__ import annotations

from dataclasses import dataclass, field

from brainy.api.storage.v1 import log_pb2
from brainy.bucket import layout
from brainy.bucket.retirement import Retirement
from brainy.changelog.batch import decode_batch
from brainy.locks.base import Grant
from brainy.locks.record import LockRecord
from brainy.testing.loop import SimLoop
from brainy.testing.process import SimProcess
from brainy_coordinator.retirement.contents import stays
from tests.sim.trace import Trace


@dataclass(slots=True)
class Request:
    """One write of a client, however often it was sent."""

    ids: tuple[str, ...]
    first_sent: float
    #: Position it was acknowledged at, and when; None while nobody said so.
    position: int | None = None
    acknowledged: float = 0.0


@dataclass(slots=True)
class Belief:
    """A lease as its holder sees it."""

    process: SimProcess
    token: int
    until: float


@dataclass(slots=True)
class Model:
    """Collects facts; says at once what can be said at once."""

    loop: SimLoop
    trace: Trace
    violations: list[str] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    beliefs: dict[str, list[Belief]] = field(default_factory=dict)
    #: (lock, token) -> who was granted it.
    tokens: dict[tuple[str, int], str] = field(default_factory=dict)
    lock_versions: dict[str, LockRecord] = field(default_factory=dict)
    #: log prefix -> highest epoch that has landed.
    log_epochs: dict[str, int] = field(default_factory=dict)
    #: (log prefix, epoch) -> the owner that commits in it.
    committers: dict[tuple[str, int], str] = field(default_factory=dict)
    #: log prefix -> incarnation that wrote the last fence.
    fences: dict[str, str] = field(default_factory=dict)
    #: (incarnation, epoch) of owners that were told FENCED.
    fenced: set[tuple[str, int]] = field(default_factory=set)
    #: Generation out of service -> what is to become of it, as last recorded.
    retired: dict[int, str] = field(default_factory=dict)

    def violated(self, rule: str, **facts: object) -> None:
        """Note a broken rule."""
        text = f"{rule}: " + " ".join(f"{name}={value}" for name, value in facts.items())
        self.violations.append(text)
        self.trace.event("violation", rule=text)

    # --- leases ---------------------------------------------------------------------------------

    def leased(self, process: SimProcess, grant: Grant, *, renewed: bool = False) -> None:
        """A holder got or renewed a lease."""
        now, until = self.loop.time(), process.clock.at(grant.deadline)
        self.trace.event(
            "renewed" if renewed else "granted", lock=grant.name, by=process.incarnation, token=grant.token
        )
        holder = self.tokens.setdefault((grant.name, grant.token), process.incarnation)
        if holder != process.incarnation:
            self.violated(
                "one holder a token", lock=grant.name, token=grant.token, first=holder, second=process.incarnation
            )
        others = self.beliefs.setdefault(grant.name, [])
        others[:] = [b for b in others if b.process.alive and b.until > now]
        for other in others:
            if other.token != grant.token and until > now:
                self.violated(
                    "leases do not overlap", lock=grant.name, older=other.token, newer=grant.token, at=round(now, 3)
                )
        others[:] = [b for b in others if b.token != grant.token]
        others.append(Belief(process, grant.token, until))

    def gave_up(self, grant: Grant) -> None:
        """A holder no longer believes."""
        beliefs = self.beliefs.get(grant.name, [])
        beliefs[:] = [b for b in beliefs if b.token != grant.token]

    # --- the bucket -----------------------------------------------------------------------------

    def saw(self, kind: str, key: str, body: bytes | None, done: bool, who: str) -> None:
        """The bucket carried out an operation."""
        self.trace.event(kind, key=key, done=done, by=who, size=len(body or b""))
        if not done:
            return
        if kind == "delete":
            self._deleted(key, who)
        elif (generation := layout.parse_retired(key)) is not None:
            assert body is not None
            self.retired[generation] = Retirement.decode(body, key=key).state
        elif key.startswith(layout.LOCKS):
            assert body is not None
            self._lock_written(key, LockRecord.decode(body, key=key))
        elif layout.parse_log_slot(key) is not None:
            assert body is not None
            self._slot_written(key, decode_batch(body, key=key))

    def _deleted(self, key: str, who: str) -> None:
        generation = layout.parse_generation(key)
        if generation is None:
            if key.startswith(layout.LOCKS):
                self.violated("no lock is deleted", key=key, by=who)
        elif self.retired.get(generation) not in ("deleting", "deleted"):
            self.violated("nothing of a generation is deleted before that is on record", key=key, by=who)
        elif stays(generation, key):
            self.violated("what outlives its generation is not deleted", key=key, by=who)

    def _lock_written(self, key: str, record: LockRecord) -> None:
        before = self.lock_versions.get(key)
        self.lock_versions[key] = record
        if before is None:
            return
        same = (record.owner, record.incarnation) == (before.owner, before.incarnation)
        if not (record.epoch > before.epoch or (record.epoch == before.epoch and same)):
            self.violated("tokens rise", key=key, before=before.epoch, after=record.epoch, by=record.incarnation)

    def _slot_written(self, key: str, batch: log_pb2.LogBatch) -> None:
        log = key.rpartition("/")[0]
        who = f"{batch.writer.node_id}/{batch.writer.incarnation}"
        highest = self.log_epochs.get(log, 0)
        if batch.epoch < highest:
            self.violated("no un-fencing", key=key, epoch=batch.epoch, after=highest, by=who)
        self.log_epochs[log] = max(highest, batch.epoch)
        # A node that restarts may open its shard again at the epoch it has; its earlier life is fenced by that.
        first = self.committers.setdefault((log, batch.epoch), batch.writer.node_id)
        if first != batch.writer.node_id:
            self.violated("no two owners commit in one epoch", key=key, epoch=batch.epoch, first=first, second=who)
        if batch.records[0].WhichOneof("operation") == "fence":
            self.fences[log] = batch.writer.incarnation
        elif self.fences.get(log) != batch.writer.incarnation:
            self.violated("only who fenced last commits", key=key, epoch=batch.epoch, by=who, last=self.fences.get(log))
        if (batch.writer.incarnation, batch.epoch) in self.fenced:
            self.violated("a fenced owner stays fenced", key=key, epoch=batch.epoch, by=who)
