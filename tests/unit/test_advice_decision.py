"""The decision graph, table by table; figures held against the prediction they are made of."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from brainy.advice.advising import advise
from brainy.advice.facts import ClusterFacts, Facts, of_manifests
from brainy.advice.figures import Rates
from brainy.advice.values import Advice, Answers, Proposal, Way
from brainy.bucket.follow import FollowChoice
from brainy.bucket.records import Manifest, Routing, Spec, StoredFile
from brainy.legacy.outlay import Assumptions, MigrationOutlay

INF = float("inf")
GIVEN = Assumptions(nodes=3)
#: Of a bucket with 10,000 nouns x 64 and 2,000 verbs in 24,000 objects, three nodes.
OUTLAY = MigrationOutlay(
    list_calls=90,
    get_calls=22_084,
    get_calls_a_node=0,
    partial_get_calls=24_000,
    put_calls=72,
    seconds=7.7,
    bucket_bytes=8_200_000,
    disk_bytes=12_500_000,
    request_cost=0.019,
    storage_cost_per_month=0.0002,
    nodes=3,
    shards=4,
    gets_per_second=2000,
    price_get=0.0004,
    price_put=0.005,
    price_storage=0.023,
)
#: At rest, exclusive by all signs.
QUIET = Facts(
    namespace="s3://bucket/app",
    state="brainy",
    basis="inspection",
    trees=("flat",),
    nouns=10_000,
    verbs=2_000,
    dimensions={64: 10_000},
    quarantined=0,
    idle_seconds=86_400.0,
    outlay=OUTLAY,
)
LIVE = replace(QUIET, idle_seconds=3.0)
EMPTY = Facts(namespace="s3://bucket/app", state="empty", basis="inspection", nouns=0, verbs=0)
SURVEYED = replace(QUIET, basis="survey", nouns=None, verbs=None, quarantined=None, idle_seconds=None, outlay=None)
SERVED = replace(LIVE, state="served", generation=0)
GENERATION = replace(QUIET, state="generation", basis="manifests", generation=1, idle_seconds=None)


def asked(facts: Facts, **answers: Any) -> Advice:
    found = advise(facts, Answers(**answers), assumptions=GIVEN)
    assert {each.strategy for each in found.strategies} == set(Way)
    assert [each.rank for each in found.strategies] == list(range(1, 8))
    assert [each.fits for each in found.strategies] == sorted((e.fits for e in found.strategies), reverse=True)
    assert found.advised == (found.strategies[0].strategy if found.strategies[0].fits else None)
    for each in found.strategies:
        assert each.fits or each.why_not
        assert each.why or not each.fits
        assert each.steps or not each.fits
    return found


def proposal(found: Advice, strategy: Way) -> Proposal:
    return next(each for each in found.strategies if each.strategy is strategy)


def commands(found: Advice, strategy: Way) -> str:
    return "\n".join(step.command for step in proposal(found, strategy).steps)


@pytest.mark.parametrize("facts", [QUIET, LIVE, SERVED, GENERATION, SURVEYED], ids=lambda f: f"{f.state}-{f.basis}")
@pytest.mark.parametrize(
    ("shared", "downtime", "leaf"),
    [
        (False, 0, Way.BACKUP_RESTORE),
        (False, INF, Way.BACKUP_RESTORE),
        (True, INF, Way.IN_PLACE),
        (True, 0, Way.BLUE_GREEN),
        (True, 1, Way.ROLLING),
    ],
)
def test_the_guides_own_questions_lead_where_the_guide_says(
    facts: Facts, shared: bool, downtime: float, leaf: Way
) -> None:
    assert asked(facts, shared=shared, downtime_seconds=downtime).guide is leaf


@pytest.mark.parametrize(
    ("facts", "answers", "advised"),
    [
        # Nobody else there.
        (QUIET, {}, Way.BACKUP_RESTORE),
        (QUIET, {"shared": False}, Way.BACKUP_RESTORE),
        (LIVE, {"shared": False, "downtime_seconds": INF}, Way.BACKUP_RESTORE),
        # A backup would be too long a standstill.
        (LIVE, {"shared": False}, Way.IN_PLACE),
        (GENERATION, {}, Way.IN_PLACE),
        (GENERATION, {"downtime_seconds": 3600}, Way.BACKUP_RESTORE),
        # Shared.
        (LIVE, {}, Way.BLUE_GREEN),
        (LIVE, {"downtime_seconds": 5}, Way.ROLLING),
        (LIVE, {"downtime_seconds": 3600}, Way.COORDINATED),
        (LIVE, {"downtime_seconds": 3600, "old_writers": False, "shared": True}, Way.IN_PLACE),
        (QUIET, {"shared": True, "downtime_seconds": INF}, Way.IN_PLACE),
        (SERVED, {"shared": True}, Way.BLUE_GREEN),
        # Elsewhere, or nothing may change here.
        (QUIET, {"shared": True, "keep_source": True}, Way.BACKUP_RESTORE),
        (LIVE, {"keep_source": True, "separate_nodes": True, "downtime_seconds": 3600}, Way.BLUE_GREEN),
        (LIVE, {"keep_source": True, "downtime_seconds": 3600}, Way.BACKUP_RESTORE),
        (LIVE, {"keep_source": True}, None),
        (QUIET, {"shared": True, "target": "s3://other/app"}, Way.BACKUP_RESTORE),
        (QUIET, {"isolate": True}, Way.DEDICATED),
        (replace(QUIET, services=("a", "b")), {"isolate": True}, Way.DEDICATED),
        # No vectors.
        (QUIET, {"vectors": False}, Way.SPARSE_IMPORT),
        (replace(QUIET, dimensions={0: 9_000, 64: 1_000}), {}, Way.SPARSE_IMPORT),
        (replace(QUIET, dimensions={0: 1_000, 64: 9_000}), {}, Way.BACKUP_RESTORE),
        (LIVE, {"vectors": False}, None),
        # Nothing counted.
        (SURVEYED, {}, Way.BLUE_GREEN),
        (SURVEYED, {"shared": True, "downtime_seconds": 60}, Way.ROLLING),
        (SURVEYED, {"shared": True, "downtime_seconds": INF}, Way.COORDINATED),
        (EMPTY, {}, Way.SPARSE_IMPORT),
        # Something is in the way.
        (replace(SERVED, migration="m-1"), {"shared": True}, None),
        (replace(QUIET, trees=(), unsupported_trees=("typed",)), {}, None),
    ],
)
def test_what_is_advised(facts: Facts, answers: dict[str, Any], advised: Way | None) -> None:
    assert asked(facts, **answers).advised == advised


def test_one_node_has_nothing_to_roll() -> None:
    found = advise(LIVE, Answers(downtime_seconds=5), assumptions=Assumptions(nodes=1))
    assert (found.guide, found.advised) == (Way.ROLLING, Way.IN_PLACE)


def test_the_reason_names_both_where_they_differ() -> None:
    found = asked(LIVE, shared=False)
    assert "leads to backup-and-restore, but writes would stand still for" in found.reason
    assert "ruled out" in asked(LIVE, keep_source=True).reason


@pytest.mark.parametrize("strategy", [Way.IN_PLACE, Way.ROLLING, Way.BLUE_GREEN])
def test_brainy_processes_that_go_on_are_followed_and_mirrored_back(strategy: Way) -> None:
    steps = commands(asked(LIVE), strategy)
    follow, mirror = (f"brainy {name} s3://bucket/app --on" for name in ("follow", "mirror"))
    order = ["brainy backup", follow, "brainy up", mirror, "brainy migrate start"]
    places = [steps.index(text) for text in order]
    assert places == sorted(places)
    without = commands(asked(QUIET, rollback=False), strategy)
    assert "follow" not in without
    assert "mirror" not in without
    assert "backup" not in without


def test_a_typed_tree_cannot_be_mirrored_so_the_backup_is_the_way_back() -> None:
    found = asked(replace(QUIET, trees=("typed",)))
    assert "mirror" not in commands(found, Way.IN_PLACE)
    assert any("no way back" in reason for reason in proposal(found, Way.IN_PLACE).why_not)


def test_what_cannot_be_read_has_to_be_confirmed() -> None:
    found = asked(replace(QUIET, quarantined=7))
    assert "--quarantine-limit 7" in commands(found, Way.IN_PLACE)
    for each in found.strategies:
        codes = {risk.code for risk in each.risks}
        assert codes & {"QUARANTINED", "LEFT_BEHIND"}
        assert any("7 objects" in line for line in each.confirm)


def test_an_answer_that_the_bucket_contradicts_counts_and_is_told() -> None:
    found = asked(LIVE, old_writers=False, shared=False)
    assert [warning.code for warning in found.warnings] == ["ANSWER_CONTRADICTED"]
    assert "3 s ago" in found.warnings[0].message
    assert found.advised is Way.BACKUP_RESTORE
    said = next(answer for answer in found.answers if "Brainy processes" in answer.question)
    assert (said.answer, said.by) == ("no", "operator")


def test_what_nobody_says_takes_the_careful_answer() -> None:
    by = {answer.question: (answer.answer, answer.by) for answer in asked(SURVEYED).answers}
    assert set(by.values()) == {
        ("yes", "assumed"),
        ("not at all", "assumed"),
        ("yes", "bucket"),
        ("no", "assumed"),
    }


def test_what_to_look_at_first() -> None:
    found = asked(replace(SERVED, endangered=5, rescuable=3, migration="m-1"))
    assert {each.code for each in found.warnings} == {"MIGRATION_RUNS", "WRONG_DIMENSIONS_AT_RISK", "RESCUABLE"}
    assert [each.code for each in asked(SURVEYED).warnings] == ["NOT_COUNTED"]


def test_figures_are_put_together_from_the_prediction() -> None:
    found = asked(QUIET, shared=True, rollback=False)
    in_place = proposal(found, Way.IN_PLACE).figures
    assert in_place.calls is not None
    # Serving reads what there is, and filling once more.
    assert in_place.calls.get == 2 * OUTLAY.get_calls
    assert in_place.calls.partial_get == 2 * OUTLAY.partial_get_calls
    assert (in_place.calls.list, in_place.calls.put) == (2 * OUTLAY.list_calls, OUTLAY.put_calls)
    assert in_place.bucket_bytes == OUTLAY.bucket_bytes
    assert in_place.request_cost == pytest.approx(2 * OUTLAY.request_cost, rel=0.05)
    # Measured: 29 s to serve it and 25 s to upgrade it, on two cores for three nodes, client and server.
    assert in_place.duration_seconds == pytest.approx(54, rel=0.6)
    assert (in_place.write_pause_seconds, in_place.write_pause_cap_seconds) == (0.1, 3.0)

    rolling = proposal(found, Way.ROLLING).figures
    assert rolling.duration_seconds == pytest.approx((in_place.duration_seconds or 0) + 6)
    assert rolling.calls == in_place.calls

    backup = proposal(found, Way.BACKUP_RESTORE).figures
    assert backup.calls is not None
    assert backup.calls.get == OUTLAY.get_calls
    assert backup.calls.put < 100
    assert backup.write_pause_seconds == 0
    vectors = 4 * 64 * 10_000
    assert backup.bucket_bytes is not None
    assert vectors < backup.bucket_bytes < 3 * vectors

    served = proposal(asked(SERVED, old_writers=False, rollback=False), Way.IN_PLACE).figures
    assert served.calls is not None
    assert served.calls.get == OUTLAY.get_calls


def test_following_takes_room_twice_and_reads_the_tree_once() -> None:
    followed = proposal(asked(LIVE, rollback=False), Way.IN_PLACE).figures
    assert followed.calls is not None
    assert followed.bucket_bytes == 2 * OUTLAY.bucket_bytes
    assert followed.calls.get < 1.1 * OUTLAY.get_calls


def test_a_way_back_costs_a_backup_before() -> None:
    without, with_it = (
        proposal(asked(QUIET, shared=True, rollback=wanted), Way.IN_PLACE).figures for wanted in (False, True)
    )
    assert with_it.calls is not None
    assert without.calls is not None
    assert with_it.calls.get == without.calls.get + OUTLAY.get_calls
    assert (with_it.disk_bytes or 0) > (without.disk_bytes or 0)
    assert with_it.bucket_bytes == without.bucket_bytes


def test_who_stands_still_and_for_how_long() -> None:
    found = asked(LIVE, separate_nodes=True)
    pause = {each.strategy: each.figures.write_pause_seconds for each in found.strategies}
    duration = {each.strategy: each.figures.duration_seconds for each in found.strategies}
    assert pause[Way.COORDINATED] == duration[Way.COORDINATED]
    assert pause[Way.BACKUP_RESTORE] == duration[Way.BACKUP_RESTORE]
    # A thousand texts in ten seconds.
    assert (duration[Way.SPARSE_IMPORT] or 0) > 100
    later = proposal(asked(GENERATION, separate_nodes=True, keep_source=True), Way.BLUE_GREEN).figures
    assert later.write_pause_seconds is not None
    assert later.duration_seconds is not None
    assert later.write_pause_seconds < later.duration_seconds / 2


def test_green_is_where_there_is_room_for_it() -> None:
    own = commands(asked(LIVE, shared=True, separate_nodes=True), Way.BLUE_GREEN)
    assert "add-nodes s3://bucket/app --nodes 3 --pool green" in own
    assert "migrate start s3://bucket/app --strategy blue-green --pool green" in own
    same = commands(asked(LIVE, shared=True), Way.BLUE_GREEN)
    assert "migrate start s3://bucket/app --strategy in-place-upgrade" in same
    away = asked(GENERATION, shared=True, separate_nodes=True, keep_source=True, downtime_seconds=60)
    assert "--since" in commands(away, Way.BLUE_GREEN)


def test_coordinated_says_that_the_writers_are_stopped() -> None:
    found = commands(asked(LIVE, shared=True, downtime_seconds=3600), Way.COORDINATED)
    assert "--strategy coordinated --writers-stopped" in found


def test_rates_and_prices_are_those_given() -> None:
    slow = advise(QUIET, Answers(), assumptions=replace(GIVEN, price_get=1), rates=Rates(indexed=1, embedded=1))
    assert (proposal(slow, Way.IN_PLACE).figures.duration_seconds or 0) > 2 * 10_000 / 3
    assert (proposal(slow, Way.SPARSE_IMPORT).figures.duration_seconds or 0) > 10_000
    assert (proposal(slow, Way.BACKUP_RESTORE).figures.request_cost or 0) == pytest.approx(22.084, rel=0.01)
    assert (slow.assumed.price_get, slow.assumed.indexed_per_second) == (1, 1)


def test_without_counts_there_are_no_figures() -> None:
    found = asked(SURVEYED)
    assert all(each.figures.duration_seconds is None for each in found.strategies)
    assert all(each.figures.calls is None for each in found.strategies)


def test_a_generation_is_read_from_its_manifests() -> None:
    def manifest(shard: int) -> Manifest:
        segment = StoredFile(key=f"n{shard}", size=3_000_000, sha256="0" * 64, rows=5_000)
        return Manifest(
            generation=1,
            shard=shard,
            epoch=1,
            nonce="n",
            position=1,
            nouns=(segment,),
            index=segment,
            quarantine=StoredFile(key="q", size=1, sha256="0" * 64, rows=2),
            noun_count=5_000,
            verb_count=100,
            indexed_count=5_000,
            digest="00",
        )

    cluster = ClusterFacts(
        routing=Routing(namespace="s3://bucket/app", epoch=3, nonce="n", leader_epoch=1, active=1, write=1),
        spec=Spec(generation=1, dimensions=128, shard_count=2, source="0"),
        choice=FollowChoice(),
        manifests=(manifest(0), manifest(1)),
    )
    facts = of_manifests("s3://bucket/app", cluster, GIVEN)
    assert (facts.state, facts.nouns, facts.verbs, facts.quarantined) == ("generation", 10_000, 200, 4)
    assert facts.outlay is not None
    assert facts.outlay.get_calls < 200
    assert 2 * 4 * 128 * 10_000 < facts.outlay.bucket_bytes < 20_000_000
    found = asked(facts)
    assert found.found.generation == 1
    assert "brainy up s3://bucket/app" not in commands(found, Way.IN_PLACE)
