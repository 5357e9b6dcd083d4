"""What a builder process is asked, and what it answers: values that travel as JSON lines."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, TypeAdapter

from brainy import errors
from brainy.bucket.records import Spec
from brainy.config.settings import EmbeddingSettings, StoreSettings
from brainy.errors import BrainyError

#: adopt: generation 0 from the Brainy tree or from nothing; local only.
#: open: a published generation from its manifests; local only.
#: fill: a new generation from its source; published and local. A shard that has a manifest is opened instead.
#: fold: one shard's local base and the log after it; local, and published if asked to.
JobKind = Literal["adopt", "open", "fill", "fold"]


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Job(_Value):
    """One run of ``python -m brainy_node.builder``."""

    kind: JobKind
    #: URI of the namespace.
    namespace: str
    store: StoreSettings = Field(default_factory=StoreSettings)
    #: The generation to build, and how.
    spec: Spec
    #: Shards wanted. The source is read once for all of them.
    shards: tuple[int, ...]
    #: Directory of the generation's local bases; a base becomes ``<output>/s<shard>/<020d position>-<nonce>``.
    output: str
    #: Ownership epochs by shard, for publishing.
    epochs: dict[int, int] = Field(default_factory=dict)
    node_id: str = ""
    incarnation: str = ""
    #: fold: the base to start from.
    base_directory: str = ""
    #: fold: merge log objects that end at or below this position; None for all there are.
    up_to_position: int | None = None
    #: fold: also publish segments, index and manifest (never for generation 0).
    publish: bool = False
    #: fill: a part of the copy is written once it has so many bytes, or after so many seconds; what was read since the
    #: last one is read again after a crash.
    part_bytes: int = 64 << 20
    part_seconds: float = 30.0
    #: Rates follow on further lines of the input.
    paced: bool = False
    #: For building indexes; 0 means all cores but one.
    threads: int = 0
    log_level: str = "info"
    log_format: str = "json"
    #: fill: where the model is asked that embeds everything anew. Its key travels apart, for settings hide it.
    embedding: EmbeddingSettings = Field(default_factory=EmbeddingSettings)
    embedding_key: str = Field(default="", repr=False)

    @property
    def embedding_settings(self) -> EmbeddingSettings:
        """The settings with their key."""
        return self.embedding.model_copy(update={"api_key": SecretStr(self.embedding_key)})

    def with_embedding(self, settings: EmbeddingSettings) -> Job:
        """Return the job as it is handed over, with what a process needs to ask a model."""
        return self.model_copy(
            update={
                "embedding": settings.model_copy(update={"api_key": SecretStr("")}),
                "embedding_key": settings.api_key.get_secret_value(),
            }
        )


class Progress(_Value):
    """How far a shard is."""

    event: Literal["progress"] = "progress"
    shard: int
    #: reading, indexing, publishing.
    stage: str = "reading"
    #: Items read, indexed or published so far, and how many to expect (0: not known yet; approximate while reading).
    done: int = 0
    total: int = 0
    #: Of those read, the ones that an earlier run had copied and that are taken from there.
    resumed: int = 0


class Rate(_Value):
    """To the builder, on further lines of its standard input: how fast the job may be from now on."""

    event: Literal["rate"] = "rate"
    #: Items a second of whatever stage it is in; None for as fast as it goes, 0 to stand still.
    items_per_second: float | None = Field(default=None, ge=0.0)


class Pulse(_Value):
    """What the store had to be asked again so far; written when that has changed."""

    event: Literal["pulse"] = "pulse"
    store_repeats: int = 0


class Built(_Value):
    """A finished base."""

    shard: int
    directory: str
    position: int
    #: Whether this job's files are what the shard's manifest names now.
    published: bool = False
    #: Whether the stored index was damaged and had to be built anew from the segments.
    rebuilt: bool = False


class Done(_Value):
    """The job succeeded; the last line."""

    event: Literal["done"] = "done"
    built: tuple[Built, ...]
    #: Calls to the object store, by kind.
    store_calls: dict[str, int] = Field(default_factory=dict)


class Failed(_Value):
    """The job failed; the last line."""

    event: Literal["failed"] = "failed"
    #: Name of a class of ``brainy.errors``.
    error: str
    message: str
    reason: str
    remedy: str = ""
    data_safe: bool = True
    fields: dict[str, str] = Field(default_factory=dict)

    @classmethod
    def of(cls, error: Exception) -> Failed:
        """Describe an error; one that is not the product's own becomes INTERNAL."""
        if isinstance(error, BrainyError):
            return cls(
                error=type(error).__name__,
                message=error.message,
                reason=error.reason,
                remedy=error.remedy,
                data_safe=error.data_safe,
                fields=error.fields,
            )
        return cls(
            error="BrainyError",
            message="the builder met an error of its own",
            reason="INTERNAL",
            remedy="report it with the builder's log",
            fields={"cause": f"{type(error).__name__}: {error}"},
        )

    def exception(self) -> BrainyError:
        """Return the error to raise in the process that asked."""
        kind = getattr(errors, self.error, BrainyError)
        if not (isinstance(kind, type) and issubclass(kind, BrainyError)):
            kind = BrainyError
        fields: dict[str, Any] = {name: value for name, value in self.fields.items() if name not in _ARGUMENTS}
        return kind(self.message, reason=self.reason, remedy=self.remedy, data_safe=self.data_safe, **fields)


_ARGUMENTS = frozenset({"message", "reason", "remedy", "data_safe", "self"})

#: A line of the builder's standard output.
Line: TypeAdapter[Progress | Pulse | Done | Failed] = TypeAdapter(
    Annotated[Progress | Pulse | Done | Failed, Field(discriminator="event")]
)
