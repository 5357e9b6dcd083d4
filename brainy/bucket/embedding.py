"""Which model a namespace's texts were embedded with."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from brainy.api.common.v1 import common_pb2
from brainy.errors import EmbeddingMismatchError, InvalidRequestError

_MAX_CHARACTERS = 256


class EmbeddingIdentity(BaseModel):
    """Which model made vectors out of texts. Two that differ in any field make vectors that cannot be compared."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = Field(min_length=1, max_length=_MAX_CHARACTERS)
    #: Length of its vectors.
    dimensions: int = Field(ge=1, le=1 << 20)
    #: Which edition of the model, where its name does not say.
    revision: str = Field(default="", max_length=_MAX_CHARACTERS)

    def __str__(self) -> str:
        """Return it in one line, for people."""
        return f"{self.model}, {self.dimensions} dimensions" + (f", {self.revision}" if self.revision else "")


class Reembedding(BaseModel):
    """How a generation whose texts another model embeds anew gets its vectors while it is filled and follows."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    #: Where nodes ask the model, http(s)://host/...; "" for the offline one, or the endpoint of their configuration.
    endpoint: str = Field(default="", max_length=2048)
    #: How many nouns may end up without a vector because they have no text.
    without_text_limit: int = Field(default=0, ge=0)


def embedding_to_proto(identity: EmbeddingIdentity) -> common_pb2.EmbeddingIdentity:
    """Convert for the wire."""
    return common_pb2.EmbeddingIdentity(
        model=identity.model, dimensions=identity.dimensions, revision=identity.revision
    )


def embedding_from_proto(message: common_pb2.EmbeddingIdentity) -> EmbeddingIdentity:
    """Convert from the wire.

    Raises:
        InvalidRequestError: no model, no dimensions, or too long a name.
    """
    try:
        return EmbeddingIdentity(model=message.model, dimensions=message.dimensions, revision=message.revision)
    except ValidationError as error:
        raise InvalidRequestError(
            "not the identity of an embedding",
            remedy=f"send model (1 to {_MAX_CHARACTERS} characters) and dimensions; nothing was written",
            model=message.model[:64],
            dimensions=message.dimensions,
        ) from error


def check_same_model(given: EmbeddingIdentity, recorded: EmbeddingIdentity | None) -> None:
    """Refuse vectors of another model than the namespace's; with nothing recorded any model is welcome.

    Raises:
        EmbeddingMismatchError: says which model is there and what to do.
    """
    if recorded is not None and given != recorded:
        raise EmbeddingMismatchError(
            "the texts of this namespace were embedded with another model",
            remedy="embed with the recorded model, or import into a namespace of its own; "
            "nothing was written and what is stored is untouched",
            recorded=recorded,
            given=given,
        )
