"""The recorded bucket on a real server, put there once for the whole run."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import obstore
from obstore.store import S3Store as ObstoreS3

from brainy.bucket.namespace import Namespace
from brainy.clock import SystemClock
from brainy.config.settings import StoreSettings
from brainy.ids import Ids
from brainy.store.metered import MeteredStore
from brainy.store.opening import open_store
from brainy.testing.fixtures import FixtureObject, read_objects
from brainy.testing.servers import S3Server, seaweedfs

BUCKET = "bench"
WHOLE = f"s3://{BUCKET}/whole"
#: The same items, a quarter of them.
QUARTER = f"s3://{BUCKET}/quarter"
#: Folders of what belongs to items.
ITEMS = ("verbs", "verb-metadata", "nouns", "metadata")
CHANGE_LOG = "change-log"
_THREADS = 32
_CHUNK = 4000


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """What was put where."""

    objects: int
    quarter_objects: int
    seconds: float


@contextmanager
def running_server(directory: Path) -> Iterator[S3Server]:
    """Run SeaweedFS with the bucket; this process and its children talk to it from then on."""
    with seaweedfs(directory) as server:
        server.create_bucket(BUCKET)
        os.environ.update(server.environment)  # noqa: TID251 - children of every kind must find the server
        yield server


def put_recorded(folder: Path) -> Recorded:
    """Put the recorded bucket under ``WHOLE``, and a quarter of its items under ``QUARTER``."""
    clock = SystemClock()
    began = clock.monotonic()
    store = ObstoreS3(
        BUCKET,
        config={"aws_endpoint_url_s3": os.environ["AWS_ENDPOINT_URL_S3"]},  # noqa: TID251
        client_options={"allow_http": True},
    )
    objects = read_objects(folder)
    total = quarter = 0

    def put(target: tuple[str, FixtureObject]) -> None:
        prefix, item = target
        obstore.put(
            store, f"{prefix}/{item.key}", item.body, attributes=dict(item.metadata) or None, use_multipart=False
        )

    with ThreadPoolExecutor(_THREADS) as pool:
        while chunk := list(islice(objects, _CHUNK)):
            # A key may be recorded twice: the later one counts.
            latest = {item.key: item for item in chunk}
            targets = [("whole", item) for item in latest.values()]
            part = [("quarter", item) for item in latest.values() if _in_quarter(item.key)]
            list(pool.map(put, targets + part, chunksize=1))
            total += len(targets)
            quarter += len(part)
    return Recorded(objects=total, quarter_objects=quarter, seconds=clock.monotonic() - began)


def _in_quarter(key: str) -> bool:
    # An item and what belongs to it share the id, whose first hexadecimal digit is evenly spread.
    folder, _, name = key.rpartition("/")
    return folder in ("nouns", "metadata", "verbs", "verb-metadata") and name[:1] in "0123"


@asynccontextmanager
async def opened(namespace: str) -> AsyncIterator[MeteredStore]:
    """A store of the product for a namespace."""
    store = open_store(Namespace.parse(namespace), StoreSettings(), clock=SystemClock(), ids=Ids())
    try:
        yield store
    finally:
        await store.close()


async def item_keys(store: MeteredStore, folders: Sequence[str] = ITEMS) -> list[str]:
    """Keys of every object an import reads, or of those in other folders."""
    return [meta.key for folder in folders async for page in store.list(f"{folder}/") for meta in page]
