"""Coordinators and nodes as child processes on this machine."""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from pydantic import BaseModel, ConfigDict, ValidationError

from brainy.api.coordinator.v1 import cluster_pb2, cluster_pb2_grpc
from brainy.bucket.namespace import Namespace
from brainy.clock import Clock, Deadline, SystemClock
from brainy.config.environment import cache_directory
from brainy.errors import (
    ConflictError,
    CorruptDataError,
    FencedError,
    InvalidRequestError,
    NotFoundError,
    PreconditionError,
    UnavailableError,
)
from brainy.rpc.errors import error_of
from brainy.sdk.client import AsyncBrainy
from brainy.sdk.local_process import LocalProcess, ProcessRecord

_HEALTH_POLL_SECONDS = 0.05
_COORDINATOR = "coordinator"


@dataclass(frozen=True, slots=True, kw_only=True)
class Roles:
    """How to start each role: arguments after the Python interpreter."""

    coordinator: Sequence[str] = ("-m", "brainy_coordinator")
    node: Sequence[str] = ("-m", "brainy_node")


class _ClusterFile(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    format_version: int = 1
    namespace: str
    processes: tuple[ProcessRecord, ...]


def default_directory(namespace: str) -> Path:
    """Where the state of a namespace's local cluster lies unless told otherwise."""
    name = str(Namespace.parse(namespace))
    return cache_directory() / hashlib.sha256(name.encode()).hexdigest()[:16]


class LocalCluster:
    """Coordinators, one of which leads, and nodes for one namespace.

    The directory holds ``cluster.json`` (the processes), ``logs/``, ``run/`` (ready files) and ``data/`` (the
    nodes' caches). Nothing in it is needed to keep the namespace's data, which is in the bucket.

    ``start`` starts processes; ``attach`` takes up those that an earlier process left running (``brainy up``).
    """

    def __init__(
        self,
        namespace: str,
        *,
        nodes: int = 3,
        coordinators: int = 1,
        directory: Path | str | None = None,
        settings: Mapping[str, str] | None = None,
        leashed: bool = True,
        roles: Roles | None = None,
        clock: Clock | None = None,
    ) -> None:
        """Describe a cluster; nothing runs yet.

        Args:
            namespace: bucket and prefix in any accepted spelling.
            nodes: how many to start.
            coordinators: how many to start; one leads, the others stand by.
            directory: of the cluster's state; a directory of the user's cache by default.
            settings: further ``BRAINY_*`` and ``AWS_*`` variables for the processes.
            leashed: whether the processes end with this one (Linux; by the thread that started them).
            roles: how to start each role.
            clock: source of time, for tests.

        Raises:
            InvalidRequestError: an illegal namespace, one in memory (processes cannot share it), no node, or no
                coordinator.
        """
        self.namespace = Namespace.parse(namespace)
        if self.namespace.scheme == "memory":
            raise InvalidRequestError(
                "processes cannot share a namespace in memory", remedy="use file:///directory or s3://bucket"
            )
        if nodes < 1:
            raise InvalidRequestError(
                "a cluster needs at least one node", remedy="ask for one node or more", nodes=nodes
            )
        if coordinators < 1:
            raise InvalidRequestError(
                "a cluster needs at least one coordinator",
                remedy="ask for one coordinator or more",
                coordinators=coordinators,
            )
        self.directory = Path(directory).resolve() if directory else default_directory(str(self.namespace))
        self._node_count = nodes
        self._coordinator_count = coordinators
        self._settings = dict(settings or {})
        self._leashed = leashed
        self._roles = roles or Roles()
        self._clock: Clock = clock or SystemClock()
        self._processes: dict[str, LocalProcess] = {}

    @classmethod
    def attach(cls, directory: Path | str) -> Self | None:
        """Return the cluster that runs in a directory, or None.

        Raises:
            CorruptDataError: ``cluster.json`` is not what we wrote.
        """
        path = Path(directory).resolve() / "cluster.json"
        try:
            body = path.read_bytes()
        except FileNotFoundError:
            return None
        try:
            stored = _ClusterFile.model_validate_json(body)
        except ValidationError as error:
            raise CorruptDataError(
                "not a cluster file", remedy="end the processes by hand and remove it", file=path
            ) from error
        cluster = cls(stored.namespace, directory=path.parent, leashed=False)
        cluster._processes = {record.name: LocalProcess(record) for record in stored.processes}
        cluster._node_count = len(cluster.nodes)
        cluster._coordinator_count = len(cluster.coordinators)
        return cluster if any(process.alive() for process in cluster._processes.values()) else None

    @property
    def coordinator(self) -> str:
        """host:port of the first coordinator that runs."""
        running = [process.address for process in self.coordinators if process.alive() and process.address]
        return (running or [process.address for process in self.coordinators])[0]

    @property
    def coordinators(self) -> list[LocalProcess]:
        """The coordinators, in the order they were started."""
        return [process for name, process in self._processes.items() if name.startswith(_COORDINATOR)]

    @property
    def coordinator_addresses(self) -> list[str]:
        """host:port of every coordinator, whether it runs or not."""
        return [process.address for process in self.coordinators]

    @property
    def endpoints(self) -> list[str]:
        """host:port of the nodes that run."""
        return [process.address for process in self.nodes if process.alive() and process.address]

    @property
    def nodes(self) -> list[LocalProcess]:
        """The nodes, in the order they were started."""
        return [process for name, process in self._processes.items() if not name.startswith(_COORDINATOR)]

    @property
    def processes(self) -> list[LocalProcess]:
        """Coordinators and nodes."""
        return list(self._processes.values())

    def client(self, *, read_only: bool = False, on_close: Callable[[], Awaitable[None]] | None = None) -> AsyncBrainy:
        """Return a client of the whole cluster. The caller closes it."""
        return AsyncBrainy(
            self.endpoints,
            coordinators=self.coordinator_addresses,
            namespace=str(self.namespace),
            read_only=read_only,
            on_close=on_close,
        )

    async def start(self, *, timeout_seconds: float = 120.0) -> Self:
        """Start the processes and wait until every node serves.

        Before: no process of this directory runs.
        Steps: (1) all coordinators; (2) all nodes at once; (3) wait for ready files, then for health SERVING, which
        a node reports once its shards answer.
        After: clients can connect. On an error or cancellation every process started here is ended.

        Raises:
            PreconditionError: a cluster of this directory runs already.
            UnavailableError: a process exited or was not ready in time; the message quotes its log.
            BrainyError: what the coordinator refuses the namespace for, as soon as it says so: no bucket of
                Brainy's (NOT_A_BRAINY_BUCKET), a store without conditions (STORE_UNFIT), no permission and so on.
        """
        self._make_directories()
        with self._exclusively():
            running = LocalCluster.attach(self.directory)
            if running:
                raise PreconditionError(
                    "a cluster already runs here",
                    remedy="stop it with brainy down, or connect to it",
                    directory=self.directory,
                    pids=",".join(str(process.record.pid) for process in running.processes),
                )
            deadline = Deadline.after(self._clock, timeout_seconds)
            try:
                names = [_COORDINATOR, *(f"{_COORDINATOR}-{n}" for n in range(2, self._coordinator_count + 1))]
                for name in names:
                    self._spawn_coordinator(name, "127.0.0.1:0")
                await asyncio.gather(*(process.ready(deadline) for process in self.coordinators))
                for number in range(1, self._node_count + 1):
                    self._spawn_node(f"node-{number}")
                await asyncio.gather(*(self._serving(node, deadline) for node in self.nodes))
                self._save()
            except BaseException:
                # Shielded: a second Ctrl-C must not leave processes behind.
                await asyncio.shield(self.stop(grace_seconds=2.0))
                raise
        return self

    async def start_node(self, *, pool: str = "", timeout_seconds: float = 120.0) -> LocalProcess:
        """Start one more node, labelled with a pool if one is given, and wait until it serves."""
        node = self._spawn_node(self._fresh_name(), pool=pool)
        self._save()
        await self._serving(node, Deadline.after(self._clock, timeout_seconds))
        self._save()
        return node

    async def kill_node(self, index: int) -> str:
        """SIGKILL the node at an index of ``nodes``; returns its name. It is not started again.

        Raises:
            NotFoundError: there is no such node.
        """
        try:
            node = self.nodes[index]
        except IndexError:
            raise NotFoundError(
                "no such node", remedy="use an index of nodes", index=index, nodes=len(self.nodes)
            ) from None
        await node.kill(self._clock)
        del self._processes[node.name]
        self._save()
        return node.name

    async def restart_node(self, index: int, *, timeout_seconds: float = 120.0) -> LocalProcess:
        """SIGKILL the node at an index of ``nodes`` and start it anew: same name, address and cache."""
        old = self.nodes[index]
        await old.kill(self._clock)
        node = self._spawn_node(old.name, old.address, pool=old.record.pool)
        await self._serving(node, Deadline.after(self._clock, timeout_seconds))
        self._save()
        return node

    async def restart_coordinator(self, index: int = 0, *, timeout_seconds: float = 60.0) -> None:
        """SIGKILL a coordinator and start it anew at the same address."""
        old = self.coordinators[index]
        await old.kill(self._clock)
        await self._spawn_coordinator(old.name, old.address).ready(Deadline.after(self._clock, timeout_seconds))
        self._save()

    async def stop(self, *, grace_seconds: float = 15.0) -> None:
        """End the nodes, then the coordinators: SIGTERM, and SIGKILL to what is left after the grace.

        Only processes whose command line shows that they are ours are signalled. Stopping twice is fine.
        """
        await asyncio.gather(*(node.stop(self._clock, grace_seconds=grace_seconds) for node in self.nodes))
        await asyncio.gather(*(each.stop(self._clock, grace_seconds=grace_seconds) for each in self.coordinators))
        self._processes.clear()
        (self.directory / "cluster.json").unlink(missing_ok=True)

    async def __aenter__(self) -> Self:
        """Start it."""
        return await self.start()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop it."""
        await self.stop()

    def _spawn_coordinator(self, name: str, listen: str) -> LocalProcess:
        coordinator = LocalProcess.start(
            name,
            [*self._roles.coordinator, "--namespace", str(self.namespace), "--listen", listen],
            directory=self.directory,
            environment={
                "BRAINY_COORDINATOR__COORDINATOR_ID": name,
                "BRAINY_COORDINATOR__MIN_NODES": str(self._node_count),
                "BRAINY_COORDINATOR__REPLICATION": str(min(2, self._node_count)),
                **self._settings,
            },
            leashed=self._leashed,
        )
        self._processes[name] = coordinator
        return coordinator

    def _fresh_name(self) -> str:
        """Return a name that no node has had: the data directory of a dead one is not this one's cache."""
        taken = {process.name for process in self.nodes} | {
            path.name for path in (self.directory / "data").glob("node-*")
        }
        number = 1
        while f"node-{number}" in taken:
            number += 1
        return f"node-{number}"

    def _spawn_node(self, name: str, listen: str = "127.0.0.1:0", *, pool: str = "") -> LocalProcess:
        data = self.directory / "data" / name
        data.mkdir(parents=True, exist_ok=True)
        node = LocalProcess.start(
            name,
            [
                *self._roles.node,
                *("--namespace", str(self.namespace)),
                *("--node-id", name),
                *("--listen", listen),
                *(part for address in self.coordinator_addresses for part in ("--coordinator", address)),
                *("--data-dir", str(data)),
                *(("--pool", pool) if pool else ()),
            ],
            directory=self.directory,
            environment=self._settings,
            leashed=self._leashed,
            pool=pool,
        )
        self._processes[name] = node
        return node

    async def _serving(self, node: LocalProcess, deadline: Deadline) -> None:
        await node.ready(deadline)
        request = health_pb2.HealthCheckRequest(service="")
        async with (
            grpc.aio.insecure_channel(node.address) as channel,
            grpc.aio.insecure_channel(self.coordinator) as control,
        ):
            health = health_pb2_grpc.HealthStub(channel)
            leader = cluster_pb2_grpc.ClusterServiceStub(control)
            while True:
                try:
                    answer = await health.Check(request, timeout=2.0)
                    if answer.status == health_pb2.HealthCheckResponse.SERVING:
                        return
                except grpc.aio.AioRpcError as error:
                    state = error.code().name.lower()
                else:
                    state = "not serving yet"
                await self._check_adopted(leader)
                if not node.alive() or deadline.passed:
                    raise UnavailableError(
                        f"{node.name} does not serve: {state}",
                        reason="SHARD_NOT_READY",
                        remedy="read its log and start again",
                        log=node.record.log_file,
                    )
                await self._clock.sleep(_HEALTH_POLL_SECONDS)

    async def _check_adopted(self, leader: cluster_pb2_grpc.ClusterServiceAsyncStub) -> None:
        """Raise what keeps the coordinator from serving the namespace, unless it may pass by itself."""
        try:
            answer = await leader.ListNamespaces(cluster_pb2.ListNamespacesRequest(), timeout=2.0)
        except grpc.aio.AioRpcError:
            return  # it says nothing now; the deadline bounds the wait
        for info in answer.namespaces:
            if info.namespace == str(self.namespace) and info.HasField("problem"):
                found = info.problem
                error = error_of(
                    found.code, found.reason, found.message, remedy=found.remedy, fields=dict(found.fields)
                )
                if not isinstance(error, (UnavailableError, ConflictError, FencedError)):
                    raise error

    def _make_directories(self) -> None:
        if self.namespace.scheme == "file":
            Path(self.namespace.root).mkdir(parents=True, exist_ok=True)
        self.directory.mkdir(parents=True, exist_ok=True)

    def _save(self) -> None:
        stored = _ClusterFile(
            namespace=str(self.namespace),
            processes=tuple(process.record for process in self._processes.values()),
        )
        path = self.directory / "cluster.json"
        draft = path.with_suffix(".tmp")
        draft.write_text(stored.model_dump_json(indent=2), encoding="utf-8")
        draft.replace(path)

    @contextmanager
    def _exclusively(self) -> Iterator[None]:
        """Keep two commands from starting the same cluster at once."""
        with (self.directory / "lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise PreconditionError(
                    "another process is starting this cluster",
                    remedy="wait for it, then connect",
                    directory=self.directory,
                ) from None
            yield
