"""The generations of a namespace: their numbers and descriptions."""

from __future__ import annotations

from brainy.bucket import layout
from brainy.bucket.records import Spec
from brainy.errors import ConflictError, UnavailableError
from brainy.store.base import ObjectStore, PutState

#: Sorts after every key of a generation.
_LAST = "\U0010ffff"


class Generations:
    """Reads and creates ``spec.json`` objects. Of an existing one nothing changes but what was undecided."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._specs: dict[int, Spec] = {}

    async def spec(self, number: int) -> Spec | None:
        """Return a generation's description, or None. Read again while its dimensions are not known."""
        known = self._specs.get(number)
        if known is not None and known.dimensions:
            return known
        return await self.latest(number)

    async def latest(self, number: int) -> Spec | None:
        """Return a generation's description as it is in the store now, or None."""
        found = await self._store.get(layout.spec(number))
        if found is None:
            return None
        self._specs[number] = Spec.decode(found.body, key=found.key)
        return self._specs[number]

    async def create(self, spec: Spec) -> Spec:
        """Write a description unless one exists, and return the one that does.

        Raises:
            ConflictError: the generation exists and is made of something else.
            UnavailableError: the store does not say whether it was written.
        """
        outcome = await self._store.put_if_absent(layout.spec(spec.generation), spec.encode())
        if outcome.won:
            self._specs[spec.generation] = spec
            return spec
        found = await self.spec(spec.generation)
        if found is None:
            raise UnavailableError(
                "the store does not say whether a generation was created", generation=spec.generation
            )
        if found.source != spec.source or found.shard_count != spec.shard_count:
            raise ConflictError("the generation exists and is another one", generation=spec.generation)
        return found

    async def carry_embedding(self, leading: int, following: int) -> None:
        """Let a generation say what its texts are embedded with, where only the one it follows does.

        Raises:
            ConflictError: somebody else changed the description; try again.
            UnavailableError: the store does not say whether it was written.
        """
        known = await self.latest(leading)
        found = await self._store.get(layout.spec(following))
        if known is None or known.embedding is None or found is None:
            return
        spec = Spec.decode(found.body, key=found.key)
        if spec.embedding is not None:
            return
        settled = spec.model_copy(update={"embedding": known.embedding})
        outcome = await self._store.put_if_match(layout.spec(following), settled.encode(), found.etag)
        if outcome.state is PutState.LOST:
            raise ConflictError("the generation's description was changed by somebody else", generation=following)
        if not outcome.won:
            raise UnavailableError("the store does not say whether it was written", generation=following)
        self._specs[following] = settled

    async def numbers(self) -> tuple[int, ...]:
        """Return the number of every generation that left a trace, with one small listing each."""
        numbers: list[int] = []
        after = ""
        while (found := await self._first_after(after)) is not None:
            numbers.append(found)
            after = layout.generation(found) + _LAST
        return tuple(sorted(numbers))

    async def _first_after(self, key: str) -> int | None:
        async for page in self._store.list(layout.GENERATIONS, start_after=key):
            for meta in page:
                number = layout.parse_generation(meta.key)
                if number is not None:
                    return number
        return None
