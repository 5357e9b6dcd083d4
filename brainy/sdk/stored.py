"""Items exactly as they are stored: what a recovery reads and writes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from brainy.api.node.v1 import data_pb2
from brainy.bucket.items import Noun, Verb, noun_from_proto, noun_to_proto, verb_from_proto, verb_to_proto
from brainy.sdk.connection import Connection
from brainy.sdk.encoding import sendable
from brainy.sdk.nouns import BATCH_BYTES, BATCH_ITEMS


class StoredCalls(Connection):
    """Read and write ``brainy.bucket.items`` values: every field, also what no index can take."""

    async def stored_nouns(self, ids: Iterable[str]) -> dict[str, Noun]:
        """Read nouns as they are stored. Those that do not exist are left out."""
        wanted = list(dict.fromkeys(map(sendable, ids)))
        found: dict[str, Noun] = {}
        for start in range(0, len(wanted), BATCH_ITEMS):
            request = data_pb2.GetNounsRequest(
                namespace=self.namespace,
                ids=wanted[start : start + BATCH_ITEMS],
                include_vectors=True,
                session=self._session.tokens(),
                session_id=self._session.id,
            )
            answer = await self._nodes.unary(lambda node: node.nouns.GetNouns, request, self._read)
            found.update((noun.id, noun_from_proto(noun)) for noun in answer.nouns)
        return found

    async def stored_verbs(self, ids: Iterable[str]) -> dict[str, Verb]:
        """Read verbs as they are stored. Those that do not exist are left out."""
        wanted = list(dict.fromkeys(map(sendable, ids)))
        found: dict[str, Verb] = {}
        for start in range(0, len(wanted), BATCH_ITEMS):
            request = data_pb2.GetVerbsRequest(
                namespace=self.namespace,
                ids=wanted[start : start + BATCH_ITEMS],
                include_vectors=True,
                session=self._session.tokens(),
                session_id=self._session.id,
            )
            answer = await self._nodes.unary(lambda node: node.verbs.GetVerbs, request, self._read)
            found.update((verb.id, verb_from_proto(verb)) for verb in answer.verbs)
        return found

    async def write_stored(
        self,
        items: Sequence[Noun | Verb],
        *,
        request_id: str = "",
        expected: Sequence[bytes] | None = None,
        dimensions: int = 0,
    ) -> None:
        """Insert or replace items exactly as they are, in messages of up to 1,000, nouns first.

        Vectors may be missing, zero, of another length than the namespace's, or have components that float32
        cannot carry: such nouns are kept and listed as unindexed.

        Args:
            items: what to write; one item for each id.
            request_id: the same id with the same items has one effect however often it is sent, as long as the
                owners of the shards remember it.
            expected: for each item the digest of the one that must be in place, b"" for none. Where another one is
                in place it stays, without an error: read back to see. Without it everything is written.
            dimensions: length of the vectors of a namespace that has none yet; 0 leaves that open.

        Raises:
            InvalidRequestError: an item cannot be stored; nothing of its message was written.
            OutcomeUnknownError: not confirmed in time; repeat it with the same request id.
        """
        fresh = self._changing()
        request_id = request_id or fresh
        conditions = [None] * len(items) if expected is None else expected
        pairs = list(zip(items, conditions, strict=True))
        nouns = [(item, digest) for item, digest in pairs if isinstance(item, Noun)]
        verbs = [(item, digest) for item, digest in pairs if isinstance(item, Verb)]
        for number, part in enumerate(_parts(nouns)):
            request = data_pb2.UpsertNounsRequest(
                namespace=self.namespace,
                request_id=f"{request_id}.n{number}",
                nouns=[noun_to_proto(item) for item, _ in part if isinstance(item, Noun)],
                as_stored=True,
                dimensions=dimensions,
                expected=[digest for _, digest in part if digest is not None],
            )
            answer = await self._nodes.unary(lambda node: node.nouns.UpsertNouns, request, self._write)
            self._session.note(answer.positions)
        for number, part in enumerate(_parts(verbs)):
            verbs_request = data_pb2.UpsertVerbsRequest(
                namespace=self.namespace,
                request_id=f"{request_id}.v{number}",
                verbs=[verb_to_proto(item) for item, _ in part if isinstance(item, Verb)],
                as_stored=True,
                expected=[digest for _, digest in part if digest is not None],
            )
            verbs_answer = await self._nodes.unary(lambda node: node.verbs.UpsertVerbs, verbs_request, self._write)
            self._session.note(verbs_answer.positions)


_Pair = tuple[Noun | Verb, bytes | None]


def _parts(pairs: Sequence[tuple[Noun, bytes | None]] | Sequence[tuple[Verb, bytes | None]]) -> list[list[_Pair]]:
    parts: list[list[_Pair]] = []
    size = 0
    for item, digest in pairs:
        own = sum(len(part or b"") for part in (item.vector, item.raw_vector, item.metadata, item.attributes))
        if not parts or len(parts[-1]) >= BATCH_ITEMS or size + own > BATCH_BYTES:
            parts.append([])
            size = 0
        parts[-1].append((item, digest))
        size += own
    return parts
