"""The guides, run: every Python and shell block of docs/guide, and that none of Brainy's own guide is left out."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from brainy.config.settings import StoreSettings
from brainy.testing.fixtures import fixtures_root
from brainy.testing.servers import REGION, S3Server, ministack
from tests.e2e.pages import (
    ROOT,
    Block,
    anchor,
    blocks_of,
    headings,
    places_named,
    put_sample,
    read_blocks,
    run_blocks,
)

GUIDE = ROOT / "docs" / "guide"
MIGRATION_GUIDE = GUIDE / "migration-guide.md"
#: Places on S3 that hold what Brainy left; others that a block names are empty.
BRAINYS = ("existing-bucket", "shared-bucket")
#: A block stands under headings; those of one run stand under the same, down to this depth.
DEPTH = 3

#: Heading of Brainy's guide above a code block, as an anchor -> headings of ours above what takes its place. Its blocks
#: that are no programs (a listing, a diagram, the shape of a log entry) stand here too.
EQUIVALENTS = {
    "method-1-backup--restore-recommended": "method-1-backup--restore-recommended",
    "method-2-in-place-upgrade": "method-2-in-place-upgrade",
    "method-3-sparse-data-import": "method-3-sparse-data-import",
    "understanding-shared-bucket-architecture": "understanding-shared-bucket-architecture",
    "built-in-safety-features": "built-in-safety-features",
    "strategy-1-dedicated-namespace-recommended": "strategy-1-dedicated-namespace-recommended",
    "strategy-2-blue-green-migration": "strategy-2-blue-green-migration",
    "strategy-3-rolling-migration": "strategy-3-rolling-migration",
    "strategy-4-coordinated-in-place-migration": "strategy-4-coordinated-in-place-migration",
    "2-performance-monitoring": "2-performance-monitoring",
    "3-handling-large-datasets": "3-handling-large-datasets",
    "4-rollback-plan": "4-rollback-plan",
    "debug-logging": "debug-logging",
    "verification-steps": "verification-steps",
    "quick-decision-guide": "quick-decision-guide",
}
#: Of these, those whose block is no program in Brainy's guide either.
PICTURES = ("understanding-shared-bucket-architecture", "quick-decision-guide")


def runs() -> Iterator[tuple[str, list[Block]]]:
    """Yield (name, blocks) of what is run together."""
    for page in sorted(GUIDE.glob("*.md")):
        parts: dict[tuple[str, ...], list[Block]] = {}
        for block in read_blocks(page):
            if block.runs:
                parts.setdefault(block.under[:DEPTH], []).append(block)
        for under, blocks in parts.items():
            yield f"{page.name}#{anchor(under[-1])}", blocks


RUNS = dict(runs())


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    with ministack() as running:
        yield running


@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.parametrize("name", RUNS)
def test_the_blocks_of_a_guide(name: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    blocks = RUNS[name]
    variables: dict[str, str] = {}
    if places := places_named(blocks):
        server: S3Server = request.getfixturevalue("server")
        variables = server.environment
        with pytest.MonkeyPatch.context() as patch:
            for key, value in variables.items():
                patch.setenv(key, value)
            for place in places:
                server.create_bucket(place.partition("/")[0])
                if place in BRAINYS:
                    asyncio.run(put_sample(f"s3://{place}", StoreSettings(endpoint=server.endpoint, region=REGION)))
    run_blocks(blocks, tmp_path, variables=variables, seconds=170)


def test_every_guide_can_be_read_as_blocks() -> None:
    assert any(name.startswith("migration-guide.md#") for name in RUNS)
    for page in GUIDE.glob("*.md"):
        for block in read_blocks(page):
            assert block.language not in ("sh", "bash", "py", "console"), f"{page.name}:{block.line}"
            assert not set(block.marks) - {"fragment"}, f"{page.name}:{block.line}"


def test_links_of_the_guides_lead_somewhere() -> None:
    for page in (*GUIDE.glob("*.md"), ROOT / "README.md"):
        text = page.read_text(encoding="utf-8")
        for target in re.findall(r"\]\(([^)#\s]*)(#[^)\s]*)?\)", text):
            path, fragment = target
            if path.startswith("http"):
                continue
            found = (page.parent / path).resolve() if path else page
            assert found.exists(), f"{page.name}: {path}"
            if fragment:
                assert fragment[1:] in anchors(found), f"{page.name}: {path}{fragment}"


def anchors(page: Path) -> set[str]:
    return {anchor(heading) for _, heading in headings(page.read_text(encoding="utf-8"))}


def under(blocks: list[Block]) -> dict[str, list[Block]]:
    """Blocks by the anchor of the heading right above them."""
    found: dict[str, list[Block]] = {}
    for block in blocks:
        found.setdefault(anchor(block.under[-1]), []).append(block)
    return found


def test_every_block_of_brainys_guide_has_an_equivalent_that_is_run() -> None:
    ours = under(read_blocks(MIGRATION_GUIDE))
    for theirs, heading in EQUIVALENTS.items():
        assert heading in ours, theirs
        assert theirs in PICTURES or any(block.runs for block in ours[heading]), theirs


def test_no_block_and_no_heading_of_brainys_guide_is_missing() -> None:
    root = fixtures_root()
    guide = root.parent / "s3-migration-guide.md" if root else None
    if guide is None or not guide.is_file():
        pytest.skip("Brainy's own guide does not lie beside the recorded buckets")
    text = guide.read_text(encoding="utf-8", errors="replace")
    theirs = under(blocks_of(text, guide))
    assert theirs.keys() == EQUIVALENTS.keys()
    assert anchors(guide) - anchors(MIGRATION_GUIDE) == set()
    ours = under(read_blocks(MIGRATION_GUIDE))
    for heading, blocks in theirs.items():
        assert len(ours[EQUIVALENTS[heading]]) >= (1 if heading in PICTURES else len(blocks)), heading
