"""``create_quick_brainy``: ``create_auto_brainy`` with the sizes of a scenario filled in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias, Unpack, cast

from brainy.errors import InvalidRequestError
from brainy.sdk.auto import AutoOptions, create_auto_brainy_async
from brainy.sdk.client import AsyncBrainy
from brainy.sdk.loop_thread import LOOP
from brainy.sdk.machine import Machine
from brainy.sdk.sync import Brainy

Scenario: TypeAlias = Literal["small", "medium", "large", "enterprise"]

_GIB = 1 << 30
#: Of the machine's memory, what scenarios count as theirs.
_AVAILABLE = 0.7
_PLACES = ("bucket_name", "s3_config", "endpoints", "coordinators")


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """What a scenario stands for."""

    #: Nouns.
    expected_dataset_size: int
    #: At most this share of the memory counted as available, and at most so many bytes.
    memory_share: float
    memory_limit: int
    #: Milliseconds.
    target_search_latency: float
    #: Whether it needs a place that was chosen: so many nouns do not go to a directory nobody named.
    needs_place: bool = False


#: The scenarios of Brainy's ``createQuickBrainy``.
PRESETS: Mapping[Scenario, Preset] = {
    "small": Preset(expected_dataset_size=10_000, memory_share=0.3, memory_limit=1 * _GIB, target_search_latency=100.0),
    "medium": Preset(
        expected_dataset_size=100_000, memory_share=0.5, memory_limit=4 * _GIB, target_search_latency=150.0
    ),
    "large": Preset(
        expected_dataset_size=1_000_000,
        memory_share=0.7,
        memory_limit=8 * _GIB,
        target_search_latency=200.0,
        needs_place=True,
    ),
    "enterprise": Preset(
        expected_dataset_size=10_000_000,
        memory_share=0.8,
        memory_limit=32 * _GIB,
        target_search_latency=300.0,
        needs_place=True,
    ),
}


def create_quick_brainy(scenario: Scenario, namespace: str | None = None, **options: Unpack[AutoOptions]) -> Brainy:
    """Return a client as ``create_auto_brainy`` does, with a scenario's sizes for what is not given.

    ==========  =====================  =====================  ==============
    scenario    expected_dataset_size  max_memory_usage       target latency
    ==========  =====================  =====================  ==============
    small       10,000                 30 %, at most 1 GiB    100 ms
    medium      100,000                50 %, at most 4 GiB    150 ms
    large       1,000,000              70 %, at most 8 GiB    200 ms
    enterprise  10,000,000             80 %, at most 32 GiB   300 ms
    ==========  =====================  =====================  ==============

    Shares are of 70 % of the machine's memory. Each scenario sets ``auto_configure_environment``. Options that are
    given win.

    Raises:
        InvalidRequestError: no such scenario; or large or enterprise without a namespace, bucket or address.
    """
    return Brainy(LOOP.run(create_quick_brainy_async(scenario, namespace, **options)))


async def create_quick_brainy_async(
    scenario: Scenario, namespace: str | None = None, **options: Unpack[AutoOptions]
) -> AsyncBrainy:
    """Return an asynchronous client; otherwise as ``create_quick_brainy``."""
    preset = PRESETS.get(scenario)
    if preset is None:
        raise InvalidRequestError("no such scenario", remedy=f"use one of {', '.join(PRESETS)}", scenario=scenario)
    if preset.needs_place and not namespace and not any(options.get(name) for name in _PLACES):
        raise InvalidRequestError(
            "this scenario needs a place of your choice",
            remedy="give bucket_name, s3_config, a namespace, or the address of a cluster",
            scenario=scenario,
        )
    if any(options.get(name) for name in ("endpoints", "coordinators")):
        # A cluster elsewhere has its size; to warn that a preset's was ignored would be noise.
        return await create_auto_brainy_async(namespace, **options)
    filled = cast(AutoOptions, {**_options(preset, Machine.here()), **options})
    return await create_auto_brainy_async(namespace, **filled)


def _options(preset: Preset, machine: Machine) -> AutoOptions:
    share = int(preset.memory_share * _AVAILABLE * machine.memory_bytes)
    return {
        "expected_dataset_size": preset.expected_dataset_size,
        "max_memory_usage": min(share, preset.memory_limit),
        "target_search_latency": preset.target_search_latency,
        "auto_configure_environment": True,
    }
