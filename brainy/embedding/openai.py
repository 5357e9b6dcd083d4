"""Any endpoint that speaks OpenAI's ``/v1/embeddings``: OpenAI itself, TEI, vLLM, Triton and others."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import numpy as np
import numpy.typing as npt
import orjson
from tenacity import RetryCallState, Retrying, retry_if_exception, stop_after_attempt, wait_random_exponential

from brainy.bucket.embedding import EmbeddingIdentity
from brainy.config.environment import openai_api_key
from brainy.config.settings import EmbeddingSettings
from brainy.embedding.base import as_vectors
from brainy.errors import BrainyError, EmbeddingError, InvalidRequestError, PermissionDeniedError, UnavailableError
from brainy.telemetry.logs import get_logger

_log = get_logger(__name__)

_BACKOFF_SECONDS = 0.5
_LONGEST_BACKOFF_SECONDS = 20.0
_QUOTED_CHARACTERS = 200
_TOO_LARGE = (httpx.codes.REQUEST_ENTITY_TOO_LARGE,)


class OpenAIEmbedder:
    """Posts texts to an endpoint, a few requests at a time.

    A request that is refused for load (429), fails (5xx), does not connect or is not answered in time is repeated
    with exponential back-off, or after the time the endpoint asks for; the answer's order is that of its ``index``
    fields. A batch that is too large (413) is cut in half.
    """

    def __init__(
        self,
        url: str,
        *,
        model: str,
        dimensions: int | None = None,
        revision: str = "",
        settings: EmbeddingSettings | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        """Describe an endpoint; nothing is sent yet.

        Args:
            url: of the server, of its ``/v1``, or of the endpoint itself.
            model: what the endpoint calls the model.
            dimensions: length of its vectors; one text is embedded to find out if it is left out.
            revision: which edition of the model, where its name does not say.
            settings: key, times and sizes.
            transport: how to send, for tests.

        Raises:
            InvalidRequestError: not an http(s) URL, or one that carries a password.
        """
        self._url = _endpoint(url)
        self._model = model
        self._dimensions = dimensions
        self._revision = revision
        self._settings = settings or EmbeddingSettings()
        key = self._settings.api_key.get_secret_value()
        if not key and self._url.host == "api.openai.com":
            key = openai_api_key()
        self._key = key
        self._client = httpx.Client(
            timeout=self._settings.timeout_seconds,
            headers={"authorization": f"Bearer {key}"} if key else {},
            transport=transport,
        )

    @property
    def identity(self) -> EmbeddingIdentity:
        """Which model it is."""
        if self._dimensions is None:
            self._dimensions = int(self.embed(["dimensions"]).shape[1])
        return EmbeddingIdentity(model=self._model, dimensions=self._dimensions, revision=self._revision)

    def embed(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Ask the endpoint.

        Raises:
            EmbeddingError: it refuses the request for good, or its answer is no embedding of the texts.
            PermissionDeniedError: it refuses the key.
            UnavailableError: it did not answer, however often it was asked.
        """
        size = self._settings.batch_texts
        batches = [list(texts[start : start + size]) for start in range(0, len(texts), size)]
        if len(batches) <= 1:
            parts = [self._embed(batch) for batch in batches]
        else:
            with ThreadPoolExecutor(min(self._settings.concurrency, len(batches))) as pool:
                parts = list(pool.map(self._embed, batches))
        if len({part.shape[1] for part in parts}) > 1:
            raise self._refuse("the endpoint answered vectors of different lengths")
        return np.concatenate(parts) if parts else np.empty((0, self._dimensions or 0), dtype=np.float32)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _embed(self, batch: list[str]) -> npt.NDArray[np.float32]:
        response = self._post(batch)
        if response.status_code in _TOO_LARGE and len(batch) > 1:
            half = len(batch) // 2
            return np.concatenate([self._embed(batch[:half]), self._embed(batch[half:])])
        if response.status_code != httpx.codes.OK:
            raise self._judge(response)
        return as_vectors(self._vectors_in(response), len(batch), dimensions=self._dimensions, model=self._model)

    def _post(self, batch: list[str]) -> httpx.Response:
        def send() -> httpx.Response:
            try:
                response = self._client.post(
                    self._url,
                    content=orjson.dumps({"model": self._model, "input": batch}),
                    headers={"content-type": "application/json"},
                )
            except httpx.HTTPError as error:
                raise UnavailableError(
                    "the embedding endpoint does not answer",
                    remedy="check that it runs and that the address is right",
                    url=self._url,
                    cause=f"{type(error).__name__}: {error}"[:_QUOTED_CHARACTERS],
                ) from error
            if response.status_code == httpx.codes.TOO_MANY_REQUESTS or response.is_server_error:
                raise self._judge(response)
            return response

        retrying = Retrying(
            retry=retry_if_exception(lambda error: isinstance(error, UnavailableError)),
            stop=stop_after_attempt(self._settings.max_attempts),
            wait=_wait,
            before_sleep=self._say,
            reraise=True,
        )
        return retrying(send)

    def _vectors_in(self, response: httpx.Response) -> list[Any]:
        try:
            rows = orjson.loads(response.content)["data"]
            vectors: list[Any] = [None] * len(rows)
            for place, row in enumerate(rows):
                index = row.get("index", place)
                if not isinstance(index, int) or not 0 <= index < len(rows) or vectors[index] is not None:
                    raise ValueError("indexes that are no permutation")
                vectors[index] = row["embedding"]
                if not isinstance(vectors[index], list):
                    raise ValueError("an embedding that is no list of numbers")
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            refused = self._refuse("the embedding endpoint answered something else than embeddings")
            refused.fields.update(
                cause=f"{type(error).__name__}: {error}"[:_QUOTED_CHARACTERS], answer=self._quote(response)
            )
            raise refused from error
        return vectors

    def _judge(self, response: httpx.Response) -> BrainyError:
        status = response.status_code
        error: BrainyError
        if status in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
            error = PermissionDeniedError(
                "the embedding endpoint refuses the key",
                remedy="set BRAINY_EMBEDDING__API_KEY (or OPENAI_API_KEY for OpenAI itself)",
            )
        elif status == httpx.codes.TOO_MANY_REQUESTS or response.is_server_error:
            error = _LaterError(
                "the embedding endpoint has too much to do, or fails",
                remedy="try again later: what is stored is not embedded again",
            )
            error.after = _retry_after(response)
        else:
            error = self._refuse("the embedding endpoint refuses the request")
        error.fields.update(url=str(self._url), status=str(status), answer=self._quote(response))
        return error

    def _refuse(self, message: str) -> EmbeddingError:
        return EmbeddingError(
            message,
            remedy="check the address, the model's name and the texts",
            model=self._model,
            url=self._url,
        )

    def _quote(self, response: httpx.Response) -> str:
        text = response.content[: 4 * _QUOTED_CHARACTERS].decode("utf-8", "replace")
        # Some servers repeat the key that they refuse.
        return (text.replace(self._key, "***") if self._key else text)[:_QUOTED_CHARACTERS]

    def _say(self, state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        _log.info("embedding_retried", url=str(self._url), attempt=state.attempt_number, cause=str(error))


class _LaterError(UnavailableError):
    """The endpoint asks to come back later."""

    #: Seconds; 0 where the endpoint did not say.
    after = 0.0


_exponential = wait_random_exponential(multiplier=_BACKOFF_SECONDS, max=_LONGEST_BACKOFF_SECONDS)


def _wait(state: RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome else None
    asked = error.after if isinstance(error, _LaterError) else 0.0
    return min(asked or _exponential(state), _LONGEST_BACKOFF_SECONDS)


def _retry_after(response: httpx.Response) -> float:
    try:
        return max(0.0, float(response.headers.get("retry-after", "")))
    except ValueError:
        return 0.0


def _endpoint(url: str) -> httpx.URL:
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise InvalidRequestError("not a URL", remedy="write http://host:8080#model", cause=error) from error
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise InvalidRequestError("not an http(s) URL", remedy="write http://host:8080#model", scheme=parsed.scheme)
    if parsed.userinfo:
        # It would be in every log and error that names the endpoint.
        raise InvalidRequestError(
            "the URL carries a password", remedy="set BRAINY_EMBEDDING__API_KEY instead", host=parsed.host
        )
    path = parsed.path.rstrip("/")
    if not path.endswith("/embeddings"):
        path = f"{path}/embeddings" if path.endswith("/v1") else f"{path}/v1/embeddings"
    return parsed.copy_with(path=path, fragment=None)
