"""Where the bases of a node's replicas come from: local disk first, then one builder job for many shards.

A base on local disk is a cache. Its directory name carries a fingerprint of the generation's spec, so a
namespace that was wiped and made anew never meets its predecessor's files.
"""

from __future__ import annotations

import asyncio
import hashlib
import shutil
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from brainy.bucket.records import Spec
from brainy.config.settings import Settings
from brainy.errors import CorruptDataError, PreconditionError
from brainy.telemetry.logs import get_logger
from brainy_node.builder.client import BuilderClient, Built, Progress
from brainy_node.builder.job import Job, JobKind
from brainy_node.builder.rates import Rates
from brainy_node.runtime.copy_throttle import CopyThrottle
from brainy_node.shard.base import Base

_log = get_logger(__name__)
#: Requests of one reconcile pass arrive together; this is how long the first waits for the others.
_GATHER_SECONDS = 0.05


@dataclass(slots=True)
class _Wish:
    shard: int
    epoch: int
    on_progress: Callable[[Progress], None]
    result: asyncio.Future[Base]


class BaseSupply:
    """Gives out opened bases for the shards of one namespace on this node."""

    def __init__(
        self,
        *,
        namespace: str,
        settings: Settings,
        node_id: str,
        incarnation: str,
        data_dir: Path,
        builder: BuilderClient,
        throttle: CopyThrottle,
    ) -> None:
        self._namespace = namespace
        self._settings = settings
        self._node_id = node_id
        self._incarnation = incarnation
        self._root = data_dir / hashlib.sha256(namespace.encode()).hexdigest()[:16]
        self._builder = builder
        self._throttle = throttle
        self._wishes: dict[tuple[JobKind, int], list[_Wish]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def generation_dir(self, spec: Spec, *, adopted: bool = False) -> Path:
        """Directory of a generation's local bases; those this node made from the tree by itself lie apart."""
        identity = spec.model_copy(update={"dimensions": 0}).model_dump_json().encode()
        pinned = "-pinned" if spec.generation == 0 and not adopted else ""
        return self._root / f"g{spec.generation}-{hashlib.sha256(identity).hexdigest()[:12]}{pinned}"

    def is_adopted(self, spec: Spec, base: Base) -> bool:
        """Whether a base was made from the tree by this node, not from a checkpoint all nodes share."""
        own = self.generation_dir(spec, adopted=True)
        return spec.generation == 0 and own.resolve() in Path(base.directory).resolve().parents

    async def local(self, spec: Spec, shard: int, *, adopted: bool = False) -> Base | None:
        """Open the newest intact base on local disk; damaged ones are removed and reported."""
        directory = self.generation_dir(spec, adopted=adopted) / f"s{shard}"
        candidates = await asyncio.to_thread(lambda: sorted(directory.glob("*/base.json"), reverse=True))
        for candidate in candidates:
            try:
                return await asyncio.to_thread(Base.open, candidate.parent)
            except CorruptDataError as error:
                _log.warning("local_base_damaged", directory=str(candidate.parent), cause=str(error))
                await asyncio.to_thread(shutil.rmtree, candidate.parent, ignore_errors=True)
        return None

    async def build(
        self,
        kind: JobKind,
        spec: Spec,
        shard: int,
        *,
        epoch: int,
        on_progress: Callable[[Progress], None],
    ) -> Base:
        """Have the builder make a base; wishes of the same kind that arrive together become one job."""
        wish = _Wish(shard, epoch, on_progress, asyncio.get_running_loop().create_future())
        waiting = self._wishes.setdefault((kind, spec.generation), [])
        waiting.append(wish)
        if len(waiting) == 1:
            task = asyncio.create_task(self._grant(kind, spec))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return await wish.result

    async def _grant(self, kind: JobKind, spec: Spec) -> None:
        await asyncio.sleep(_GATHER_SECONDS)
        await self._fulfil(kind, spec, {wish.shard: wish for wish in self._wishes.pop((kind, spec.generation))})

    async def _fulfil(self, kind: JobKind, spec: Spec, wishes: Mapping[int, _Wish]) -> None:
        job = Job(
            kind=kind,
            namespace=self._namespace,
            store=self._settings.store,
            spec=spec,
            shards=tuple(sorted(wishes)),
            output=str(self.generation_dir(spec, adopted=kind == "adopt")),
            epochs={wish.shard: wish.epoch for wish in wishes.values()},
            node_id=self._node_id,
            incarnation=self._incarnation,
        )

        def report(progress: Progress) -> None:
            if progress.shard in wishes:
                wishes[progress.shard].on_progress(progress)

        try:
            async with self._held_to_rate(job) as rates:
                built = await self._builder.run(job, report, rates=rates)
            bases = await asyncio.to_thread(_open_all, built)
        except (CorruptDataError, PreconditionError) as error:
            if kind == "open" and len(wishes) > 1:
                # One of them is damaged in the bucket; each for itself, so that only that one fails.
                _log.warning("opening_one_by_one", shards=list(job.shards), cause=str(error))
                for shard, wish in wishes.items():
                    await self._open_alone(spec, shard, wish)
            else:
                _refuse(wishes.values(), error)
        except Exception as error:
            # Whatever it is, nobody may wait for ever: the duty that asked reports it and asks again.
            _refuse(wishes.values(), error)
        else:
            for shard, wish in wishes.items():
                if not wish.result.done():
                    wish.result.set_result(bases[shard])

    @asynccontextmanager
    async def _held_to_rate(self, job: Job) -> AsyncIterator[Rates | None]:
        """Copies give way; whoever opens what exists already is waited for."""
        if job.kind != "fill":
            yield None
            return
        async with self._throttle.job(job.spec.generation) as rates:
            yield rates

    async def _open_alone(self, spec: Spec, shard: int, wish: _Wish) -> None:
        """Open one shard of a job that failed; it may have finished before another's failure."""
        done = await self.local(spec, shard)
        if done is None:
            await self._fulfil("open", spec, {shard: wish})
        elif not wish.result.done():
            wish.result.set_result(done)

    async def fold(self, spec: Spec, base: Base, shard: int, *, up_to: int, epoch: int, publish: bool) -> Base:
        """Have the builder merge the log up to a position into a new base; publish it if asked to."""
        job = Job(
            kind="fold",
            namespace=self._namespace,
            store=self._settings.store,
            spec=spec,
            shards=(shard,),
            output=str(self.generation_dir(spec, adopted=not publish and self.is_adopted(spec, base))),
            epochs={shard: epoch},
            node_id=self._node_id,
            incarnation=self._incarnation,
            base_directory=str(base.directory),
            up_to_position=up_to,
            publish=publish,
        )
        built = await self._builder.run(job, lambda progress: None)
        return await asyncio.to_thread(Base.open, Path(built[shard].directory))

    async def discard_others(self, spec: Spec, shard: int, keep: Base) -> None:
        """Remove older local bases of a shard; files still mapped live on until they are let go."""
        directories = [self.generation_dir(spec, adopted=adopted) / f"s{shard}" for adopted in (True, False)]

        def sweep() -> None:
            kept = Path(keep.directory).resolve()
            for directory in directories:
                for entry in directory.iterdir() if directory.is_dir() else ():
                    if entry.is_dir() and entry.resolve() != kept:
                        shutil.rmtree(entry, ignore_errors=True)

        await asyncio.to_thread(sweep)

    async def close(self) -> None:
        """Stop the jobs under way; what they wrote locally is found again or swept."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


def _refuse(wishes: Iterable[_Wish], error: Exception) -> None:
    for wish in wishes:
        if not wish.result.done():
            wish.result.set_exception(error)


def _open_all(built: Mapping[int, Built]) -> dict[int, Base]:
    return {shard: Base.open(Path(result.directory)) for shard, result in built.items()}
