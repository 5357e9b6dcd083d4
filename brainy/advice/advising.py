"""Advice: seven strategies weighed, ranked, and the one to take. Pure."""

from __future__ import annotations

from brainy.advice.drafts import Draft, Setting
from brainy.advice.facts import Facts
from brainy.advice.figures import Predictor, Rates
from brainy.advice.graph import Walk, walk
from brainy.advice.situation import Situation, settle
from brainy.advice.strategies import STRATEGIES
from brainy.advice.values import Advice, Answers, Assumed, Found, Proposal, Risk, Way
from brainy.legacy.outlay import Assumptions
from brainy.legacy.wording import many

_RUNBOOKS = "docs/runbooks/"


def advise(
    facts: Facts, said: Answers, *, assumptions: Assumptions | None = None, rates: Rates | None = None
) -> Advice:
    """Weigh all strategies for a namespace, and say which to take.

    ``assumptions`` must be those that ``facts.outlay`` was predicted from.
    """
    given, rates = assumptions or Assumptions(), rates or Rates()
    at = settle(facts, said)
    predict = Predictor(at, given, rates)
    way = walk(at, window_seconds=predict.coordinated().write_pause_seconds, nodes=given.nodes)
    setting = Setting(at=at, predict=predict, nodes=given.nodes, shards=given.shards)
    drafts = [weigh(setting) for weigh in STRATEGIES.values()]
    if facts.unsupported_trees:
        for draft in drafts:
            draft.blockers.insert(0, f"a tree cannot be read by this version: {', '.join(facts.unsupported_trees)}")
    ranked = sorted(drafts, key=lambda draft: _key(draft, way))
    advised = ranked[0].strategy if not ranked[0].blockers else None
    return Advice(
        namespace=facts.namespace,
        found=Found(
            state=facts.state,
            basis=facts.basis,
            trees=facts.trees,
            nouns=facts.nouns,
            verbs=facts.verbs,
            dimensions=facts.dimensions,
            quarantined=facts.quarantined,
            generation=facts.generation,
            following=facts.following,
            mirroring=facts.mirroring,
        ),
        answers=at.answers,
        path=way.path,
        guide=way.guide,
        advised=advised,
        reason=_reason(advised, way, ranked),
        strategies=tuple(_proposal(draft, rank) for rank, draft in enumerate(ranked, 1)),
        warnings=tuple(_warnings(at)),
        assumed=Assumed(
            nodes=given.nodes,
            shards=given.shards,
            gets_per_second=given.gets_per_second,
            indexed_per_second=rates.indexed,
            restored_per_second=rates.restored,
            embedded_per_second=rates.embedded,
            price_get=given.price_get,
            price_put=given.price_put,
            price_storage=given.price_storage,
        ),
    )


def _key(draft: Draft, way: Walk) -> tuple[bool, int, int]:
    wanted = way.preferred.index(draft.strategy) if draft.strategy in way.preferred else len(way.preferred)
    return bool(draft.blockers), wanted, len(draft.drawbacks)


def _proposal(draft: Draft, rank: int) -> Proposal:
    return Proposal(
        strategy=draft.strategy,
        rank=rank,
        fits=not draft.blockers,
        engine=draft.engine,
        why=tuple(draft.why),
        why_not=(*draft.blockers, *draft.drawbacks),
        steps=tuple(draft.steps),
        figures=draft.figures,
        way_back=draft.way_back,
        risks=tuple(draft.risks),
        confirm=tuple(dict.fromkeys(draft.confirm)),
        runbook=f"{_RUNBOOKS}{draft.strategy}.md",
    )


def _reason(advised: Way | None, way: Walk, ranked: list[Draft]) -> str:
    first = ranked[0]
    if advised is None:
        return f"everything is ruled out; the next best, {first.strategy}, because {first.blockers[0]}"
    if way.guide is None:
        return "the namespace is empty: what comes into it is all there is to decide"
    if advised is way.guide:
        return f"the decision graph leads there, and nothing rules it out: {first.why[0]}"
    guides = next(draft for draft in ranked if draft.strategy is way.guide)
    if guides.blockers:
        return f"the decision graph leads to {way.guide}, but {guides.blockers[0]}; {first.why[0]}"
    return f"the guide's three questions lead to {way.guide}; what it does not ask leads here: {first.why[0]}"


def _warnings(at: Situation) -> list[Risk]:
    facts = at.facts
    found = list(at.contradictions)
    if facts.migration is not None:
        found.append(Risk(code="MIGRATION_RUNS", message=f"{facts.migration}: brainy migrate show {facts.migration}"))
    if facts.endangered:
        message = f"let no other Brainy open the bucket: it deletes up to {many(facts.endangered, 'noun')}"
        found.append(Risk(code="WRONG_DIMENSIONS_AT_RISK", message=message))
    if facts.rescuable:
        message = f"{many(facts.rescuable, 'noun')} that are gone can be had back: brainy rescue {facts.namespace}"
        found.append(Risk(code="RESCUABLE", message=message))
    if facts.state == "brainy" and facts.basis == "survey":
        message = "only a sample was looked at: what could not be read, who writes, and all figures are unknown"
        found.append(Risk(code="NOT_COUNTED", message=message))
    return found
