"""A store without conditional writes: a proxy that takes the If-* headers out of every request."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from urllib.parse import urlsplit


@asynccontextmanager
async def unconditional(endpoint: str) -> AsyncIterator[str]:
    """Yield the address of a proxy before an S3 server that does not check signatures."""
    place = urlsplit(endpoint)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answers, requests = await asyncio.open_connection(place.hostname, place.port)
        back = asyncio.create_task(_copy(answers, writer))
        try:
            with suppress(asyncio.IncompleteReadError, ConnectionError):
                while True:
                    await _request(reader, requests)
        finally:
            back.cancel()
            requests.close()
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.close()


async def _request(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    head = await reader.readuntil(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    length = 0
    for line in lines:
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            length = int(value)
    kept = [line for line in lines if not line.lower().startswith((b"if-match:", b"if-none-match:"))]
    writer.write(b"\r\n".join(kept))
    writer.write(await reader.readexactly(length))
    await writer.drain()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while chunk := await reader.read(1 << 16):
            writer.write(chunk)
            await writer.drain()
        writer.close()
