"""The blocking client: every call of ``AsyncBrainy``, run in one background event loop.

There is no second implementation. Each method below is a descriptor around the asynchronous one and keeps its
signature and documentation.
"""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, Self, TypeVar, cast, overload

from brainy.sdk.client import AsyncBrainy
from brainy.sdk.loop_thread import LOOP
from brainy.sdk.sync_locks import BlockingLock

if TYPE_CHECKING:
    from brainy.embedding.opening import EmbedderLike

P = ParamSpec("P")
R = TypeVar("R")


class _Call(Generic[P, R]):
    """A method of ``Brainy`` that waits for the method of the same name of ``AsyncBrainy``."""

    def __init__(self, method: Callable[Concatenate[AsyncBrainy, P], Coroutine[Any, Any, R]]) -> None:
        self._method = method
        self.__doc__ = method.__doc__

    @overload
    def __get__(self, client: None, owner: type[Brainy]) -> Self: ...
    @overload
    def __get__(self, client: Brainy, owner: type[Brainy]) -> Callable[P, R]: ...
    def __get__(self, client: Brainy | None, owner: type[Brainy]) -> Self | Callable[P, R]:
        if client is None:
            return self
        method, inner = self._method, client.asynchronous

        @functools.wraps(method)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            return LOOP.run(method(inner, *args, **kwargs))

        return call


class _Iteration(Generic[P, R]):
    """A method of ``Brainy`` that iterates over what the one of ``AsyncBrainy`` yields."""

    def __init__(self, method: Callable[Concatenate[AsyncBrainy, P], AsyncIterator[R]], *, at_once: int = 256) -> None:
        self._method = method
        #: Items fetched per change of thread; 1 where each item matters as soon as it is there.
        self._at_once = at_once
        self.__doc__ = method.__doc__

    @overload
    def __get__(self, client: None, owner: type[Brainy]) -> Self: ...
    @overload
    def __get__(self, client: Brainy, owner: type[Brainy]) -> Callable[P, Iterator[R]]: ...
    def __get__(self, client: Brainy | None, owner: type[Brainy]) -> Self | Callable[P, Iterator[R]]:
        if client is None:
            return self
        method, inner, at_once = self._method, client.asynchronous, self._at_once

        @functools.wraps(cast(Callable[P, Iterator[R]], method))
        def iterate(*args: P.args, **kwargs: P.kwargs) -> Iterator[R]:
            source = method(inner, *args, **kwargs)
            try:
                while batch := LOOP.run(_some(source, at_once)):
                    yield from batch
            finally:
                # Given up half way: end the stream now, not when the collector comes by.
                close = getattr(source, "aclose", None)
                if close is not None and not LOOP.stopped:
                    LOOP.run(close())

        return iterate


async def _some(source: AsyncIterator[R], limit: int) -> list[R]:
    """Take up to ``limit`` items; fewer only at the end."""
    batch: list[R] = []
    async for item in source:
        batch.append(item)
        if len(batch) >= limit:
            break
    return batch


class Brainy:
    """A client of a cluster, blocking. Safe to use from several threads.

    Usage::

        with Brainy(AsyncBrainy(["127.0.0.1:7171"])) as brainy:
            brainy.add([0.1, 0.2, 0.3], {"title": "first"}, id="a")
            hits = brainy.search([0.1, 0.2, 0.3], 10)

    ``brainy.create_auto_brainy`` makes one with whatever it needs around it.
    """

    def __init__(self, asynchronous: AsyncBrainy) -> None:
        """Wrap an asynchronous client that no other loop uses."""
        #: The client behind this one; its calls may only be awaited in the background loop.
        self.asynchronous = asynchronous
        self._closed = False
        LOOP.at_exit(self, self.close)

    add = _Call(AsyncBrainy.add)
    add_many = _Call(AsyncBrainy.add_many)
    import_nouns = _Call(AsyncBrainy.import_nouns)
    get = _Call(AsyncBrainy.get)
    get_many = _Call(AsyncBrainy.get_many)
    scan = _Iteration(AsyncBrainy.scan)
    delete = _Call(AsyncBrainy.delete)
    delete_many = _Call(AsyncBrainy.delete_many)

    add_verb = _Call(AsyncBrainy.add_verb)
    get_verb = _Call(AsyncBrainy.get_verb)
    get_verbs = _Call(AsyncBrainy.get_verbs)
    find_verbs = _Call(AsyncBrainy.find_verbs)
    scan_verbs = _Iteration(AsyncBrainy.scan_verbs)
    delete_verb = _Call(AsyncBrainy.delete_verb)
    delete_verbs = _Call(AsyncBrainy.delete_verbs)

    stored_nouns = _Call(AsyncBrainy.stored_nouns)
    stored_verbs = _Call(AsyncBrainy.stored_verbs)
    write_stored = _Call(AsyncBrainy.write_stored)
    import_sparse_data = _Call(AsyncBrainy.import_sparse_data)

    search = _Call(AsyncBrainy.search)
    search_many = _Call(AsyncBrainy.search_many)

    get_statistics = _Call(AsyncBrainy.get_statistics)
    get_performance_metrics = _Call(AsyncBrainy.get_performance_metrics)
    unindexed = _Iteration(AsyncBrainy.unindexed)
    quarantined = _Iteration(AsyncBrainy.quarantined)

    backup = _Call(AsyncBrainy.backup)
    backup_to = _Call(AsyncBrainy.backup_to)
    restore = _Call(AsyncBrainy.restore)
    verify_backup = _Call(AsyncBrainy.verify_backup)

    nodes = _Call(AsyncBrainy.nodes)
    namespaces = _Call(AsyncBrainy.namespaces)
    drain_node = _Call(AsyncBrainy.drain_node)
    wait_until_drained = _Call(AsyncBrainy.wait_until_drained)
    plan_migration = _Call(AsyncBrainy.plan_migration)
    get_plan = _Call(AsyncBrainy.get_plan)
    execute_plan = _Call(AsyncBrainy.execute_plan)
    start_migration = _Call(AsyncBrainy.start_migration)
    get_migration = _Call(AsyncBrainy.get_migration)
    list_migrations = _Call(AsyncBrainy.list_migrations)
    watch_migration = _Iteration(AsyncBrainy.watch_migration, at_once=1)
    wait_for_migration = _Call(AsyncBrainy.wait_for_migration)
    abort_migration = _Call(AsyncBrainy.abort_migration)
    promote_migration = _Call(AsyncBrainy.promote_migration)
    pause_migration = _Call(AsyncBrainy.pause_migration)
    resume_migration = _Call(AsyncBrainy.resume_migration)
    set_copy_rate = _Call(AsyncBrainy.set_copy_rate)
    rollback_migration = _Call(AsyncBrainy.rollback_migration)
    complete_migration = _Call(AsyncBrainy.complete_migration)
    wait_until_migration_rests = _Call(AsyncBrainy.wait_until_migration_rests)
    postpone_migration = _Call(AsyncBrainy.postpone_migration)
    can_switch = _Call(AsyncBrainy.can_switch)
    list_plans = _Call(AsyncBrainy.list_plans)
    list_generations = _Call(AsyncBrainy.list_generations)
    keep_generation = _Call(AsyncBrainy.keep_generation)
    retain_generation = _Call(AsyncBrainy.retain_generation)
    set_reads = _Call(AsyncBrainy.set_reads)
    compare_reads = _Call(AsyncBrainy.compare_reads)
    check_quality = _Call(AsyncBrainy.check_quality)
    accept_quality = _Call(AsyncBrainy.accept_quality)
    replay_reads = _Call(AsyncBrainy.replay_reads)

    get_lock = _Call(AsyncBrainy.get_lock)
    list_locks = _Call(AsyncBrainy.list_locks)
    watch_lock = _Iteration(AsyncBrainy.watch_lock, at_once=1)
    release_lock = _Call(AsyncBrainy.release_lock)
    break_lock = _Call(AsyncBrainy.break_lock)

    def lock(
        self,
        name: str,
        *,
        ttl: float = 30.0,
        wait: float | None = None,
        holder: str = "",
        purpose: str = "",
        watch: bool = False,
    ) -> BlockingLock:
        """Return a lock to be taken, with ``with``; see ``AsyncBrainy.lock``."""
        return BlockingLock(
            self.asynchronous.lock(name, ttl=ttl, wait=wait, holder=holder, purpose=purpose, watch=watch)
        )

    @property
    def embedder(self) -> EmbedderLike | None:
        """What this client embeds texts with; see ``AsyncBrainy.embedder``."""
        return self.asynchronous.embedder

    @embedder.setter
    def embedder(self, embedder: EmbedderLike | None) -> None:
        self.asynchronous.embedder = embedder

    @property
    def namespace(self) -> str:
        """The namespace's canonical name, or "" for the only one the cluster serves."""
        return self.asynchronous.namespace

    @property
    def is_read_only(self) -> bool:
        """Whether calls that would change something are refused."""
        return self.asynchronous.is_read_only

    @property
    def is_frozen(self) -> bool:
        """Whether the client is frozen."""
        return self.asynchronous.is_frozen

    def set_read_only(self, read_only: bool) -> None:
        """Refuse every call that would change the namespace, or accept them again; see ``AsyncBrainy``."""
        self.asynchronous.set_read_only(read_only)

    def set_frozen(self, frozen: bool) -> None:
        """Freeze the client, or thaw it; see ``AsyncBrainy.set_frozen``."""
        self.asynchronous.set_frozen(frozen)

    def close(self) -> None:
        """Close the connections, and stop the cluster if it is embedded. Closing twice is fine."""
        if self._closed:
            return
        self._closed = True
        LOOP.forget(self)
        LOOP.run(self.asynchronous.close())

    def __enter__(self) -> Self:
        """Return itself; the first call connects."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        self.close()
