"""What the generations of a namespace are: their ``spec.json``, and the two facts that first writes settle."""

from __future__ import annotations

from collections.abc import Callable

from brainy.bucket import layout
from brainy.bucket.embedding import EmbeddingIdentity
from brainy.bucket.records import Spec
from brainy.clock import Clock
from brainy.errors import CorruptDataError, UnavailableError
from brainy.store.base import ObjectStore, PutState

#: A swap that lost, or whose outcome nobody knows, is tried again so often.
_ATTEMPTS = 8


class Specs:
    """Reads descriptions of generations and settles what is undecided in them.

    A first write decides the *dimensions* of an empty namespace, and the first write of embedded texts its *embedding*
    (and with it the dimensions). Steps: (1) read the spec; (2) if it is decided, that is the answer, whoever decided;
    (3) swap it with If-Match for one that is; (4) lost or unknown: go to 1. A fact that is decided never changes, so it
    is remembered for good. If the process ends after 3 the fact stays, with no item yet that it is about.

    A generation that says nothing about its embedding inherits what its source says: a migration's target may have
    been described before the first embedded write reached the generation it follows.
    """

    def __init__(self, store: ObjectStore, *, clock: Clock, recheck_seconds: float) -> None:
        """Remember where to read.

        Args:
            store: the namespace's.
            clock: for how long "no embedding yet" may be believed.
            recheck_seconds: how long that is.
        """
        self._store = store
        self._clock = clock
        self._recheck_seconds = recheck_seconds
        self._specs: dict[int, Spec] = {}
        self._embeddings: dict[int, EmbeddingIdentity] = {}
        #: When a generation was last found without an embedding.
        self._without: dict[int, float] = {}

    async def spec(self, generation: int) -> Spec:
        """Description of a generation, with its dimensions as of now.

        Raises:
            CorruptDataError: it is gone or damaged.
        """
        known = self._specs.get(generation)
        if known is not None and known.dimensions > 0:
            return known
        spec, _ = await self._read(generation)
        return spec

    async def embedding(self, generation: int) -> EmbeddingIdentity | None:
        """What a generation's texts were embedded with; None while nobody wrote any."""
        known = self._embeddings.get(generation)
        if known is not None:
            return known
        now = self._clock.monotonic()
        seen = self._without.get(generation)
        if seen is not None and now - seen < self._recheck_seconds:
            return None
        spec, _ = await self._read(generation)
        found = await self._inherited(spec)
        if found is None:
            self._without[generation] = now
        else:
            self._embeddings[generation] = found
        return found

    async def ensure_dimensions(self, generation: int, dimensions: int) -> Spec:
        """Return the spec, after setting its dimensions if they were 0; another writer may have set others.

        Raises:
            UnavailableError: the store did not settle it.
        """
        known = self._specs.get(generation)
        if known is not None and known.dimensions > 0:
            return known
        return await self._settle(
            generation, lambda spec: None if spec.dimensions else spec.model_copy(update={"dimensions": dimensions})
        )

    async def ensure_embedding(self, generation: int, embedding: EmbeddingIdentity) -> EmbeddingIdentity:
        """Return what the generation's texts are embedded with: what is recorded, else ``embedding`` from now on.

        Raises:
            UnavailableError: the store did not settle it.
        """
        known = self._embeddings.get(generation)
        if known is not None:
            return known
        spec, _ = await self._read(generation)
        decided = await self._inherited(spec) or embedding
        if decided == embedding and spec.embedding is None:
            settled = await self._settle(
                generation,
                lambda now: (
                    None
                    if now.embedding
                    else now.model_copy(
                        update={"embedding": embedding, "dimensions": now.dimensions or embedding.dimensions}
                    )
                ),
            )
            decided = settled.embedding or embedding
        self._embeddings[generation] = decided
        return decided

    async def _inherited(self, spec: Spec) -> EmbeddingIdentity | None:
        while spec.embedding is None and (source := spec.made_of) is not None:
            found = await self._store.get(layout.spec(source))
            if found is None:
                return None
            spec = Spec.decode(found.body, key=found.key)
        return spec.embedding

    async def _settle(self, generation: int, decide: Callable[[Spec], Spec | None]) -> Spec:
        for _ in range(_ATTEMPTS):
            spec, etag = await self._read(generation)
            decided = decide(spec)
            if decided is None:
                return spec
            outcome = await self._store.put_if_match(layout.spec(generation), decided.encode(), etag)
            if outcome.state is PutState.WON:
                self._specs[generation] = decided
                return decided
        raise UnavailableError("could not settle what the namespace's vectors are", remedy="retry; nothing was written")

    async def _read(self, generation: int) -> tuple[Spec, str]:
        key = layout.spec(generation)
        found = await self._store.get(key)
        if found is None:
            # It is written before any routing record names the generation.
            raise CorruptDataError(
                "the generation is placed, but its spec is missing",
                remedy="restore the object from a copy",
                data_safe=False,
                key=key,
            )
        self._specs[generation] = spec = Spec.decode(found.body, key=key)
        return spec, found.etag
