"""A network inside one process, used through the generated gRPC stubs.

``SimChannel`` is what a stub is built on, ``SimServer`` what ``add_…Servicer_to_server`` attaches to. Messages are
really serialised; handlers run as tasks of the serving process, behind the product's own ``RpcInterceptor``, so
errors take the road they take on the wire (rich status in trailing metadata).

Each message travels for a while drawn from the seed. Calls overtake each other; messages of one call do not, as in
HTTP/2. A message may be lost (the caller's connection breaks), a request of one message may arrive twice (a proxy
or a client library repeated it), two processes may be cut off from each other, a process may die: its callers see
UNAVAILABLE, the calls it made are cancelled where they are served.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Generator, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import grpc
from grpc.aio import Metadata

from brainy.rpc.channel import ChannelPool
from brainy.rpc.interceptors import RpcInterceptor
from brainy.rpc.metrics import RpcMetrics
from brainy.rpc.server import Service
from brainy.testing.loop import SimLoop
from brainy.testing.process import SimProcess

#: Told of every message that arrives: from, to, method.
Note = Callable[[str, str, str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkWeather:
    """How messages travel. Rates are shares of messages."""

    latency: tuple[float, float] = (0.0005, 0.01)
    slow_rate: float = 0.0
    slow: tuple[float, float] = (0.2, 3.0)
    loss: float = 0.0
    #: Requests that arrive a second time, later.
    duplicate: float = 0.0


class SimNetwork:
    """Addresses, and who answers at them."""

    def __init__(self, loop: SimLoop, weather: NetworkWeather, note: Note | None = None) -> None:
        self.loop = loop
        self.weather = weather
        self._note = note
        self._servers: dict[str, SimServer] = {}
        self._cuts: set[frozenset[str]] = set()
        self.calls: dict[SimCall, None] = {}

    def serve(
        self, process: SimProcess, address: str, services: Sequence[Service], endless: Sequence[str] = ()
    ) -> SimServer:
        """Answer at an address until the process dies."""
        server = SimServer(process, endless)
        for service in services:
            service.add(service.servicer, server)  # type: ignore[arg-type]  # the two methods a servicer needs
        self._servers[address] = server
        process.on_death.append(lambda: self._died(process, address))
        return server

    def pool(self, process: SimProcess) -> SimChannelPool:
        """Return the channels of a process."""
        process.on_death.append(lambda: self._caller_died(process))
        return SimChannelPool(self, process)

    def cut(self, one: str, other: str) -> None:
        """Let no message pass between two processes, by name."""
        self._cuts.add(frozenset((one, other)))

    def heal(self) -> None:
        """End every cut."""
        self._cuts.clear()

    def server_at(self, address: str) -> SimServer | None:
        """Return who listens there."""
        return self._servers.get(address)

    def is_cut(self, one: str, other: str) -> bool:
        """Whether two processes cannot talk."""
        return frozenset((one, other)) in self._cuts

    def leg(self) -> float:
        """Seconds of one message's way."""
        rng, weather = self.loop.rng, self.weather
        if weather.slow_rate and rng.random() < weather.slow_rate:
            return rng.uniform(*weather.slow)
        return rng.uniform(*weather.latency)

    def lost(self) -> bool:
        """Whether a message gets lost."""
        return self.weather.loss > 0 and self.loop.rng.random() < self.weather.loss

    def twice(self) -> bool:
        """Whether a request arrives again."""
        return self.weather.duplicate > 0 and self.loop.rng.random() < self.weather.duplicate

    def arrived(self, source: str, target: str, method: str) -> None:
        """Say that a request arrived."""
        if self._note is not None:
            self._note(source, target, method)

    def _died(self, process: SimProcess, address: str) -> None:
        if (server := self._servers.get(address)) is not None and server.process is process:
            del self._servers[address]
        for call in list(self.calls):
            if call.server is not None and call.server.process is process:
                call.breaks("the connection was reset", self.leg())

    def _caller_died(self, process: SimProcess) -> None:
        for call in list(self.calls):
            if call.caller is process:
                call.abandon()


class SimServer:
    """What generated code adds servicers to."""

    def __init__(self, process: SimProcess, endless: Sequence[str] = ()) -> None:
        self.process = process
        self._handlers: dict[str, Any] = {}
        self._interceptor = RpcInterceptor(clock=process.clock, ids=process.ids, metrics=RpcMetrics(), endless=endless)

    def add_generic_rpc_handlers(self, handlers: Sequence[Any]) -> None:
        """Part of the interface; the methods come by ``add_registered_method_handlers``."""

    def add_registered_method_handlers(self, service: str, handlers: dict[str, Any]) -> None:
        """Take the methods of a servicer."""
        for name, handler in handlers.items():
            self._handlers[f"/{service}/{name}"] = handler

    async def handler(self, method: str) -> Any:
        """Return a method behind the interceptor, or None."""

        async def found(_: Any) -> Any:
            return self._handlers.get(method)

        details: Any = SimpleNamespace(method=method, invocation_metadata=())
        return await self._interceptor.intercept_service(found, details)


class _Context:
    """The servicer's side of a call."""

    def __init__(self, call: SimCall) -> None:
        self._call = call
        self.code: grpc.StatusCode | None = None
        self.details = ""
        self.trailing: tuple[tuple[str, str | bytes], ...] = ()

    async def abort(self, code: grpc.StatusCode, details: str = "", trailing_metadata: Any = ()) -> None:
        self.code, self.details, self.trailing = code, details, tuple(trailing_metadata)
        raise grpc.aio.AbortError

    async def write(self, message: Any) -> None:
        self._call.answer(message)

    def time_remaining(self) -> float | None:
        at = self._call.deadline
        return None if at is None else max(0.0, at - self._call.network.loop.time())

    def invocation_metadata(self) -> Any:
        return ()

    def set_trailing_metadata(self, metadata: Any) -> None:
        self.trailing = tuple(metadata)

    def peer(self) -> str:
        return self._call.caller.name


class SimCall:
    """One call: to be awaited, iterated over, or cancelled."""

    def __init__(
        self,
        network: SimNetwork,
        caller: SimProcess,
        address: str,
        method: SimMethod,
        request: Any,
        timeout: float | None,
    ) -> None:
        self.network = network
        self.caller = caller
        self.server: SimServer | None = None
        self.deadline = None if timeout is None else network.loop.time() + timeout
        self._address = address
        self._method = method
        self._answers: deque[tuple[str, Any]] = deque()
        self._arriving = 0.0
        self._waiter: asyncio.Future[None] | None = None
        self._over = False
        self._handlers: list[asyncio.Task[Any]] = []
        self._codec: Any = None
        network.calls[self] = None
        loop = network.loop
        if timeout is not None:
            loop.after(timeout, self._fail, grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded", ())
        data = method.serialize(request)
        if network.lost():
            loop.after(network.leg(), self._fail, grpc.StatusCode.UNAVAILABLE, "connection reset", ())
            return
        loop.after(network.leg(), self._arrive, data)
        if method.repeatable and network.twice():
            loop.after(network.leg() + network.loop.rng.uniform(0, 2.0), self._arrive, data)

    def __await__(self) -> Generator[Any, None, Any]:
        return self._one().__await__()

    def __aiter__(self) -> AsyncIterator[Any]:
        return self._stream()

    def cancel(self) -> bool:
        """Give the call up."""
        if self._over:
            return False
        self._end()
        self._push("error", grpc.StatusCode.CANCELLED, "cancelled", ())
        return True

    def abandon(self) -> None:
        """The caller is no more: whoever serves the call is told."""
        self._end()

    def breaks(self, why: str, after: float) -> None:
        """The connection is gone."""
        self.network.loop.after(after, self._fail, grpc.StatusCode.UNAVAILABLE, why, ())

    def answer(self, message: Any) -> None:
        """Send a message back."""
        self._back("message", self._codec.response_serializer(message))

    async def _one(self) -> Any:
        try:
            kind, value = await self._next()
        except asyncio.CancelledError:
            self.cancel()
            raise
        if kind == "error":
            raise _rpc_error(*value)
        return self._method.deserialize(value)

    async def _stream(self) -> AsyncIterator[Any]:
        while True:
            kind, value = await self._next()
            if kind == "error":
                raise _rpc_error(*value)
            if kind == "end":
                return
            yield self._method.deserialize(value)

    async def _next(self) -> tuple[str, Any]:
        while not self._answers:
            self._waiter = self.network.loop.create_future()
            await self._waiter
        return self._answers.popleft()

    # --- the world's side -----------------------------------------------------------------------

    def _arrive(self, data: bytes) -> None:
        if self._over:
            return
        server = self.network.server_at(self._address)
        if server is None:
            self.breaks("connection refused", self.network.leg())
            return
        if self.network.is_cut(self.caller.name, server.process.name):
            # A deadline or a keepalive finds out, some seconds later.
            self.breaks("no route", self.network.loop.rng.uniform(0.5, 5.0))
            return
        self.server = server
        self.network.arrived(self.caller.name, server.process.name, self._method.path)
        self._handlers.append(server.process.spawn(self._serve(server, data)))

    async def _serve(self, server: SimServer, data: bytes) -> None:
        context = _Context(self)
        try:
            handler = self._codec = await server.handler(self._method.path)
            if handler is None:
                self._back("error", (grpc.StatusCode.UNIMPLEMENTED, "unknown method", ()))
                return
            request = handler.request_deserializer(data)
            if handler.response_streaming:
                answers = handler.unary_stream(request, context)
                if hasattr(answers, "__aiter__"):
                    async for message in answers:
                        self.answer(message)
                else:
                    await answers
                self._back("end", None)
            else:
                self.answer(await handler.unary_unary(request, context))
        except grpc.aio.AbortError:
            self._back("error", (context.code, context.details, context.trailing))

    def _back(self, kind: str, value: Any) -> None:
        network, server = self.network, self.server
        if server is None or network.is_cut(self.caller.name, server.process.name) or network.lost():
            self.breaks("connection reset", network.loop.rng.uniform(0.01, 2.0))
            return
        # In order, whatever each message's own way takes.
        self._arriving = max(self._arriving + 1e-5, network.loop.time() + network.leg())
        network.loop.call_at(self._arriving, self._take, kind, value, context=network.loop.world)

    def _take(self, kind: str, value: Any) -> None:
        if self._over:
            return
        if kind == "error":
            self._fail(*value)
            return
        self._answers.append((kind, value))
        if kind == "end" or not self._method.streams:
            self._end()
        self._wake()

    def _fail(self, code: grpc.StatusCode, details: str, trailing: Any) -> None:
        if not self._over:
            self._end()
            self._push("error", code, details, trailing)

    def _push(self, kind: str, *value: Any) -> None:
        self._answers.append((kind, value))
        self._wake()

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def _end(self) -> None:
        if not self._over:
            self._over = True
            self.network.calls.pop(self, None)
            for handler in self._handlers:
                if not handler.done():
                    self.network.loop.after(self.network.leg(), handler.cancel)


@dataclass(frozen=True, slots=True)
class SimMethod:
    """A method as the stub named it."""

    channel: SimChannel
    path: str
    serialize: Callable[[Any], bytes]
    deserialize: Callable[[bytes], Any]
    streams: bool

    @property
    def repeatable(self) -> bool:
        """Whether a request may arrive twice."""
        return not self.streams

    def __call__(self, request: Any, *, timeout: float | None = None, **_: Any) -> SimCall:
        """Begin a call."""
        return SimCall(self.channel.network, self.channel.process, self.channel.address, self, request, timeout)


class SimChannel:
    """What a generated stub is built on."""

    def __init__(self, network: SimNetwork, process: SimProcess, address: str) -> None:
        self.network = network
        self.process = process
        self.address = address

    def unary_unary(self, path: str, request_serializer: Any, response_deserializer: Any, **_: Any) -> SimMethod:
        """One message each way."""
        return SimMethod(self, path, request_serializer, response_deserializer, False)

    def unary_stream(self, path: str, request_serializer: Any, response_deserializer: Any, **_: Any) -> SimMethod:
        """One message, answered by many."""
        return SimMethod(self, path, request_serializer, response_deserializer, True)

    def stream_unary(self, path: str, *_: Any, **__: Any) -> Any:
        """Not simulated."""
        return _unsimulated(path)

    def stream_stream(self, path: str, *_: Any, **__: Any) -> Any:
        """Not simulated."""
        return _unsimulated(path)

    async def close(self) -> None:
        """Cancel what is under way."""
        for call in list(self.network.calls):
            if call.caller is self.process:
                call.cancel()


class SimChannelPool(ChannelPool):
    """``ChannelPool`` over the simulated network."""

    def __init__(self, network: SimNetwork, process: SimProcess) -> None:
        super().__init__()
        self._network = network
        self._process = process

    def get(self, address: str) -> Any:
        """Return the channel to an address, the same one each time."""
        channel = self._channels.get(address)
        if channel is None:
            made: Any = SimChannel(self._network, self._process, address)
            channel = self._channels[address] = made
        return channel


def _unsimulated(path: str) -> Callable[..., Any]:
    def refuse(*_: Any, **__: Any) -> Any:
        raise NotImplementedError(f"{path}: requests of many messages are not simulated")

    return refuse


def _rpc_error(code: grpc.StatusCode, details: str, trailing: Any) -> grpc.aio.AioRpcError:
    return grpc.aio.AioRpcError(code, Metadata(), Metadata(*trailing), details=details)
