"""Embedders of every kind: what they send, and what their answers are held to."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import numpy as np
import pytest

from brainy.bucket.embedding import EmbeddingIdentity
from brainy.config.settings import EmbeddingSettings, load_settings
from brainy.embedding.base import as_vectors, is_embedder
from brainy.embedding.function import FunctionEmbedder
from brainy.embedding.openai import OpenAIEmbedder
from brainy.embedding.opening import embedder_for, open_embedder
from brainy.errors import (
    BrainyError,
    EmbeddingError,
    EmbeddingMismatchError,
    InvalidRequestError,
    PermissionDeniedError,
    UnavailableError,
)

KEY = "sk-very-secret"
QUICK = EmbeddingSettings(api_key=KEY, max_attempts=3, batch_texts=2)


def vector(text: str) -> list[float]:
    return [float(len(text)), 1.0, 2.0]


def answer(request: httpx.Request) -> httpx.Response:
    """Embed as a server does, in an order of its own."""
    body = json.loads(request.content)
    rows = [{"index": i, "embedding": vector(text)} for i, text in enumerate(body["input"])]
    return httpx.Response(200, json={"data": rows[::-1], "model": body["model"]})


def endpoint(handler: Callable[[httpx.Request], httpx.Response], **options: object) -> OpenAIEmbedder:
    return OpenAIEmbedder(
        "http://host:1/v1",
        model="m",
        settings=QUICK,
        transport=httpx.MockTransport(handler),
        **options,  # type: ignore[arg-type]
    )


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Pauses between attempts take no time; returns how long they would have taken."""
    pauses: list[float] = []
    monkeypatch.setattr("tenacity.nap.time.sleep", pauses.append)
    return pauses


def test_endpoint_answers_in_the_order_of_the_texts() -> None:
    sent: list[httpx.Request] = []

    def handle(request: httpx.Request) -> httpx.Response:
        sent.append(request)
        return answer(request)

    embedder = endpoint(handle)
    assert is_embedder(embedder)
    vectors = embedder.embed(["a", "bb", "ccc", "dddd", "eeeee"])
    assert vectors.dtype == np.float32
    assert vectors[:, 0].tolist() == [1, 2, 3, 4, 5]
    assert sorted(len(json.loads(request.content)["input"]) for request in sent) == [1, 2, 2]
    assert {str(request.url) for request in sent} == {"http://host:1/v1/embeddings"}
    assert {request.headers["authorization"] for request in sent} == {f"Bearer {KEY}"}
    assert embedder.identity == EmbeddingIdentity(model="m", dimensions=3)
    assert embedder.embed([]).shape == (0, 3)


@pytest.mark.parametrize(
    ("url", "full"),
    [
        ("http://h:8080", "http://h:8080/v1/embeddings"),
        ("http://h:8080/", "http://h:8080/v1/embeddings"),
        ("https://h/base/v1/", "https://h/base/v1/embeddings"),
        ("https://h/openai/embeddings", "https://h/openai/embeddings"),
    ],
)
def test_endpoint_urls(url: str, full: str) -> None:
    assert str(OpenAIEmbedder(url, model="m")._url) == full


def test_a_password_in_the_url_is_refused_and_not_repeated() -> None:
    with pytest.raises(InvalidRequestError) as caught:
        OpenAIEmbedder("http://user:hunter2@host", model="m")
    assert "hunter2" not in str(caught.value)


def test_the_key_for_openai_goes_to_openai_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    bare = EmbeddingSettings()
    assert "authorization" not in OpenAIEmbedder("http://other", model="m", settings=bare)._client.headers
    ours = OpenAIEmbedder("https://api.openai.com/v1", model="m", settings=bare)
    assert ours._client.headers["authorization"] == f"Bearer {KEY}"


def test_the_key_comes_from_the_settings_and_shows_nowhere() -> None:
    settings = load_settings(environment={"BRAINY_EMBEDDING__API_KEY": KEY})
    assert settings.embedding.api_key.get_secret_value() == KEY
    assert KEY not in repr(settings)
    assert KEY not in settings.model_dump_json()


@pytest.mark.parametrize("status", [429, 500, 503])
def test_load_and_failures_are_repeated(status: int, at_once: list[float]) -> None:
    left = [status, status]

    def handle(request: httpx.Request) -> httpx.Response:
        if left:
            return httpx.Response(left.pop(), headers={"retry-after": "7"})
        return answer(request)

    assert endpoint(handle).embed(["a"]).shape == (1, 3)
    assert at_once == [7, 7]


@pytest.mark.parametrize("status", [429, 503])
def test_load_that_lasts_is_unavailable(status: int) -> None:
    asked = []

    def handle(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return httpx.Response(status, text=f"not now, {KEY}")

    with pytest.raises(UnavailableError) as caught:
        endpoint(handle).embed(["a"])
    assert len(asked) == QUICK.max_attempts
    assert caught.value.fields["status"] == str(status)
    assert KEY not in str(caught.value)


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_key_is_asked_with_once(status: int) -> None:
    asked = []

    def handle(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return httpx.Response(status, json={"error": {"message": f"Incorrect API key provided: {KEY}"}})

    with pytest.raises(PermissionDeniedError) as caught:
        endpoint(handle).embed(["a"])
    assert len(asked) == 1
    assert KEY not in str(caught.value)
    assert "BRAINY_EMBEDDING__API_KEY" in caught.value.remedy


def test_a_batch_that_is_too_large_is_cut_in_half() -> None:
    def handle(request: httpx.Request) -> httpx.Response:
        return answer(request) if len(json.loads(request.content)["input"]) == 1 else httpx.Response(413)

    assert endpoint(handle).embed(["a", "bb", "ccc"])[:, 0].tolist() == [1, 2, 3]


ROW = {"index": 0, "embedding": [1.0, 2.0, 3.0]}
WRONG_ANSWERS = {
    "no JSON": b"<html>",
    "NaN": b'{"data": [{"index": 0, "embedding": [NaN, 1, 2]}, {"index": 1, "embedding": [1, 1, 2]}]}',
    "no data": b'{"object": "list"}',
    "a list": b"[1, 2]",
    "fewer vectors than texts": json.dumps({"data": [ROW]}).encode(),
    "more vectors than texts": json.dumps({"data": [{**ROW, "index": i} for i in range(3)]}).encode(),
    "the same index twice": json.dumps({"data": [ROW, ROW]}).encode(),
    "an index beyond": json.dumps({"data": [ROW, {**ROW, "index": 2}]}).encode(),
    "null components": json.dumps({"data": [ROW, {"index": 1, "embedding": [1, None, 3]}]}).encode(),
    "strings": json.dumps({"data": [ROW, {"index": 1, "embedding": ["1", "2", "3"]}]}).encode(),
    "base64": json.dumps({"data": [ROW, {"index": 1, "embedding": "AACAPw=="}]}).encode(),
    "empty vectors": json.dumps({"data": [{"index": i, "embedding": []} for i in range(2)]}).encode(),
    "beyond float32": json.dumps({"data": [ROW, {"index": 1, "embedding": [1e300, 0, 0]}]}).encode(),
    "different lengths": json.dumps({"data": [ROW, {"index": 1, "embedding": [1.0, 2.0]}]}).encode(),
}


@pytest.mark.parametrize("body", WRONG_ANSWERS.values(), ids=WRONG_ANSWERS)
def test_a_wrong_answer_is_a_typed_error(body: bytes) -> None:
    with pytest.raises(EmbeddingError) as caught:
        endpoint(lambda request: httpx.Response(200, content=body)).embed(["a", "b"])
    assert caught.value.reason == "EMBEDDING_FAILED"
    assert caught.value.fields["model"] == "m"
    assert caught.value.remedy


def test_a_wrong_dimension_is_a_typed_error() -> None:
    with pytest.raises(EmbeddingError) as caught:
        endpoint(answer, dimensions=4).embed(["a"])
    assert (caught.value.fields["dimensions"], caught.value.fields["expected"]) == ("3", "4")


def test_a_refused_request_is_not_repeated() -> None:
    asked = []

    def handle(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return httpx.Response(404, text="no such model")

    with pytest.raises(EmbeddingError, match="refuses the request"):
        endpoint(handle).embed(["a"])
    assert len(asked) == 1


@pytest.fixture
def hanging_server() -> Iterator[tuple[str, list[str]]]:
    """A server that takes requests and never answers; yields its URL and the requests it got."""
    gone, got = threading.Event(), list[str]()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.append(self.path)
            gone.wait(30)

        def log_message(self, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", got
    gone.set()
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_hanging_endpoint_is_unavailable(hanging_server: tuple[str, list[str]]) -> None:
    url, got = hanging_server
    settings = EmbeddingSettings(timeout_seconds=0.3, max_attempts=2)
    embedder = OpenAIEmbedder(url, model="m", settings=settings)
    with pytest.raises(UnavailableError) as caught:
        embedder.embed(["a"])
    embedder.close()
    assert got == ["/v1/embeddings"] * 2
    assert "Timeout" in caught.value.fields["cause"]


def test_an_absent_endpoint_is_unavailable() -> None:
    settings = EmbeddingSettings(timeout_seconds=1.0, max_attempts=2)
    embedder = OpenAIEmbedder("http://127.0.0.1:9", model="m", settings=settings)
    with pytest.raises(UnavailableError):
        _ = embedder.identity
    embedder.close()


def double(texts: list[str]) -> list[list[float]]:
    return [vector(text) for text in texts]


def test_a_function_is_an_embedder() -> None:
    embedder = open_embedder(double)
    assert embedder.identity.dimensions == 3
    assert embedder.identity.model.endswith(".double")
    assert embedder.embed(["a", "bb"])[:, 0].tolist() == [1, 2]
    assert FunctionEmbedder(double, model="m", revision="2").identity.revision == "2"


def test_two_functions_without_a_name_would_look_alike() -> None:
    with pytest.raises(InvalidRequestError, match="no name of its own"):
        open_embedder(lambda texts: double(texts))


@pytest.mark.parametrize(
    "wrong",
    [
        lambda texts: None,
        lambda texts: [[1.0]],
        lambda texts: [[1.0], [float("nan")]],
        lambda texts: [[1.0], [2.0, 3.0]],
        lambda texts: [1.0, 2.0],
        lambda texts: [["a"], ["b"]],
        lambda texts: 1 / 0,
    ],
)
def test_a_wrong_function_is_a_typed_error(wrong: Callable[[list[str]], object]) -> None:
    with pytest.raises(EmbeddingError) as caught:
        FunctionEmbedder(wrong, model="m").embed(["a", "b"])  # type: ignore[arg-type]
    assert caught.value.fields["model"] == "m"


def test_no_texts_no_vectors() -> None:
    assert as_vectors([], 0, dimensions=3, model="m").shape == (0, 3)


@pytest.mark.parametrize("wanted", ["", "bert", "http://host", "ftp://host#m", "://#m", 7, None])
def test_what_is_no_embedder_is_refused(wanted: object) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        open_embedder(wanted)  # type: ignore[arg-type]
    assert caught.value.remedy


def test_a_recorded_model_that_is_not_at_hand_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    recorded = EmbeddingIdentity(model="theirs", dimensions=3)
    monkeypatch.delenv("BRAINY_EMBEDDING__URL", raising=False)
    with pytest.raises(EmbeddingMismatchError) as caught:
        embedder_for(recorded, 3)
    assert "theirs" in caught.value.fields["recorded"]
    assert "BRAINY_EMBEDDING__URL" in caught.value.remedy
    monkeypatch.setenv("BRAINY_EMBEDDING__URL", "http://host")
    assert embedder_for(recorded, 3).identity == recorded
    # Vectors of 512 dimensions were made by nobody we know.
    with pytest.raises(BrainyError, match="nobody recorded"):
        embedder_for(None, 512)
