"""A migration tried on a sample: a part of a namespace is read, and migrated by a cluster of its own on this machine.

*Before.* The namespace can be read; no cluster needs to run. There is room for the sample on local disk, twice.
*Steps.* 1. Of every ``of`` ids, those with one hash are read from the bucket, as ``brainy verify --sample`` does;
nothing is written there. 2. A coordinator and a node are started on a directory of their own, whose generation 0 is
described as the source is, and the sample is written into it, item by item as it is stored. 3. That is migrated to the
wished target: the same code copies, builds the index, follows what is written meanwhile, measures the search quality,
compares the digests and switches. 4. Both generations are compared item by item.
*After.* Processes and directory are gone, and what was measured says what the whole would take at most.
*Crash, cancellation.* The processes end with this one; the directory may remain, and is nobody's.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections import Counter
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from brainy.advice.looking import read_cluster
from brainy.bucket import layout
from brainy.bucket.items import Noun, Verb, unindexed_reason
from brainy.bucket.namespace import Namespace
from brainy.bucket.records import Spec
from brainy.clock import Clock, Deadline
from brainy.config.settings import load_settings
from brainy.errors import InvalidRequestError, PreconditionError
from brainy.ids import Ids
from brainy.legacy.survey import survey
from brainy.sdk.client import AsyncBrainy
from brainy.sdk.local_cluster import LocalCluster
from brainy.sdk.migration import Migration, Strategy, TargetSpec
from brainy.sdk.quality import QualityFound, QualityThresholds
from brainy.store.base import ObjectStore
from brainy.store.opening import open_store
from brainy.verify.namespace_side import NamespaceSide
from brainy.verify.rechecking import Patience
from brainy.verify.values import Sample, Verdict
from brainy.verify.verifying import VerifyOptions, verify

#: Nouns that are written again while the target follows.
_WRITTEN_MEANWHILE: Final = 200
_AT_ONCE: Final = 500
_MOST_PARTS: Final = 100_000
_PATIENCE_SECONDS: Final = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleRun:
    """What came of a migration of a sample."""

    #: One of so many ids was taken.
    of: int
    nouns: int
    verbs: int
    #: Of the whole: as counted there without reading it, or as the sample tells if that is more.
    items_expected: int
    #: Seconds in which the sample was read from the bucket, and calls by kind that this took.
    read_seconds: float
    read_calls: dict[str, int]
    #: Seconds from the first state of copying to the end of it, of following, and of the whole migration.
    copy_seconds: float
    migration_seconds: float
    write_pause_seconds: float
    #: Of the target in the bucket.
    bucket_bytes: int
    #: State the migration ended in; SUCCEEDED unless something is wrong.
    state: str
    digest_equal: bool
    quality: QualityFound | None
    #: Reason -> objects of the sample that cannot be read, and nouns that cannot be found by a search.
    quarantined: dict[str, int] = field(default_factory=dict)
    unindexed: dict[str, int] = field(default_factory=dict)
    #: What stands in the way of the whole.
    problems: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether nothing stands in the way."""
        return not self.problems

    @property
    def factor(self) -> float:
        """By how much the whole is larger."""
        items = self.nouns + self.verbs
        return max(1.0, self.items_expected / items) if items else 1.0

    @property
    def copy_seconds_at_most(self) -> float:
        """Seconds that reading and copying the whole take on one such machine, as if nothing were needed just once."""
        return self.factor * (self.read_seconds + self.copy_seconds)

    @property
    def bucket_bytes_expected(self) -> int:
        """Bytes that the target of the whole takes in the bucket."""
        return round(self.factor * self.bucket_bytes)


async def run_sample(
    namespace: str,
    *,
    percent: float = 1.0,
    strategy: Strategy | str = Strategy.IN_PLACE_UPGRADE,
    target: TargetSpec | None = None,
    quality: QualityThresholds | None = None,
    quarantine_limit: int = 0,
    directory: Path | None = None,
    clock: Clock,
    on_remark: Callable[[str], None] = lambda text: None,
) -> SampleRun:
    """Migrate a sample of a namespace on this machine. Nothing is written to the namespace.

    Args:
        namespace: bucket and prefix.
        percent: how much of it, above 0 to 100.
        strategy: in-place upgrade or rolling; others need nodes or a promise that a sample has not.
        target: what the target generation shall look like.
        quality: what its search quality must keep to; the defaults of ``QualityThresholds`` if left out.
        quarantine_limit: how many unreadable objects are accepted of the whole.
        directory: where to work; a temporary directory if left out.
        clock: source of time.
        on_remark: told what is done, in a sentence.

    Raises:
        InvalidRequestError: a share out of bounds, another strategy, or an impossible target.
        PreconditionError: there is nothing to take a sample of.
        BrainyError: the namespace cannot be read, or the processes do not start.
    """
    if not 0.0 < percent <= 100.0:
        raise InvalidRequestError("a sample is a share of the whole", remedy="above 0 and up to 100", percent=percent)
    if Strategy.of(strategy) not in (Strategy.IN_PLACE_UPGRADE, Strategy.ROLLING):
        raise InvalidRequestError(
            "a sample is migrated in place or rolling", remedy="what is copied is the same", strategy=strategy
        )
    store = open_store(Namespace.parse(namespace), load_settings().store, clock=clock, ids=Ids())
    try:
        taken = await _take(store, namespace, percent, clock, on_remark)
    finally:
        await store.close()
    with tempfile.TemporaryDirectory(prefix="brainy-sample-", dir=directory) as name:
        work = Path(name)
        await _describe(work, taken.spec, clock)
        uri = f"file://{work / 'bucket'}"
        async with (
            LocalCluster(uri, nodes=1, directory=work / "cluster", clock=clock) as cluster,
            cluster.client() as own,
        ):
            on_remark(
                f"writing {len(taken.nouns):,} nouns and {len(taken.verbs):,} verbs into a namespace of their own"
            )
            await _write(own, taken)
            on_remark("migrating them")
            ended, copied, took = await _migrate(own, taken, strategy, target, quality or QualityThresholds(), clock)
        differ = await _differences(uri, ended, clock)
        size = await asyncio.to_thread(_bytes_under, work / "bucket" / layout.generation(ended.target_generation))
    quarantined = Counter(taken.quarantined)
    found = next((e.quality for e in reversed(ended.story) if e.quality is not None), None)
    return SampleRun(
        of=taken.of,
        nouns=len(taken.nouns),
        verbs=len(taken.verbs),
        items_expected=taken.expected,
        read_seconds=taken.seconds,
        read_calls=taken.calls,
        copy_seconds=copied,
        migration_seconds=took,
        write_pause_seconds=ended.write_pause_seconds,
        bucket_bytes=size,
        state=ended.state,
        digest_equal=ended.digest_equal,
        quality=found,
        quarantined=dict(quarantined),
        unindexed=dict(_unindexed(taken)),
        problems=(*differ, *_problems(taken, quarantined, ended, found, quarantine_limit)),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Taken:
    spec: Spec
    of: int
    nouns: list[Noun]
    verbs: list[Verb]
    quarantined: list[str]
    expected: int
    seconds: float
    calls: dict[str, int]


async def _take(
    store: ObjectStore, namespace: str, percent: float, clock: Clock, on_remark: Callable[[str], None]
) -> _Taken:
    cluster = await read_cluster(store)
    if cluster is not None:
        spec = cluster.spec
    else:
        seen = await survey(store)
        spec = Spec(
            generation=0,
            dimensions=seen.dimensions,
            shard_count=load_settings().coordinator.shard_count,
            source="empty",
        )
    of = min(_MOST_PARTS, max(1, round(100.0 / percent)))
    on_remark(f"reading every {of:,}th item of {namespace}")
    began = clock.monotonic()
    side = NamespaceSide(namespace, store, None, clock)
    await side.begin()
    expected = await side.total()
    side.sampled(Sample(of=of, part=0))
    nouns: list[Noun] = []
    verbs: list[Verb] = []
    quarantined: list[str] = []
    for part in range(side.parts):
        async with aclosing(side.read(part)) as batches:
            async for batch in batches:
                nouns += batch.nouns
                verbs += batch.verbs
                quarantined += [each.reason for each in batch.quarantined]
    if not nouns and not verbs:
        raise PreconditionError(
            "there is nothing in the sample", remedy="take more of it (--percent)", namespace=namespace, of=of
        )
    calls = {kind: count for kind, count in getattr(store, "calls", {}).items() if count}
    return _Taken(
        spec=spec,
        of=of,
        nouns=nouns,
        verbs=verbs,
        quarantined=quarantined,
        # What is in the logs only is not counted before it is read: the sample tells.
        expected=max(expected, of * (len(nouns) + len(verbs))),
        seconds=clock.monotonic() - began,
        calls=calls,
    )


async def _describe(work: Path, source: Spec, clock: Clock) -> None:
    """Describe generation 0 as the source is; the coordinator takes what it finds."""
    spec = source.model_copy(update={"generation": 0, "source": "empty", "source_trees": (), "replication": 1})
    (work / "bucket").mkdir(parents=True)
    uri = Namespace.parse(f"file://{work / 'bucket'}")
    store = open_store(uri, load_settings().store, clock=clock, ids=Ids())
    try:
        await store.put_if_absent(layout.spec(0), spec.encode())
    finally:
        await store.close()


async def _write(own: AsyncBrainy, taken: _Taken) -> None:
    items: list[Noun | Verb] = [*taken.nouns, *taken.verbs]
    for start in range(0, len(items), _AT_ONCE):
        await own.write_stored(items[start : start + _AT_ONCE])


async def _migrate(
    own: AsyncBrainy,
    taken: _Taken,
    strategy: Strategy | str,
    target: TargetSpec | None,
    quality: QualityThresholds,
    clock: Clock,
) -> tuple[Migration, float, float]:
    """Return the migration at its end, seconds of copying, and of all of it."""
    began = clock.monotonic()
    # No nodes of a pool here, and one node for all shards.
    wanted = target or TargetSpec()
    wish = TargetSpec(
        shard_count=wanted.shard_count,
        metric=wanted.metric,
        scalar_kind=wanted.scalar_kind,
        connectivity=wanted.connectivity,
    )
    begun = await own.start_migration(strategy, wish, hold_before_switch=True, quality=quality)
    since: dict[str, float] = {}
    written = False
    async with aclosing(own.watch_migration(begun.id)) as changes:
        async for seen in changes:
            since.setdefault(seen.state, clock.monotonic())
            if seen.ended:
                break
            if seen.state != "READY":
                continue
            if not written:
                # What is written now reaches the target by following.
                written = True
                await own.write_stored(taken.nouns[:_WRITTEN_MEANWHILE] or taken.verbs[:_WRITTEN_MEANWHILE])
            if seen.quality is not None and not seen.quality.passed and not seen.quality_accepted:
                # It is the verdict that counts here; the rest is to be seen as well.
                await own.accept_quality(begun.id, reason="the sample goes on to its end")
            elif seen.held and seen.quality is not None:
                await _promote(own, begun.id, clock)
    ended = await own.get_migration(begun.id)
    copying = since.get("COPYING", began)
    return ended, since.get("CATCHING_UP", clock.monotonic()) - copying, clock.monotonic() - began


async def _promote(own: AsyncBrainy, migration: str, clock: Clock) -> None:
    """Let it switch as soon as it has caught up with what was written."""
    deadline = Deadline.after(clock, _PATIENCE_SECONDS)
    while True:
        try:
            await own.promote_migration(migration)
            return
        except PreconditionError as error:
            if error.reason != "WRONG_PHASE" or deadline.passed:
                raise
        await clock.sleep(0.2)


async def _differences(uri: str, ended: Migration, clock: Clock) -> tuple[str, ...]:
    """Compare the generations, which nobody writes any more."""
    if not ended.succeeded:
        return ()
    store = open_store(Namespace.parse(uri), load_settings().store, clock=clock, ids=Ids())
    try:
        source, target = (
            NamespaceSide(uri, store, number, clock) for number in (ended.source_generation, ended.target_generation)
        )
        options = VerifyOptions(patience=Patience(pause=0.0), relations=True)
        found = await verify(source, target, options, clock=clock, ids=Ids())
    finally:
        await store.close()
    if found.verdict is Verdict.EQUAL:
        return ()
    return (f"{found.missing:,} items are missing, {found.extra:,} too many, {found.mismatched:,} are others",)


def _unindexed(taken: _Taken) -> Counter[str]:
    dimensions, metric = taken.spec.dimensions, taken.spec.metric
    reasons = (unindexed_reason(noun.vector, dimensions, metric) for noun in taken.nouns)
    return Counter(reason.value for reason in reasons if reason is not None)


def _problems(
    taken: _Taken, quarantined: Counter[str], ended: Migration, found: QualityFound | None, limit: int
) -> list[str]:
    problems: list[str] = []
    if not ended.succeeded:
        problems.append(f"the migration ended in {ended.state}: {ended.message}")
    elif not ended.digest_equal:
        problems.append("source and target differ")
    if found is None:
        problems.append("the search quality was not measured")
    else:
        problems += found.reasons
    if quarantined and quarantined.total() * taken.of > limit:
        listed = ", ".join(f"{reason} {count:,}" for reason, count in quarantined.most_common())
        problems.append(
            f"{quarantined.total():,} objects of the sample cannot be read ({listed}), so about "
            f"{quarantined.total() * taken.of:,} of the whole; {limit:,} are accepted (brainy quarantine, "
            "--quarantine-limit)"
        )
    return problems


def _bytes_under(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())
