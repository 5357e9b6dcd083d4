"""Entries of Brainy's change log, as hints: what was touched, and what the log says became of it."""

from __future__ import annotations

from dataclasses import dataclass

from brainy.legacy import keys
from brainy.legacy.dialect.entries import INSTANCE
from brainy.legacy.keys import Kind
from brainy.legacy.values import UnreadableError, parse_json
from brainy.store.base import StoredObject


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeEntry:
    """One entry that names an item."""

    #: Milliseconds by the writer's clock.
    time: int
    #: What the log calls noun, verb or metadata; metadata is a noun's.
    kind: Kind
    id: str
    #: "delete", as opposed to "add".
    deletes: bool
    #: Metadata that is null: part of deleting a noun, or of adding one without metadata.
    null: bool = False
    #: Our mirror wrote it: it tells nothing that is not known, but it stays the log's word on a zombie.
    ours: bool = False


_KINDS = {"noun": Kind.NOUN, "verb": Kind.VERB, "metadata": Kind.NOUN_METADATA}


def read_entry(found: StoredObject) -> ChangeEntry | None:
    """Read an entry; None for what names no item or cannot be read, for the log is a hint."""
    try:
        fields = parse_json(found.body)
    except UnreadableError:
        return None
    if not isinstance(fields, dict):
        return None
    kind, item_id = _KINDS.get(str(fields.get("entityType"))), fields.get("entityId")
    if kind is None or not isinstance(item_id, str) or (kind is Kind.NOUN_METADATA and keys.names_no_item(item_id)):
        return None
    stamp = fields.get("timestamp")
    return ChangeEntry(
        time=stamp if isinstance(stamp, int) and not isinstance(stamp, bool) else keys.change_time(found.key) or 0,
        kind=kind,
        id=item_id,
        deletes=fields.get("operation") == "delete",
        null=fields.get("data") is None,
        ours=fields.get("instanceId") == INSTANCE,
    )
