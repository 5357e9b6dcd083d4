"""Real servers shared by the whole run (each starts when the first test asks for it), and what every test is given."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from brainy.testing.fixtures import fixtures_root
from brainy.testing.servers import RedisServer, S3Server, ministack, redis_server, seaweedfs, valkey

BUCKET = "brainy-tests"


@pytest.fixture(autouse=True)
def untouched_logs() -> Iterator[None]:
    """What a test sets up of logging ends with it: commands run in this process set it up for theirs."""
    configured, before = structlog.is_configured(), structlog.get_config()
    yield
    if configured:
        structlog.configure(**before)
    else:
        structlog.reset_defaults()


@pytest.fixture(scope="session")
def seaweedfs_server() -> Iterator[S3Server]:
    """SeaweedFS with the bucket ``brainy-tests``."""
    with seaweedfs() as server:
        server.create_bucket(BUCKET)
        yield server


@pytest.fixture(scope="session")
def ministack_server() -> Iterator[S3Server]:
    """ministack with the bucket ``brainy-tests``."""
    with ministack() as server:
        server.create_bucket(BUCKET)
        yield server


@pytest.fixture(scope="session")
def redis_server_7() -> Iterator[RedisServer]:
    """Debian's redis-server, empty at first."""
    with redis_server() as server:
        yield server


@pytest.fixture(scope="session")
def valkey_server() -> Iterator[RedisServer]:
    """Valkey, empty at first."""
    with valkey() as server:
        yield server


@pytest.fixture(scope="session")
def recorded_buckets() -> Path:
    """The directory of recorded buckets; skips where there is none."""
    root = fixtures_root()
    if root is None:
        pytest.skip("no recorded buckets: set BRAINY_FIXTURES")
    return root
