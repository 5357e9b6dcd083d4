"""What happens around every RPC on a server: errors, logs, figures, deadlines, the end of endless streams."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager
from typing import Any, Final, TypeAlias

import grpc
import structlog

from brainy.clock import Clock
from brainy.errors import BrainyError, InvalidRequestError, NotFoundError, UnavailableError
from brainy.ids import Ids
from brainy.rpc.errors import DETAILS_KEY, to_status
from brainy.rpc.metrics import MethodStats, RpcMetrics
from brainy.rpc.options import MAX_DEADLINE_SECONDS
from brainy.telemetry.logs import get_logger

#: Metadata key by which a caller names its request for the logs of both sides.
REQUEST_ID_KEY: Final = "x-request-id"

#: Streams of the stock services that end only when their caller goes away.
STOCK_ENDLESS: Final = frozenset(
    {
        "/grpc.health.v1.Health/Watch",
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
    }
)

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"  # generic in its stubs only
Context = grpc.aio.ServicerContext[Any, Any]

_log = get_logger(__name__)


class RpcInterceptor(grpc.aio.ServerInterceptor):
    """The one interceptor of every server.

    * A ``BrainyError`` becomes a rich status; any other exception INTERNAL with an ``error_id`` that is also in
      the log, beside the traceback.
    * ``method`` and ``request_id`` are bound into the log context of the call.
    * Calls are counted and timed in ``metrics``.
    * A call of one message each way ends after ``max_deadline_seconds`` at the latest; streams have no limit.
    * Cancellation by the caller reaches the handler as ``asyncio.CancelledError`` and is never swallowed.
    * ``end_streams()`` ends the calls named in ``endless`` with UNAVAILABLE (DRAINING): a drain would wait for
      them in vain.
    """

    def __init__(
        self,
        *,
        clock: Clock,
        ids: Ids,
        metrics: RpcMetrics,
        max_deadline_seconds: float = MAX_DEADLINE_SECONDS,
        endless: Collection[str] = (),
    ) -> None:
        self._clock = clock
        self._ids = ids
        self._metrics = metrics
        self._max_deadline = max_deadline_seconds
        self._endless = frozenset(endless) | STOCK_ENDLESS
        self._streams: set[asyncio.Task[Any]] = set()
        self._draining = False
        self._wrapped: dict[str, Handler] = {}

    def end_streams(self) -> None:
        """End the endless streams, now and as they are opened."""
        self._draining = True
        for task in list(self._streams):
            task.cancel()

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """Wrap a method's handler; done once per method."""
        method = handler_call_details.method
        wrapped = self._wrapped.get(method)
        if wrapped is None:
            handler = await continuation(handler_call_details)
            if handler is None:
                return None  # unknown method: gRPC answers UNIMPLEMENTED, and nothing is remembered
            wrapped = self._wrapped[method] = self._wrap(handler, method)
        return wrapped

    def _wrap(self, handler: Handler, method: str) -> Handler:
        codecs: dict[str, Any] = {
            "request_deserializer": handler.request_deserializer,
            "response_serializer": handler.response_serializer,
        }
        if handler.response_streaming:
            inner: Any = handler.stream_stream if handler.request_streaming else handler.unary_stream
            stream = self._streaming(inner, method)
            if handler.request_streaming:
                return grpc.stream_stream_rpc_method_handler(stream, **codecs)
            return grpc.unary_stream_rpc_method_handler(stream, **codecs)
        inner = handler.stream_unary if handler.request_streaming else handler.unary_unary
        answer = self._answering(inner, method, limited=not handler.request_streaming)
        if handler.request_streaming:
            return grpc.stream_unary_rpc_method_handler(answer, **codecs)
        return grpc.unary_unary_rpc_method_handler(answer, **codecs)

    def _answering(self, inner: Any, method: str, *, limited: bool) -> Any:
        stats = self._metrics.of(method)

        async def answer(request: Any, context: Context) -> Any:
            async with self._around(method, stats, request, context):
                if not limited:
                    return await inner(request, context)
                try:
                    async with asyncio.timeout(self._max_deadline) as scope:
                        return await inner(request, context)
                except TimeoutError:
                    if not scope.expired():
                        raise
                    raise _TooLongError(self._max_deadline) from None

        return answer

    def _streaming(self, inner: Any, method: str) -> Any:
        stats = self._metrics.of(method)
        if inspect.isasyncgenfunction(inner):

            async def generate(request: Any, context: Context) -> AsyncIterator[Any]:
                async with self._around(method, stats, request, context):
                    async for message in inner(request, context):
                        yield message

            return generate

        async def write(request: Any, context: Context) -> None:
            async with self._around(method, stats, request, context):
                await inner(request, context)

        return write

    @asynccontextmanager
    async def _around(self, method: str, stats: MethodStats, request: Any, context: Context) -> AsyncIterator[None]:
        # Each RPC runs in a task of its own, so what is bound here ends with it.
        structlog.contextvars.bind_contextvars(method=method, request_id=self._request_id(request, context))
        task = asyncio.current_task() if method in self._endless else None
        started = self._clock.monotonic()
        stats.in_flight += 1
        failure: BrainyError | None = None
        try:
            if task is not None:
                self._streams.add(task)
                if self._draining:
                    raise _draining()
            yield
        except asyncio.CancelledError:
            if task is None or not self._draining:
                stats.cancelled += 1
                raise
            task.uncancel()
            failure = _draining()
        except grpc.aio.AbortError:
            stats.errors += 1
            raise
        except BrainyError as error:
            failure = error
        except Exception:
            error_id = self._ids.short()
            _log.exception("rpc_crashed", error_id=error_id)
            failure = BrainyError(
                "internal error",
                remedy="report it with the error_id; the server's log has the details",
                data_safe=False,
                error_id=error_id,
            )
        finally:
            stats.in_flight -= 1
            stats.observe(self._clock.monotonic() - started)
            if task is not None:
                self._streams.discard(task)
        if failure is not None:
            stats.errors += 1
            await _abort(context, failure)

    def _request_id(self, request: Any, context: Context) -> str:
        named: object = getattr(request, "request_id", "")
        if isinstance(named, str) and named:
            return named[:64]
        for key, value in context.invocation_metadata() or ():
            if key == REQUEST_ID_KEY:
                return str(value)[:64]
        return self._ids.nonce().hex()[:12]


class _TooLongError(UnavailableError):
    """The server's own limit was reached; on the wire DEADLINE_EXCEEDED."""

    def __init__(self, seconds: float) -> None:
        super().__init__(
            "the call took longer than the server allows",
            reason="OUTCOME_UNKNOWN",
            remedy="ask for less at once; repeat a write with the same request_id",
            data_safe=False,
            limit_seconds=seconds,
        )


def _draining() -> UnavailableError:
    return UnavailableError(
        "the server is shutting down", reason="DRAINING", remedy="connect to another one and ask again"
    )


async def _abort(context: Context, error: BrainyError) -> None:
    # The caller's own mistakes are its business; the rest is ours to know.
    expected = isinstance(error, InvalidRequestError | NotFoundError)
    (_log.debug if expected else _log.info)("rpc_failed", reason=error.reason, error=str(error))
    code = grpc.StatusCode.DEADLINE_EXCEEDED if isinstance(error, _TooLongError) else None
    status = to_status(error, code=code)
    await context.abort(
        _CODES[status.code],
        status.message,
        trailing_metadata=((DETAILS_KEY, status.SerializeToString()),),
    )


_CODES: Final = {int(code.value[0]): code for code in grpc.StatusCode}
