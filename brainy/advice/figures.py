"""How long a strategy takes, how long writes stand still, and what it costs: put together from one prediction. Pure.

The calls of reading a bucket and writing a generation are those of ``brainy.legacy.outlay``. The rates beside them
are what two cores did that also ran the object server (docs/performance.md); an operator's own take their place.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from brainy.advice.situation import Situation
from brainy.advice.values import Calls, Figures
from brainy.legacy.outlay import Assumptions, MigrationOutlay

#: Starting a cluster, placing shards, barriers.
_START_SECONDS = 5.0
#: Adopting a node in a rolling migration.
_ADOPT_SECONDS = 2.0
#: Writes wait this long at a switch (measured: 0.06), and at most so long.
PAUSE_SECONDS = 0.1
PAUSE_CAP_SECONDS = 3.0
#: A message of a restore, each of which becomes a log object of every shard at most.
_MESSAGE_ITEMS = 2000
_MESSAGE_BYTES = 4 << 20
_COORDINATION_PUTS = 40
#: As ``brainy.legacy.outlay``.
_GRAPH_BYTES = 170
_BASE_ROW_BYTES = 160
_BASE_BYTES = 135_000
_GB = 1e9


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """What is done in a second, apart from GETs."""

    #: Nouns that one node puts into its index.
    indexed: float = 1000.0
    #: Items that are restored, or compared with what is there.
    restored: float = 5000.0
    #: Texts that become vectors.
    embedded: float = 100.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    seconds: float = 0.0
    lists: int = 0
    gets: int = 0
    partial: int = 0
    puts: int = 0
    bucket_bytes: int = 0
    disk_bytes: int = 0

    def __add__(self, other: _Part) -> _Part:
        return _Part(
            seconds=self.seconds + other.seconds,
            lists=self.lists + other.lists,
            gets=self.gets + other.gets,
            partial=self.partial + other.partial,
            puts=self.puts + other.puts,
            bucket_bytes=self.bucket_bytes + other.bucket_bytes,
            disk_bytes=self.disk_bytes + other.disk_bytes,
        )


UNKNOWN = Figures(
    duration_seconds=None,
    write_pause_seconds=None,
    write_pause_cap_seconds=None,
    bucket_bytes=None,
    disk_bytes=None,
    calls=None,
    request_cost=None,
    storage_cost_per_month=None,
)


class Predictor:
    """The figures of each strategy in one situation."""

    def __init__(self, situation: Situation, given: Assumptions, rates: Rates) -> None:
        """Take what was counted; where nothing was, all figures but bounds are None."""
        self._at = situation
        self._given = given
        self._rates = rates
        facts = situation.facts
        self._outlay: MigrationOutlay | None = facts.outlay if facts.state != "empty" else None
        self._nouns = facts.nouns or 0
        self._items = facts.items or 0
        self._vector_bytes = 4 * sum(length * count for length, count in facts.dimensions.items())

    def in_place(self) -> Figures:
        """The next generation beside the one that serves, writes flowing."""
        return self._on_the_spot(0.0)

    def rolling(self) -> Figures:
        """The same, node by node."""
        return self._on_the_spot(_ADOPT_SECONDS * self._given.nodes)

    def coordinated(self) -> Figures:
        """The same while everybody stands still: nothing is followed."""
        if self._outlay is None:
            return UNKNOWN
        part = self._copying(self._outlay) + self._serving(self._outlay) + self._filling(self._outlay)
        return self._figures(part, part.seconds)

    def carried(self, *, again: bool = False) -> Figures:
        """Backup and restore; ``again`` for a second, incremental one while writes stand still."""
        if self._outlay is None:
            return UNKNOWN
        backup, restore = self._backing_up(self._outlay), self._restoring()
        pause = backup.seconds + restore.seconds
        part = backup + restore
        if again:
            # A tree that no cluster serves has no log to go by: it is read again.
            unserved = self._at.facts.state == "brainy"
            reading = self._backing_up(self._outlay) if unserved else _Part(seconds=1.0)
            last = reading + _Part(seconds=self._items / self._rates.restored)
            pause = last.seconds
            part += last
        return self._figures(part, pause if self._at.written else 0.0, cap=None)

    def embedded(self) -> Figures:
        """Texts out, vectors anew."""
        if self._outlay is None:
            return UNKNOWN
        part = self._backing_up(self._outlay) + self._restoring() + _Part(seconds=self._nouns / self._rates.embedded)
        return self._figures(part, part.seconds if self._at.written else 0.0, cap=None)

    def _on_the_spot(self, more_seconds: float) -> Figures:
        if self._outlay is None:
            return UNKNOWN.model_copy(
                update={"write_pause_seconds": PAUSE_SECONDS, "write_pause_cap_seconds": PAUSE_CAP_SECONDS}
            )
        part = self._copying(self._outlay) + self._serving(self._outlay) + _Part(seconds=more_seconds)
        if self._at.old_writers and not self._at.facts.following and self._at.facts.from_tree:
            # Following publishes what is served first; the migration fills from that instead of the tree.
            part += self._publishing(self._outlay) + self._filling(self._outlay, from_tree=False)
        else:
            part += self._filling(self._outlay, from_tree=self._at.facts.from_tree and not self._at.facts.following)
        return self._figures(part, PAUSE_SECONDS, cap=PAUSE_CAP_SECONDS)

    def _serving(self, outlay: MigrationOutlay) -> _Part:
        """Nodes that start on Brainy's own objects; nothing where they run already."""
        if self._at.facts.state != "brainy":
            return _Part(seconds=_START_SECONDS)
        reading = self._reading(outlay)
        return reading + _Part(seconds=_START_SECONDS + self._index_seconds(), disk_bytes=outlay.disk_bytes)

    def _copying(self, outlay: MigrationOutlay) -> _Part:
        """The backup that is taken first where there must be a way back."""
        return self._backing_up(outlay) if self._at.rollback else _Part()

    def _reading(self, outlay: MigrationOutlay) -> _Part:
        return _Part(
            seconds=outlay.seconds,
            lists=outlay.list_calls,
            gets=outlay.get_calls,
            partial=outlay.partial_get_calls,
        )

    def _filling(self, outlay: MigrationOutlay, *, from_tree: bool = True) -> _Part:
        written = _Part(
            seconds=self._index_seconds(),
            puts=outlay.put_calls,
            bucket_bytes=outlay.bucket_bytes,
            disk_bytes=outlay.disk_bytes,
        )
        if from_tree or not self._at.facts.from_tree:
            return self._reading(outlay) + written
        # One GET for about each object that was published.
        return written + _Part(gets=outlay.put_calls)

    def _publishing(self, outlay: MigrationOutlay) -> _Part:
        return _Part(seconds=_START_SECONDS, puts=outlay.put_calls, bucket_bytes=outlay.bucket_bytes)

    def _backing_up(self, outlay: MigrationOutlay) -> _Part:
        """One process reads everything once and writes a file."""
        gets = outlay.get_calls - (self._given.nodes - 1) * outlay.get_calls_a_node
        return _Part(
            seconds=gets / self._given.gets_per_second,
            lists=math.ceil(outlay.list_calls / self._given.nodes),
            gets=gets,
            disk_bytes=max(0, outlay.bucket_bytes - self._index_bytes()),
        )

    def _restoring(self) -> _Part:
        """What is read from the file goes into the logs of a namespace, which a cluster serves."""
        content = self._content_bytes()
        messages = max(math.ceil(self._items / _MESSAGE_ITEMS), math.ceil(content / _MESSAGE_BYTES))
        return _Part(
            seconds=_START_SECONDS + self._items / self._rates.restored,
            puts=_COORDINATION_PUTS + self._given.shards * messages,
            bucket_bytes=content,
            disk_bytes=content + self._index_bytes(),
        )

    def _index_seconds(self) -> float:
        return self._nouns / self._rates.indexed / self._given.nodes

    def _index_bytes(self) -> int:
        return self._vector_bytes + _GRAPH_BYTES * self._nouns

    def _content_bytes(self) -> int:
        """Vectors and documents as they are in memory, out of the prediction of the disk."""
        if self._outlay is None:
            return 0
        rest = _BASE_ROW_BYTES * self._items + _BASE_BYTES * self._given.shards + self._index_bytes()
        return max(self._vector_bytes, self._outlay.disk_bytes - rest)

    def _figures(self, part: _Part, pause: float, *, cap: float | None = None) -> Figures:
        given = self._given
        calls = ((part.gets + part.partial) * given.price_get + (part.puts + part.lists) * given.price_put) / 1000
        return Figures(
            duration_seconds=round(part.seconds, 1),
            write_pause_seconds=round(pause, 1),
            write_pause_cap_seconds=cap,
            bucket_bytes=part.bucket_bytes,
            disk_bytes=part.disk_bytes,
            calls=Calls(list=part.lists, get=part.gets, partial_get=part.partial, put=part.puts),
            request_cost=round(calls, 6),
            storage_cost_per_month=round(part.bucket_bytes / _GB * given.price_storage, 6),
        )
