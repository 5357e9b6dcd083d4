"""An HTTP proxy in front of a real S3 server that loses answers: the request is carried out, nobody hears of it.

Or that holds them: with ``hold`` a test acts at the very moment at which an object is durable and its writer does not
know it yet.

    async with LossyProxy(server.endpoint) as proxy:
        store = open_store(namespace, StoreSettings(endpoint=proxy.endpoint), ...)
        proxy.lose(lambda method, path: method == "PUT")
        ...
        proxy.heal()

Requests and answers are passed on byte for byte (a signature covers the host that was named), HTTP/1.1 with a
length or in chunks. A lost answer is read whole from the server, and the client's connection is then closed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Self
from urllib.parse import urlsplit

Loses = Callable[[str, str], bool]
#: Awaited with method, path, body and the answer's status: the server has answered, the client has not heard it yet.
Holds = Callable[[str, str, bytes, int], Awaitable[None]]

_HEAD_BYTES = 64 << 10


class LossyProxy:
    """Passes everything on; loses the answers it is told to lose."""

    def __init__(self, upstream: str) -> None:
        """Remember the server's address, ``http://host:port``."""
        parts = urlsplit(upstream)
        self._host, self._port = parts.hostname or "127.0.0.1", parts.port or 80
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self._loses: Loses | None = None
        self._holds: Holds | None = None
        #: Requests carried out whose answers were lost, and those that were answered.
        self.lost = 0
        self.answered = 0
        #: Method and path of every request that was passed on to the server, since it was cleared.
        self.passed: list[tuple[str, str]] = []

    @property
    def endpoint(self) -> str:
        """Address to give to clients."""
        if self._server is None:
            raise RuntimeError("the proxy does not run")
        host, port = self._server.sockets[0].getsockname()[:2]
        return f"http://{host}:{port}"

    def lose(self, which: Loses) -> None:
        """Lose the answers to requests for which ``which(method, path)`` holds."""
        self._loses = which

    def hold(self, until: Holds) -> None:
        """Keep every answer back until ``until(method, path, body, status)`` has returned."""
        self._holds = until

    def heal(self) -> None:
        """Lose and hold nothing more."""
        self._loses = self._holds = None

    async def __aenter__(self) -> Self:
        """Listen on a free port of the loopback interface."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, limit=_HEAD_BYTES)
        return self

    async def __aexit__(self, *exc: object) -> None:
        """Stop, and close every connection."""
        if self._server is not None:
            self._server.close()
        for task in list(self._connections):
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            await self._serve(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # either side went away between two requests, or within one: so does the other
        except asyncio.CancelledError:
            pass  # the proxy stops; nobody awaits this task but ``__aexit__``
        finally:
            self._connections.discard(task)
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        up_reader, up_writer = await asyncio.open_connection(self._host, self._port, limit=_HEAD_BYTES)
        try:
            while True:
                request = await reader.readuntil(b"\r\n\r\n")
                method, path, _ = request.split(b"\r\n", 1)[0].decode("latin-1").split(" ", 2)
                self.passed.append((method, path))
                body = await _body(reader, request)
                up_writer.write(request + body)
                await up_writer.drain()
                answer = await up_reader.readuntil(b"\r\n\r\n")
                while answer.startswith(b"HTTP/1.1 100"):
                    answer = await up_reader.readuntil(b"\r\n\r\n")
                status = int(answer.split(b" ", 2)[1])
                if method != "HEAD" and status not in (204, 304):
                    answer += await _body(up_reader, answer)
                if self._holds is not None:
                    await self._holds(method, path, body, status)
                if self._loses is not None and self._loses(method, path):
                    self.lost += 1
                    return
                self.answered += 1
                writer.write(answer)
                await writer.drain()
        finally:
            up_writer.close()


async def _body(reader: asyncio.StreamReader, head: bytes) -> bytes:
    fields = {
        name.strip().lower(): value.strip()
        for name, _, value in (line.partition(":") for line in head.decode("latin-1").split("\r\n")[1:])
    }
    if "chunked" in fields.get("transfer-encoding", "").lower():
        parts: list[bytes] = []
        while True:
            line = await reader.readuntil(b"\r\n")
            size = int(line.split(b";")[0], 16)
            parts += [line, await reader.readexactly(size + 2)]
            if size == 0:
                return b"".join(parts)
    return await reader.readexactly(int(fields.get("content-length", "0")))
