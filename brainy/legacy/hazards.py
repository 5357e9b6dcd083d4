"""What endangers a bucket or is about to be lost: advice to act upon. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from brainy.legacy.census import Advice, Inspection
from brainy.legacy.versions import overlap
from brainy.legacy.wording import advice, many, span

#: Something wrote this recently: it may still be at work.
LIVE_SECONDS = 300.0


def readability(found: Inspection) -> Iterator[Advice]:
    """What cannot be read."""
    if found.unsupported_trees:
        yield advice(
            "UNSUPPORTED_TREE",
            "critical",
            f"the bucket holds a tree that cannot be read: {', '.join(found.unsupported_trees)}",
            "upgrade this program; nothing of that tree was counted",
            len(found.unsupported_trees),
        )
    unfit = found.quarantined_count - found.zombie_nouns - found.zombie_verbs
    if unfit:
        reasons = ", ".join(f"{name} {count:,}" for name, count in list(found.quarantined_by_reason.items())[:3])
        yield advice(
            "QUARANTINED",
            "warning",
            f"{many(unfit, 'object')} cannot be read as items ({reasons})",
            "look at them with brainy quarantine; a migration goes on past them only within its quarantine limit",
            unfit,
        )


def dangers(found: Inspection) -> Iterator[Advice]:
    """What another Brainy, or a migration, does to vectors of unequal lengths."""
    at_risk = [risk for risk in found.dimension_risks if risk.nouns]
    if at_risk:
        worst = max(at_risk, key=lambda risk: (overlap(risk, found.versions), risk.nouns))
        texts = [
            f"Brainy {risk.oldest} to {risk.newest} keeps length {risk.expects} and deletes {risk.nouns:,}"
            for risk in at_risk
        ]
        yield advice(
            "WRONG_DIMENSIONS_AT_RISK",
            "critical" if overlap(worst, found.versions) else "warning",
            f"opening the bucket deletes nouns of another vector length: {'; '.join(texts)}",
            "let no other Brainy open it, also not read-only; migrate from a copy or with read-only credentials",
            max(risk.nouns for risk in at_risk),
        )
    lengths = [length for length in found.dimensions if length]
    if len(lengths) > 1:
        common = max(lengths, key=lambda length: found.dimensions[length])
        others = sum(count for length, count in found.dimensions.items() if length != common)
        shown = ", ".join(f"{length} x {found.dimensions[length]:,}" for length in lengths[:5])
        yield advice(
            "MIXED_DIMENSIONS",
            "warning",
            f"vectors of several lengths: {shown}",
            f"a generation indexes one length ({common} is the most frequent); the others are kept and not indexed",
            others,
        )


def writers(found: Inspection) -> Iterator[Advice]:
    """Who may be writing now, and who no longer is."""
    live = [lock for lock in found.locks if not lock.stale]
    recent = found.last_write is not None and found.last_write.seconds_ago < LIVE_SECONDS
    if found.last_write is not None and recent:
        yield advice(
            "LIVE_WRITERS",
            "warning",
            f"something wrote {max(0.0, found.last_write.seconds_ago):,.0f} s ago: {found.last_write.key}",
            "stop the writers, or let the cluster follow the bucket while they go on; counts may be out of date",
            1,
        )
    if live:
        yield advice(
            "LIVE_LOCK",
            "warning",
            f"a Brainy process holds {live[0].key} ({live[0].holder})",
            "it is flushing statistics: wait, or follow the bucket",
            len(live),
        )
    stale = [lock for lock in found.locks if lock.stale]
    if stale:
        over = max((lock.expired_seconds or 0.0 for lock in stale), default=0.0)
        yield advice(
            "STALE_LOCK",
            "info",
            f"{many(len(stale), 'lock')} nobody holds any more, over by up to {span(over)}",
            "nothing to do: Brainy overwrites it; it is the rule after every run",
            len(stale),
        )


def losses(found: Inspection) -> Iterator[Advice]:
    """What is lost, and what of it can be had back."""
    sure, doubtful = found.rescuable_nouns or 0, found.rescuable_doubtful or 0
    if sure or doubtful:
        aside = f" ({doubtful:,} of them for a person to decide)" if doubtful else ""
        yield advice(
            "RESCUABLE",
            "warning" if sure else "info",
            f"{many(sure + doubtful, 'noun')} gone or unreadable, whose vectors the change log still has{aside}",
            "see what can be had back with brainy rescue, before anything prunes change-log/",
            sure + doubtful,
        )
    orphans = found.orphan_noun_metadata
    if orphans:
        yield advice(
            "ORPHAN_METADATA",
            "info",
            f"{many(orphans, 'metadata object')} with data whose noun is gone: Brainy deletes nouns of a wrong length "
            "and leaves their metadata",
            "see RESCUABLE; without vectors they can be embedded anew from their text",
            orphans,
        )
    zombies = found.zombie_nouns + found.zombie_verbs
    if zombies:
        yield advice(
            "ZOMBIES",
            "info",
            f"{many(zombies, 'item')} are stored although deleted: a flush came late, or the delete missed them",
            "they are set aside, not migrated; they stay where they are",
            zombies,
        )
    missing = (found.change_log.nouns_without_add or 0) + (found.change_log.verbs_without_add or 0)
    if missing and found.change_log.entries:
        yield advice(
            "LOSSY_CHANGE_LOG",
            "info",
            f"{missing:,} of {found.nouns + found.verbs:,} items have no add entry in the change log",
            "do not rebuild anything from the log alone; following uses it as a hint only",
            missing,
        )
