"""Import of sparse data: rows without vectors get them on the way."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from brainy.errors import BrainyError
from brainy.sdk.nouns import NounCalls
from brainy.sdk.values import ImportResult
from brainy.sdk.verbs import VerbCalls

if TYPE_CHECKING:  # importing texts needs what a client of vectors does not
    from brainy.embedding.opening import EmbedderLike
    from brainy.sdk.sparse import SparseLike


class ImportCalls(NounCalls, VerbCalls):
    """Import of sparse data."""

    async def import_sparse_data(
        self,
        data: SparseLike,
        embedder: EmbedderLike | None = None,
        *,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> ImportResult:
        """Import nouns without vectors, and verbs: Brainy's ``importSparseData``.

        A noun without a vector gets that of its text: ``metadata.text``, else the whole metadata. Before: nothing.
        Steps: rows are taken in windows of 256; while one window is written, the next is embedded; verbs follow the
        nouns, and each needs both its ends. After: every row is written, was there before, or is in ``skipped`` with
        a reason. If the process ends on the way, what was acknowledged is stored; the same call again embeds and
        writes only what is not. An id that exists is overwritten, as by ``add``; of equal ids the last row stays.
        Cancel safety: as the end of the process.

        Args:
            data: ``{nouns: [{id, metadata, vector?}], verbs: [...], version}``, a list of nouns, or the path of a file
                with such JSON, or with one row a line (JSON Lines), which is read piece by piece.
            embedder: what to embed texts with, instead of ``AsyncBrainy.embedder``.
            on_progress: called with the rows done and their total.

        Raises:
            NotFoundError: no such file.
            InvalidRequestError: ``data`` is no sparse data; nothing was written.
            EmbeddingMismatchError: the namespace's texts were embedded with another model; nothing was written.
            EmbeddingError: the embedder answered what is no embedding. This and the next: windows before were written,
                ``fields`` counts them, and the same call again goes on after them.
            UnavailableError: the embedder or the cluster cannot be reached. As ``EmbeddingError``.
            PermissionDeniedError: an endpoint refuses the key. As ``EmbeddingError``.
        """
        from brainy.sdk.import_run import ImportRun
        from brainy.sdk.sparse import open_sparse

        source = await asyncio.to_thread(open_sparse, data)
        self._changing()  # a read-only client refuses before anything is embedded
        total = await asyncio.to_thread(source.count)
        work = ImportRun(self, embedder, total, on_progress)
        try:
            await work.nouns(source.nouns())
            await work.verbs(source.verbs())
        except BrainyError as error:
            error.fields.setdefault("nouns_imported", str(work.nouns_written))
            error.fields.setdefault("verbs_imported", str(work.verbs_written))
            raise
        return work.result()
