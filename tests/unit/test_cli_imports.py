"""``brainy import`` and ``brainy search --text`` against a fake cluster and a real endpoint for texts."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from sdk_cluster_fake import FakeCluster
from typer.testing import CliRunner

from brainy.cli.exits import Exit
from brainy.cli.main import app
from brainy.sdk.loop_thread import LOOP


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeCluster]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "200")
    fake = FakeCluster()
    _, fake.address = LOOP.run(fake.serve())
    yield fake
    LOOP.run(fake.close())


@pytest.fixture
def endpoint() -> Iterator[str]:
    """An OpenAI-style server whose model counts letters; yields what names it and its model."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            rows = [
                {"index": n, "embedding": [1.0, text.count("a"), text.count("b")]}
                for n, text in enumerate(body["input"])
            ]
            answer = json.dumps({"data": rows}).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}#letters"
    server.shutdown()
    server.server_close()
    thread.join()


def brainy(*arguments: str) -> Any:
    return CliRunner().invoke(app, arguments)


def rows(path: Path, *values: object) -> str:
    path.write_text("\n".join(map(json.dumps, values)))
    return str(path)


def test_import_and_search_by_text(cluster: FakeCluster, endpoint: str, tmp_path: Path) -> None:
    texts = {"a": "aaaa", "b": "bbbb", "c": "cccc"}
    file = rows(tmp_path / "r.jsonl", *({"id": n, "metadata": {"text": text}} for n, text in texts.items()))
    told = brainy("import", file, "file:///x", "--embed", endpoint, "-e", cluster.address, "--json")
    assert told.exit_code == 0, told.stderr
    result = json.loads(told.stdout)
    assert {
        name: result[name] for name in ("nouns_imported", "verbs_imported", "embedded", "unchanged", "skipped")
    } == {
        "nouns_imported": 3,
        "verbs_imported": 0,
        "embedded": 3,
        "unchanged": 0,
        "skipped": [],
    }
    (request,) = cluster.calls("UpsertNouns")
    assert (request.embedding.model, request.embedding.dimensions) == ("letters", 3)
    told = brainy("search", "--text", "bab bb", "-k", "1", "--embed", endpoint, "-e", cluster.address, "--json")
    assert [hit["id"] for hit in json.loads(told.stdout)] == ["b"]
    assert cluster.calls("Search")[0].embedding.model == "letters"


def test_skipped_rows_are_shown_and_end_with_status_1(cluster: FakeCluster, tmp_path: Path) -> None:
    file = rows(tmp_path / "r.jsonl", {"id": "a", "vector": [1, 2, 3]}, {"id": "b", "metadata": {"text": " "}}, 5)
    told = brainy("import", file, "file:///x", "-e", cluster.address)
    assert told.exit_code == Exit.FAILED_RESULT
    assert "skipped for" in told.stdout
    assert "NO_TEXT 1" in told.stdout
    assert "there is no text to embed" in told.stdout
    assert list(cluster.nouns) == ["a"]


def test_errors_have_their_status(cluster: FakeCluster, tmp_path: Path) -> None:
    file = rows(tmp_path / "r.jsonl", {"id": "a", "metadata": {"text": "x"}})
    address = ("-e", cluster.address)
    assert brainy("import", str(tmp_path / "none.json"), "file:///x", *address).exit_code == Exit.NOT_FOUND
    assert brainy("import", rows(tmp_path / "r.json", 5), "file:///x", *address).exit_code == Exit.USAGE
    assert brainy("import", file, "file:///x", "--embed", "bert", *address).exit_code == Exit.USAGE
    assert brainy("search", "--text", "x", "--vector", "1,2", *address).exit_code == Exit.USAGE
    assert brainy("search", "--text", " ", "--embed", "http://127.0.0.1:9#m", *address).exit_code == Exit.USAGE
    # The fake's vectors have three components, and nobody recorded what made them.
    told = brainy("import", file, "file:///x", *address)
    assert told.exit_code == Exit.PRECONDITION
    assert "--embed" in told.stderr
