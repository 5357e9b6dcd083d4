"""One call to a cluster: choose an endpoint, time it, translate its error, try again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import TypeVar

import grpc

from brainy.clock import Clock, Deadline
from brainy.errors import BrainyError, FencedError, OutcomeUnknownError, UnavailableError
from brainy.ids import Ids
from brainy.rpc.errors import from_rpc_error
from brainy.sdk.endpoint import Endpoint, EndpointPool
from brainy.sdk.retry import Backoff, Limits, RetryBudget, worth_retrying

Request = TypeVar("Request")
Response = TypeVar("Response")

_CONNECT_SECONDS = 2.0


class Caller:
    """Calls any of several equal endpoints.

    Before: the request is complete, and if it changes something it carries a request id.
    Steps: (1) choose an endpoint; (2) open a connection; (3) send with the attempt's time limit;
    (4) on an error worth retrying, wait (back-off with jitter, retry budget) and go to 1 with the *same*
    request on another endpoint, until the deadline.
    After: the answer, or an error. If a call that changes something runs out of time after it may have
    reached a node, that is ``OutcomeUnknownError``; if it certainly reached none, ``UnavailableError``.
    Cancel safety: cancelling cancels the attempt in flight; the outcome of a write is then unknown.
    """

    def __init__(
        self,
        pool: EndpointPool,
        *,
        clock: Clock,
        ids: Ids,
        rediscover: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self._pool = pool
        self._clock = clock
        self._ids = ids
        self._budget = RetryBudget(clock)
        self._rediscover = rediscover

    async def unary(
        self,
        method: Callable[[Endpoint], grpc.aio.UnaryUnaryMultiCallable[Request, Response]],
        request: Request,
        limits: Limits,
    ) -> Response:
        """Make a call with one request and one answer."""
        attempts = _Attempts(self, limits)
        while True:
            endpoint = await attempts.next()
            try:
                answer = await method(endpoint)(request, timeout=attempts.seconds())
            except grpc.aio.AioRpcError as error:
                await attempts.failed(endpoint, error)
                continue
            attempts.succeeded(endpoint)
            return answer

    async def stream(
        self,
        method: Callable[[Endpoint], grpc.aio.UnaryStreamMultiCallable[Request, Response]],
        request: Request,
        limits: Limits,
        *,
        silence_seconds: float | None = None,
    ) -> AsyncGenerator[Response, None]:
        """Yield a call's answers. If the stream breaks it is begun again elsewhere, **from its start**: the
        consumer leaves out what it has had. The deadline counts from the last answer.

        Args:
            method: picks the call.
            request: sent anew at each start.
            limits: of each wait for an answer.
            silence_seconds: how long a healthy stream may stay silent, if longer than an attempt.
        """
        attempts = _Attempts(self, limits)
        while True:
            endpoint = await attempts.next()
            call = method(endpoint)(request)
            try:
                while True:
                    wait = silence_seconds or attempts.seconds()
                    answer = await asyncio.wait_for(call.read(), wait)
                    if answer is grpc.aio.EOF:
                        return
                    attempts.succeeded(endpoint)
                    yield answer  # type: ignore[misc]  # the stubs do not tell EOF from an answer
            except (grpc.aio.AioRpcError, TimeoutError) as error:
                await attempts.failed(endpoint, error)
            finally:
                call.cancel()


class _Attempts:
    """The attempts of one call."""

    def __init__(self, caller: Caller, limits: Limits) -> None:
        self._caller = caller
        self._limits = limits
        self._start()
        self._last: Endpoint | None = None

    def _start(self) -> None:
        self._deadline = Deadline.after(self._caller._clock, self._limits.deadline_seconds)
        self._backoff = Backoff(self._caller._ids)
        self._maybe_sent = False
        #: What a node last said. The last attempt is cut short; its silence tells less.
        self._told: BrainyError | None = None

    def seconds(self) -> float:
        """Time limit of the attempt at hand."""
        return min(self._limits.attempt_seconds, max(self._deadline.remaining(), 0.001))

    async def next(self) -> Endpoint:
        """Return a connected endpoint."""
        caller = self._caller
        while True:
            if not caller._pool.addresses and caller._rediscover:
                await caller._rediscover()
            endpoint = None
            try:
                endpoint = caller._pool.choose(not_this=self._last)
            except UnavailableError as error:
                await self._pause(error)
                continue
            limit = min(self._deadline.at, caller._clock.monotonic() + _CONNECT_SECONDS)
            if await endpoint.connected(Deadline(caller._clock, limit)):
                return endpoint
            caller._pool.failed(endpoint)
            self._last = endpoint
            await self._pause(
                UnavailableError(
                    f"cannot connect to the {caller._pool.kind}",
                    remedy="check that it runs and that the address is right; nothing was sent",
                    address=endpoint.address,
                )
            )

    def succeeded(self, endpoint: Endpoint) -> None:
        """Count an answer; the next wait of a stream has the whole deadline again."""
        self._caller._pool.answered(endpoint)
        self._caller._budget.succeeded()
        self._start()

    async def failed(self, endpoint: Endpoint, error: grpc.aio.AioRpcError | TimeoutError) -> None:
        """Wait for the next attempt, or raise what the caller shall see."""
        self._last = endpoint
        pool = self._caller._pool
        if isinstance(error, TimeoutError) or error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
            # Silent: stopped, partitioned or overloaded. It may still have done what was asked.
            pool.failed(endpoint)
            self._maybe_sent = True
            silent = UnavailableError("no answer in time", remedy="try again", address=endpoint.address)
            await self._pause(self._told or silent)
            return
        cause = from_rpc_error(error)
        if error.code() is grpc.StatusCode.CANCELLED:
            cause = UnavailableError("the connection was closed", remedy="try again", address=endpoint.address)
        if not worth_retrying(cause) or (self._limits.fenced_is_final and isinstance(cause, FencedError)):
            raise cause from error
        if cause.reason == "NOT_LEADER":
            hint = cause.fields.get("address", "")
            # Who led a moment ago may name itself once more while it finds out.
            pool.prefer("" if hint == endpoint.address else hint)
        # Every other reason is a healthy node's word about a shard; without one the transport failed.
        elif cause.reason in ("UNAVAILABLE", "DRAINING"):
            pool.failed(endpoint)
            self._maybe_sent = True
        else:
            self._told = cause
            self._maybe_sent |= not isinstance(cause, UnavailableError)
        await self._pause(cause)

    async def _pause(self, cause: BrainyError) -> None:
        pause = max(self._backoff.pause(), self._caller._budget.take())
        if pause < self._deadline.remaining():
            if self._caller._rediscover:
                await self._caller._rediscover()
            await self._caller._clock.sleep(min(pause, self._deadline.remaining()))
            if not self._deadline.passed:
                return
        if self._limits.changes and self._maybe_sent:
            raise OutcomeUnknownError(
                "the write was not confirmed in time",
                remedy="repeat the call: an upsert or a delete of the same id may be repeated safely",
                data_safe=False,
                seconds=self._limits.deadline_seconds,
                last_error=cause.message,
            ) from cause
        given_up = UnavailableError(cause.message, reason=cause.reason, remedy=cause.remedy)
        given_up.fields.update(cause.fields, tried_for_seconds=str(self._limits.deadline_seconds))
        raise given_up from cause
