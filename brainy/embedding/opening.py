"""From what a caller names to an embedder."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import httpx
from pydantic import SecretStr

from brainy.bucket.embedding import EmbeddingIdentity, check_same_model
from brainy.config.settings import EmbeddingSettings, load_settings
from brainy.embedding.base import Embedder, is_embedder
from brainy.embedding.function import FunctionEmbedder
from brainy.embedding.minilm import DIMENSIONS, open_minilm
from brainy.embedding.minilm import MODEL as MINILM
from brainy.embedding.openai import OpenAIEmbedder
from brainy.errors import EmbeddingMismatchError, InvalidRequestError

#: An embedder; "minilm"; ``http(s)://host/...#model``; or a function from texts to vectors.
EmbedderLike: TypeAlias = Embedder | Callable[[list[str]], Any] | str

_REMEDY = "name minilm, an endpoint as http://host:8080#model, or hand in a function or an Embedder"


def open_embedder(wanted: EmbedderLike, settings: EmbeddingSettings | None = None) -> Embedder:
    """Return the embedder a caller means.

    Args:
        wanted: "minilm" (the offline model, which needs the extra ``embed``), an OpenAI-style endpoint with the model
            after ``#``, a function that has a name of its own, or an embedder, which is returned as it is.
        settings: for endpoints; read from the environment if they are left out.

    Raises:
        InvalidRequestError: none of these.
        PreconditionError: the extra is not installed.
    """
    if isinstance(wanted, str):
        if wanted in ("minilm", MINILM):
            return open_minilm()
        url, _, model = wanted.partition("#")
        if url.startswith(("http://", "https://")):
            if not model:
                raise InvalidRequestError("the endpoint's model is not named", remedy="write http://host:8080#model")
            return OpenAIEmbedder(url, model=model, settings=settings or load_settings().embedding)
        raise InvalidRequestError("no such embedder", remedy=_REMEDY, embedder=wanted[:64])
    if is_embedder(wanted):
        return wanted
    if callable(wanted):
        return FunctionEmbedder(wanted, model=_name_of(wanted))
    raise InvalidRequestError("no embedder", remedy=_REMEDY, type=type(wanted).__name__)


def embedder_for(recorded: EmbeddingIdentity | None, dimensions: int) -> Embedder:
    """Return an embedder for a namespace by what is recorded there.

    With nothing recorded it is the model Brainy itself uses, if the vectors have its length.

    Args:
        recorded: what the namespace's texts were embedded with.
        dimensions: of the namespace; 0 while it has none.

    Raises:
        EmbeddingMismatchError: the model cannot be opened by its name alone, or the vectors are of no known model.
        PreconditionError: the extra is not installed.
    """
    if recorded is None:
        if dimensions not in (0, DIMENSIONS):
            raise EmbeddingMismatchError(
                "nobody recorded what made the vectors of this namespace",
                remedy="say which model: embedder=..., or --embed",
                dimensions=dimensions,
            )
        return open_minilm()
    if recorded.model == MINILM:
        return open_minilm()
    settings = load_settings().embedding
    if settings.url:
        return OpenAIEmbedder(
            settings.url,
            model=recorded.model,
            dimensions=recorded.dimensions,
            revision=recorded.revision,
            settings=settings,
        )
    raise EmbeddingMismatchError(
        "the namespace's texts were embedded with a model that is not at hand",
        remedy="hand in an embedder of that model, or name its endpoint in BRAINY_EMBEDDING__URL",
        recorded=recorded,
    )


def embedder_at(identity: EmbeddingIdentity, endpoint: str, settings: EmbeddingSettings) -> Embedder:
    """Return the embedder of a model that a record names, for a process that has it embed texts.

    The key of the configuration is for the endpoint of the configuration: whoever may name an endpoint in a record
    must not get to see it.

    Args:
        identity: the model.
        endpoint: where the record says it is; "" for the offline one, or for the endpoint of the configuration.
        settings: of this process.

    Raises:
        InvalidRequestError: not an http(s) URL.
        EmbeddingMismatchError: this process has another edition of the model, or none.
        PreconditionError: the extra is not installed.
    """
    if identity.model == MINILM and not endpoint:
        minilm = open_minilm()
        check_same_model(minilm.identity, identity)
        return minilm
    url = endpoint or settings.url
    if not url:
        raise EmbeddingMismatchError(
            "the model is not at hand here",
            remedy="name its endpoint, or set BRAINY_EMBEDDING__URL for this process",
            recorded=identity,
        )
    if httpx.URL(url).netloc != httpx.URL(settings.url).netloc:
        settings = settings.model_copy(update={"api_key": SecretStr("")})
    return OpenAIEmbedder(
        url, model=identity.model, dimensions=identity.dimensions, revision=identity.revision, settings=settings
    )


def _name_of(function: Callable[[list[str]], Any]) -> str:
    name = getattr(function, "__qualname__", "")
    if not name or "<lambda>" in name:
        # Two of them would look like one model.
        raise InvalidRequestError(
            "the embedding function has no name of its own",
            remedy="wrap it: FunctionEmbedder(function, model=..., revision=...)",
        )
    return f"{getattr(function, '__module__', '')}.{name}"
