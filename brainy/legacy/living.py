"""Which version of Brainy lives on a bucket, as far as writing for it goes. Reads only: a few LISTs and GETs."""

from __future__ import annotations

from brainy.legacy import keys
from brainy.legacy.dialect.dialects import ENTITIES, SPLIT, Dialect, dialect_of
from brainy.legacy.keys import FLAT_KEYS, id_in
from brainy.legacy.objects import is_one_piece, open_object
from brainy.legacy.survey import survey
from brainy.legacy.values import UnreadableError, parse_json
from brainy.store.base import ObjectMeta, ObjectStore, StoredObject

_SAMPLE = 16
#: What every version from 0.41 on says of itself.
_SINCE_041 = "0.41.0"


async def living_dialect(store: ObjectStore) -> Dialect | None:
    """Return the dialect that the newest version of a bucket reads, None where the bucket does not say.

    Raises:
        BrainyError: the store failed.
    """
    found = await survey(store)
    return dialect_of(found, split_verbs=await splits_verbs(store))


async def splits_verbs(store: ObjectStore) -> bool | None:
    """Say whether the newest writer of the flat tree keeps a verb in two objects; None if there is no trace.

    The first verb-metadata settles it. Without any, a verb that names its ends was written by 0.35 or older; where
    there are no verbs either, a level in a noun (from 0.40) or the version in its metadata (from 0.41) tells.
    """
    if await _first(store, FLAT_KEYS.verb_metadata):
        return True
    forms = [is_one_piece(fields) for fields in await _sample(store, FLAT_KEYS.verbs)]
    if forms:
        return not any(forms)
    if any("level" in fields for fields in await _sample(store, FLAT_KEYS.nouns)):
        return True
    for found in await _bodies(store, await _first(store, FLAT_KEYS.noun_metadata)):
        try:
            document = parse_json(found.body)
        except UnreadableError:
            continue
        created_by = document.get("createdBy") if isinstance(document, dict) else None
        if isinstance(created_by, dict) and created_by.get("version") == _SINCE_041:
            return True
    return None


async def keeps_change_log(store: ObjectStore, dialect: Dialect) -> bool:
    """Say whether a bucket's version writes a change log: the two newer dialects do, the oldest from 0.26 on."""
    if dialect in (SPLIT, ENTITIES):
        return True
    async for page in store.list(keys.CHANGE_LOG):
        return any(keys.change_time(meta.key) is not None for meta in page)
    return False


async def _first(store: ObjectStore, prefix: str) -> list[ObjectMeta]:
    async for page in store.list(prefix):
        return [meta for meta in page if id_in(prefix, meta.key)][:_SAMPLE]
    return []


async def _bodies(store: ObjectStore, metas: list[ObjectMeta]) -> list[StoredObject]:
    found = []
    for item in await store.get_many([meta.key for meta in metas]):
        if isinstance(item, Exception):
            raise item
        if item is not None:
            found.append(item)
    return found


async def _sample(store: ObjectStore, prefix: str) -> list[dict[str, object]]:
    opened = []
    for found in await _bodies(store, await _first(store, prefix)):
        try:
            opened.append(open_object(found.body)[1])
        except UnreadableError:
            continue
    return opened
