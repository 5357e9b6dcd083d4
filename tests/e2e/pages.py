"""Pages of the documentation, and running the code they show.

A fenced block whose first word is ``python`` or ``shell`` is run as it stands there, block after block and top to
bottom; Python blocks of one run share their variables and may ``await``. One that cannot be run by itself says so with
a second word, ``fragment``. Output and everything else is ``text``, or any other language.

What is run lies in a directory of its own. ``/srv`` in a block means a directory in it; ``/srv/brainy`` holds the
sample that comes with the package. Buckets are on a server in memory that is there if a block names one.
"""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from brainy.bucket.namespace import Namespace
from brainy.clock import SystemClock
from brainy.config.environment import inherited
from brainy.config.settings import StoreSettings
from brainy.ids import Ids
from brainy.samples import sample_objects
from brainy.sdk.local_cluster import LocalCluster
from brainy.store.opening import open_store

ROOT = Path(__file__).parents[2]
RUNS = ("python", "shell")
_PROCESS = Path(__file__).with_name("page_process.py")


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A fenced block."""

    page: Path
    #: Headings above it, from the page's title down.
    under: tuple[str, ...]
    #: First word after the fence, and the others.
    language: str
    marks: tuple[str, ...]
    code: str
    #: Line of the page its code begins on, from 1.
    line: int

    @property
    def runs(self) -> bool:
        """Whether it is to be run."""
        return self.language in RUNS and "fragment" not in self.marks


def headings(text: str) -> list[tuple[int, str]]:
    """Return (depth, text) of the headings of a page, those in fenced blocks aside."""
    found = []
    fenced = False
    for line in text.splitlines():
        if line.lstrip().startswith("```"):
            fenced = not fenced
        elif not fenced and (match := re.match(r"(#+)\s+(.*)", line)):
            found.append((len(match[1]), match[2].strip()))
    return found


def anchor(heading: str) -> str:
    """Return how a heading is linked to: as GitHub does it, but letters and digits of ASCII only."""
    return re.sub(r"[^a-z0-9 -]", "", heading.lower()).strip().replace(" ", "-")


def read_blocks(page: Path) -> list[Block]:
    """Return the fenced blocks of a page."""
    return blocks_of(page.read_text(encoding="utf-8"), page)


def blocks_of(text: str, page: Path) -> list[Block]:
    """Return the fenced blocks of a text."""
    found: list[Block] = []
    under: list[str] = []
    inside: list[str] | None = None
    info: list[str] = []
    indent = begins = 0
    for number, line in enumerate(text.splitlines(), 1):
        if line.lstrip().startswith("```"):
            if inside is None:
                inside, info = [], line.strip().removeprefix("```").split()
                indent, begins = len(line) - len(line.lstrip()), number + 1
            else:
                language, *marks = info or [""]
                code = "".join(f"{shown[indent:] if not shown[:indent].strip() else shown}\n" for shown in inside)
                found.append(
                    Block(page=page, under=tuple(under), language=language, marks=tuple(marks), code=code, line=begins)
                )
                inside = None
        elif inside is not None:
            inside.append(line)
        elif match := re.match(r"(#+)\s+(.*)", line):
            del under[len(match[1]) - 1 :]
            under += [""] * (len(match[1]) - 1 - len(under)) + [match[2].strip()]
    assert inside is None, f"{page}: a block does not end"
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """What a run printed."""

    output: str
    errors: str


def run_blocks(
    blocks: Sequence[Block],
    directory: Path,
    *,
    replace: Mapping[str, str] | None = None,
    variables: Mapping[str, str] | None = None,
    seconds: float = 110.0,
) -> Ran:
    """Run blocks in a directory, one after the other; fails with what they printed.

    ``replace`` is done in their code first. Clusters they leave running are stopped.
    """
    cache = directory / "cache"
    work = directory / "work"
    work.mkdir()
    srv = directory / "srv"
    srv.mkdir()
    codes = [_replaced(block.code, replace or {}) for block in blocks]
    if any("/srv/brainy" in code for code in codes):
        asyncio.run(put_sample(f"file://{srv}/brainy"))
    steps = [
        {
            "language": block.language,
            "code": code.replace("/srv/", f"{srv}/"),
            "page": str(block.page),
            "line": block.line,
        }
        for block, code in zip(blocks, codes, strict=True)
    ]
    try:
        ended = subprocess.run(
            [sys.executable, "-W", "error", str(_PROCESS)],
            input=json.dumps(steps),
            capture_output=True,
            text=True,
            timeout=seconds,
            cwd=work,
            env=inherited(
                XDG_CACHE_HOME=str(cache),
                PATH=f"{Path(sys.executable).parent}:{inherited()['PATH']}",
                **(variables or {}),
            ),
        )
    finally:
        for left in cache.glob("brainy/*/cluster.json"):
            cluster = LocalCluster.attach(left.parent)
            if cluster is not None:
                asyncio.run(cluster.stop(grace_seconds=5.0))
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return Ran(output=ended.stdout, errors=ended.stderr)


def _replaced(code: str, changes: Mapping[str, str]) -> str:
    for old, new in changes.items():
        code = code.replace(old, new)
    return code


def places_named(blocks: Iterable[Block]) -> set[str]:
    """Return the places on S3 that blocks name: ``s3://bucket/...`` and ``bucket_name="bucket/..."``."""
    code = "\n".join(block.code for block in blocks)
    found = re.findall(r"(?:s3://|bucket_name=\")([a-z0-9][a-z0-9./-]*)", code)
    return {place.rstrip("/") for place in found}


async def put_sample(namespace: str, settings: StoreSettings | None = None) -> None:
    """Put the sample that comes with the package into a namespace."""
    store = open_store(Namespace.parse(namespace), settings or StoreSettings(), clock=SystemClock(), ids=Ids())
    objects = sample_objects()

    async def put_some() -> None:
        for key, body, user_metadata in objects:
            await store.put(key, body, user_metadata=user_metadata)

    try:
        await asyncio.gather(*(put_some() for _ in range(16)))
    finally:
        await store.close()
