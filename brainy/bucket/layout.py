"""The only module that builds and parses the keys of the cluster's own objects.

Everything lies under ``cluster/`` inside the namespace (docs/format.md); what Brainy itself wrote lies beside
it and is named by ``brainy.legacy`` alone. Numbers in keys have twenty digits, so that the order of keys is the
order of numbers.
"""

from __future__ import annotations

import re

ROOT = "cluster/"
ROUTING = ROOT + "routing.json"
LOCKS = ROOT + "locks/"
MIGRATIONS = ROOT + "migrations/"
PLANS = MIGRATIONS + "plans/"
GENERATIONS = ROOT + "generations/"
#: What is to become of generations that are not served any more.
RETIRED = ROOT + "retired/"
#: Which quarantined objects were mended and written again, whatever the generation.
REPLAYED = ROOT + "quarantine/replayed.json"
FOLLOW = ROOT + "follow.json"
MIRROR = ROOT + "mirror/"
MIRROR_STATISTICS = MIRROR + "statistics.json"

_LOG_KEY = re.compile(r"cluster/generations/(\d+)/change-log/(\d+)/(\d{20})\.log")
_MIGRATION_KEY = re.compile(r"cluster/migrations/([a-z0-9-]+)/(\d{20})\.json")
_PLAN_ID = re.compile(r"p-[0-9a-f]{20}")
_GENERATION_KEY = re.compile(r"cluster/generations/(\d+)/")
_RETIRED_KEY = re.compile(r"cluster/retired/(\d+)\.json")
_MIRROR_KEY = re.compile(r"cluster/mirror/(\d+)/(\d+)\.json")


def lock(name: str) -> str:
    """Key of a lease record."""
    return f"{LOCKS}{name}.json"


def migration_event(migration_id: str, sequence: int) -> str:
    """Key of one record of a migration's history."""
    return f"{MIGRATIONS}{migration_id}/{sequence:020d}.json"


def migration_events(migration_id: str) -> str:
    """Prefix of a migration's history."""
    return f"{MIGRATIONS}{migration_id}/"


def parse_migration_event(key: str) -> tuple[str, int] | None:
    """Return (migration id, sequence), or None for another key."""
    match = _MIGRATION_KEY.fullmatch(key)
    return (match[1], int(match[2])) if match else None


def migration_plan(plan_id: str) -> str | None:
    """Key of a stored plan; None where that is no plan's id."""
    return f"{PLANS}{plan_id}.json" if _PLAN_ID.fullmatch(plan_id) else None


def seen_book(number: int, shard: int) -> str:
    """Key of the versions of Brainy's objects that a shard of a generation includes."""
    return f"{ROOT}follow/{number}/{shard}.book"


def generation(number: int) -> str:
    """Prefix of everything that belongs to a generation."""
    return f"{GENERATIONS}{number}/"


def parse_generation(key: str) -> int | None:
    """Number of the generation a key belongs to, or None."""
    match = _GENERATION_KEY.match(key)
    return int(match[1]) if match else None


def retired(number: int) -> str:
    """Key of what is to become of a generation that is not served any more."""
    return f"{RETIRED}{number}.json"


def parse_retired(key: str) -> int | None:
    """Number of the generation, or None for another key."""
    match = _RETIRED_KEY.fullmatch(key)
    return int(match[1]) if match else None


def manifests(number: int) -> str:
    """Prefix of a generation's manifests."""
    return f"{generation(number)}manifests/"


def switch_countdown(migration_id: str) -> str:
    """Key of how long a postponed switch has still to wait."""
    return f"{MIGRATIONS}{migration_id}/countdown.json"


def spec(number: int) -> str:
    """Key of a generation's description."""
    return f"{generation(number)}spec.json"


def log(number: int, shard: int) -> str:
    """Prefix of a shard's change log."""
    return f"{generation(number)}change-log/{shard}/"


def log_slot(number: int, shard: int, first_position: int) -> str:
    """Key of the change-log object that starts at ``first_position``."""
    return f"{log(number, shard)}{first_position:020d}.log"


def parse_log_slot(key: str) -> tuple[int, int, int] | None:
    """Return (generation, shard, first position), or None for another key."""
    match = _LOG_KEY.fullmatch(key)
    return (int(match[1]), int(match[2]), int(match[3])) if match else None


def collected(number: int, shard: int) -> str:
    """Key of the position up to which a shard's change log may have been collected."""
    return f"{generation(number)}collected/{shard}.json"


def manifest(number: int, shard: int) -> str:
    """Key of the one mutable object that names a shard's current segments and checkpoint."""
    return f"{generation(number)}manifests/{shard}.json"


def filling(number: int, shard: int) -> str:
    """Key of how far the filling of a shard is."""
    return f"{generation(number)}filling/{shard}.json"


def fill_source(number: int, name: str) -> str:
    """Key of the manifests that a generation is filled from, as one job found them."""
    return f"{generation(number)}filling/source-{name}.json"


def segment(number: int, kind: str, shard: int, name: str) -> str:
    """Key of a packed segment; ``kind`` is nouns or verbs."""
    return f"{generation(number)}{kind}/{shard}/{name}.parquet"


def checkpoint(number: int, shard: int, name: str, file: str) -> str:
    """Key of one file of an index checkpoint."""
    return f"{generation(number)}index/{shard}/{name}/{file}"


def quarantine(number: int, shard: int, name: str) -> str:
    """Key of what of the source could not be read into a shard, bytes included."""
    return f"{generation(number)}quarantine/{shard}/{name}.parquet"


def mirror_cursor(number: int, shard: int) -> str:
    """Key of how far a shard's change log has been written back into Brainy's own tree."""
    return f"{MIRROR}{number}/{shard}.json"


def parse_mirror_cursor(key: str) -> tuple[int, int] | None:
    """Return (generation, shard), or None for another key."""
    match = _MIRROR_KEY.fullmatch(key)
    return (int(match[1]), int(match[2])) if match else None
