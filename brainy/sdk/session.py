"""Read your own writes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from brainy.api.common.v1 import common_pb2


class Session:
    """The newest positions this client's writes were acknowledged at.

    A read that carries them includes those writes, whichever node answers. Positions of an older generation
    are dropped once a newer one acknowledges: the cut-over between them happened only after the newer one had
    every record of the older.
    """

    def __init__(self, name: str = "") -> None:
        """Begin without any position.

        Args:
            name: sent along with the positions, so that all reads of the session are answered by one generation while
                a migration tries its target.
        """
        self._name = name
        self._generation = 0
        self._positions: dict[int, int] = {}
        self._tokens: tuple[common_pb2.Position, ...] = ()

    def note(self, positions: Iterable[common_pb2.Position]) -> None:
        """Remember the positions of an acknowledged write."""
        changed = False
        for token in positions:
            if token.generation > self._generation:
                self._generation = token.generation
                self._positions.clear()
            if token.generation == self._generation and token.position > self._positions.get(token.shard, 0):
                self._positions[token.shard] = token.position
                changed = True
        if changed:
            self._tokens = tuple(
                common_pb2.Position(generation=self._generation, shard=shard, position=position)
                for shard, position in sorted(self._positions.items())
            )

    def tokens(self) -> Sequence[common_pb2.Position]:
        """The positions to send along with a read."""
        return self._tokens

    @property
    def id(self) -> str:
        """The name to send along with a read; "" while the client has written nothing: then any answer will do."""
        return self._name if self._tokens else ""
