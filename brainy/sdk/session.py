"""Read your own writes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from brainy.api.common.v1 import common_pb2

#: Whose positions are kept.
_GENERATIONS = 2


class Session:
    """The newest positions this client's writes were acknowledged at.

    A read that carries them includes those writes, whichever node answers. Positions of two generations are kept, those
    that acknowledged last: either side of a migration may be the active one, and replicas may be behind their owner
    when the roles change.
    """

    def __init__(self, name: str = "") -> None:
        """Begin without any position.

        Args:
            name: sent along with the positions, so that all reads of the session are answered by one generation while
                a migration tries its target.
        """
        self._name = name
        #: Generation -> shard -> position; the one that acknowledged last at the end.
        self._positions: dict[int, dict[int, int]] = {}
        self._tokens: tuple[common_pb2.Position, ...] = ()

    def note(self, positions: Iterable[common_pb2.Position]) -> None:
        """Remember the positions of an acknowledged write."""
        changed = False
        for token in positions:
            shards = self._positions.pop(token.generation, {})
            self._positions[token.generation] = shards
            if token.position > shards.get(token.shard, 0):
                shards[token.shard] = token.position
                changed = True
        while len(self._positions) > _GENERATIONS:
            del self._positions[next(iter(self._positions))]
        if changed:
            self._tokens = tuple(
                common_pb2.Position(generation=generation, shard=shard, position=position)
                for generation, shards in sorted(self._positions.items())
                for shard, position in sorted(shards.items())
            )

    def tokens(self) -> Sequence[common_pb2.Position]:
        """The positions to send along with a read."""
        return self._tokens

    @property
    def id(self) -> str:
        """The name to send along with a read; "" while the client has written nothing: then any answer will do."""
        return self._name if self._tokens else ""
