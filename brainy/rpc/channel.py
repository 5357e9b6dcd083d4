"""Client side: one channel per address, and calls that raise ``BrainyError``."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection
from typing import TypeVar

import grpc

from brainy.clock import Deadline
from brainy.rpc.errors import from_rpc_error
from brainy.rpc.options import MAX_MESSAGE_BYTES, channel_arguments

Request = TypeVar("Request")
Response = TypeVar("Response")
Stub = TypeVar("Stub")


class ChannelPool:
    """Addresses (``host:port``) to channels. Connecting is lazy; closing is for all together."""

    def __init__(self, *, max_message_bytes: int = MAX_MESSAGE_BYTES) -> None:
        self._arguments = channel_arguments(max_message_bytes=max_message_bytes)
        self._channels: dict[str, grpc.aio.Channel] = {}
        self._stubs: dict[tuple[str, object], object] = {}

    def get(self, address: str) -> grpc.aio.Channel:
        """Return the channel to an address, the same one each time."""
        channel = self._channels.get(address)
        if channel is None:
            channel = self._channels[address] = grpc.aio.insecure_channel(address, options=self._arguments)
        return channel

    def stub(self, address: str, kind: Callable[[grpc.aio.Channel], Stub]) -> Stub:
        """Return ``kind(channel)``, built once per address: building one costs more than a call."""
        found = self._stubs.get((address, kind))
        if found is None:
            found = self._stubs[address, kind] = kind(self.get(address))
        return found  # type: ignore[return-value]  # the key's second part is its type

    async def retain(self, addresses: Collection[str]) -> None:
        """Close the channels to every other address."""
        gone = [address for address in self._channels if address not in addresses]
        await self._close(gone)

    async def close(self) -> None:
        """Close all channels; calls in flight are cancelled."""
        await self._close(list(self._channels))

    async def _close(self, addresses: Collection[str]) -> None:
        channels = [self._channels.pop(address) for address in addresses]
        for key in [key for key in self._stubs if key[0] in addresses]:
            del self._stubs[key]
        await asyncio.gather(*(channel.close() for channel in channels))


async def call(
    method: grpc.aio.UnaryUnaryMultiCallable[Request, Response],
    request: Request,
    *,
    deadline: Deadline | None = None,
    write: bool = False,
) -> Response:
    """Make a unary call.

    Cancel safety: cancelling cancels the call; the server may have acted already.

    Raises:
        BrainyError: what the server raised, or what became of the connection (``from_rpc_error``).
    """
    try:
        return await method(request, timeout=None if deadline is None else deadline.remaining())
    except grpc.RpcError as error:
        raise from_rpc_error(error, write=write) from error


async def stream(
    method: grpc.aio.UnaryStreamMultiCallable[Request, Response],
    request: Request,
    *,
    deadline: Deadline | None = None,
) -> AsyncIterator[Response]:
    """Make a call that answers with a stream; closing the iterator cancels the call.

    Raises:
        BrainyError: as ``call``.
    """
    answers = method(request, timeout=None if deadline is None else deadline.remaining())
    try:
        async for message in answers:
            yield message
    except grpc.RpcError as error:
        raise from_rpc_error(error) from error
    finally:
        answers.cancel()
