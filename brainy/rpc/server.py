"""Server side: one grpc.aio server with health, reflection, limits and a graceful end."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.descriptor import ServiceDescriptor
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from brainy.clock import Clock
from brainy.errors import InvalidRequestError, UnavailableError
from brainy.ids import Ids
from brainy.rpc.interceptors import RpcInterceptor
from brainy.rpc.metrics import RpcMetrics
from brainy.rpc.options import MAX_DEADLINE_SECONDS, MAX_MESSAGE_BYTES, server_arguments
from brainy.telemetry.logs import get_logger

_log = get_logger(__name__)

#: What watchers of health get to hear before their streams end.
_TELL_SECONDS = 0.05

_LISTEN = re.compile(r"(?P<host>\[[0-9a-fA-F:]+\]|[^:/\s]+):(?P<port>\d{1,5})")


@dataclass(frozen=True, slots=True)
class Service:
    """A servicer and how it is attached: descriptor, generated ``add_…Servicer_to_server``, implementation."""

    descriptor: ServiceDescriptor
    add: Callable[[Any, grpc.aio.Server], None]
    servicer: object

    @property
    def name(self) -> str:
        """Full name, ``package.Service``: also its name in health checks."""
        return str(self.descriptor.full_name)


class RunningServer:
    """A server that accepts calls. Made by ``build_server``."""

    def __init__(
        self,
        server: grpc.aio.Server,
        servicer: health.aio.HealthServicer,
        interceptor: RpcInterceptor,
        metrics: RpcMetrics,
        services: Sequence[str],
        address: str,
        clock: Clock,
    ) -> None:
        self._server = server
        self._clock = clock
        self._health = servicer
        self._interceptor = interceptor
        self._services = tuple(services)
        self._draining = False
        #: Figures of the calls answered.
        self.metrics = metrics
        #: ``host:port`` it is bound to, with the real port where 0 was asked for.
        self.address = address

    @property
    def draining(self) -> bool:
        """Whether ``drain`` was called."""
        return self._draining

    async def set_serving(self, serving: bool, service: str | None = None) -> None:
        """Answer health checks of one service (None: of all and of "") with SERVING or NOT_SERVING."""
        state = health_pb2.HealthCheckResponse.ServingStatus
        value = state.SERVING if serving else state.NOT_SERVING
        for name in (*self._services, "") if service is None else (service,):
            await self._health.set(name, value)

    async def drain(self, grace_seconds: float) -> None:
        """Shut down without breaking calls.

        Before: calls are accepted.
        Steps: (1) health says NOT_SERVING, for good, and its watchers are told; (2) endless streams end with
        UNAVAILABLE (DRAINING); (3) new calls and connections are refused; (4) calls in flight may finish within
        ``grace_seconds``, then they are cancelled.
        After: the port is free.
        Cancel safety: cancelled at step 4, calls still in flight are cancelled. May be called again.
        """
        if not self._draining:
            self._draining = True
            _log.info("server_draining", address=self.address, grace_seconds=grace_seconds)
            await self._health.enter_graceful_shutdown()
            await self._clock.sleep(min(_TELL_SECONDS, grace_seconds))
            self._interceptor.end_streams()
        await self._server.stop(grace_seconds)

    async def wait(self) -> None:
        """Return once the server has stopped."""
        await self._server.wait_for_termination()


async def build_server(
    services: Sequence[Service],
    listen: str,
    *,
    clock: Clock,
    ids: Ids,
    metrics: RpcMetrics | None = None,
    endless: Collection[str] = (),
    max_message_bytes: int = MAX_MESSAGE_BYTES,
    max_deadline_seconds: float = MAX_DEADLINE_SECONDS,
    serving: bool = True,
) -> RunningServer:
    """Start a server.

    Args:
        services: what it answers, besides health and reflection.
        listen: ``host:port``; port 0 takes a free one.
        clock: times calls.
        ids: names calls and crashes in the logs.
        metrics: where calls are counted; a fresh one if None.
        endless: full method names (``/package.Service/Method``) of streams that a drain must end.
        max_message_bytes: largest message either way.
        max_deadline_seconds: longest a unary call may run.
        serving: what health says until ``set_serving``.

    Raises:
        InvalidRequestError: ``listen`` is no ``host:port``.
        UnavailableError: the address cannot be bound.
    """
    match = _LISTEN.fullmatch(listen)
    if match is None or int(match["port"]) > 65535:
        raise InvalidRequestError(
            "not an address to listen on", remedy="write host:port, for example 0.0.0.0:7080", listen=listen
        )
    metrics = metrics or RpcMetrics()
    interceptor = RpcInterceptor(
        clock=clock, ids=ids, metrics=metrics, max_deadline_seconds=max_deadline_seconds, endless=endless
    )
    server = grpc.aio.server(interceptors=[interceptor], options=server_arguments(max_message_bytes=max_message_bytes))
    for service in services:
        service.add(service.servicer, server)
    names = [service.name for service in services]
    checks = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(checks, server)
    reflection.enable_server_reflection((*names, health.SERVICE_NAME, reflection.SERVICE_NAME), server)
    try:
        port = server.add_insecure_port(listen)
    except RuntimeError as error:
        raise _cannot_bind(listen) from error
    if port == 0:
        raise _cannot_bind(listen)
    running = RunningServer(server, checks, interceptor, metrics, names, f"{match['host']}:{port}", clock)
    await running.set_serving(serving)
    await server.start()
    _log.info("server_listening", address=running.address, services=len(names))
    return running


def _cannot_bind(listen: str) -> UnavailableError:
    return UnavailableError(
        "cannot listen on the address", remedy="free the port or choose another address", listen=listen
    )
