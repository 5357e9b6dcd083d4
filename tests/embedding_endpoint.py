"""An OpenAI-style endpoint in this process: models of our own that add up a direction for each word."""

from __future__ import annotations

import threading
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import orjson

from brainy.bucket.embedding import EmbeddingIdentity


def words(text: str, dimensions: int, model: str = "") -> np.ndarray:
    """The sum of a direction for each word; another model has others."""
    directions = [
        np.random.default_rng(zlib.crc32(f"{model}/{word}".encode())).normal(size=dimensions)
        for word in text.lower().split()
    ]
    return np.sum(directions, axis=0).astype(np.float32)


class Endpoint:
    """Models named ``words-<dimensions>``."""

    def __init__(self, url: str) -> None:
        self.url = url
        #: Every text it was given, by model.
        self.texts: dict[str, list[str]] = {}
        #: Set to refuse everything with this status.
        self.status = 200
        #: Models that are away for all but what nodes try them with.
        self.refused: set[str] = set()
        self._asked: dict[str, threading.Event] = {}
        #: Keys it was shown.
        self.keys: set[str] = set()

    def identity(self, model: str) -> EmbeddingIdentity:
        return EmbeddingIdentity(model=model, dimensions=int(model.rpartition("-")[2]))

    def asked(self, model: str) -> threading.Event:
        """Set once a model that is away was asked for."""
        return self._asked.setdefault(model, threading.Event())

    def embed(self, model: str, texts: Sequence[str]) -> np.ndarray:
        return np.stack([words(text, self.identity(model).dimensions, model) for text in texts])


@contextmanager
def embedding_endpoint() -> Iterator[Endpoint]:
    """Serve until the block ends."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            asked = orjson.loads(self.rfile.read(int(self.headers["content-length"])))
            endpoint.keys.add(self.headers.get("authorization", ""))
            body, status = b"{}", endpoint.status
            tried = all("does this model take" in text for text in asked["input"])
            if asked["model"] in endpoint.refused and not tried:
                status = 503
                endpoint.asked(asked["model"]).set()
            if status == 200:
                texts = asked["input"]
                endpoint.texts.setdefault(asked["model"], []).extend(texts)
                vectors = endpoint.embed(asked["model"], texts)
                body = orjson.dumps(
                    {"data": [{"index": n, "embedding": vector.tolist()} for n, vector in enumerate(vectors)]}
                )
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as it is called there
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

    server = Server(("127.0.0.1", 0), Handler)
    endpoint = Endpoint(f"http://127.0.0.1:{server.server_address[1]}")
    thread = threading.Thread(target=server.serve_forever, name="embedding-endpoint", daemon=True)
    thread.start()
    try:
        yield endpoint
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
