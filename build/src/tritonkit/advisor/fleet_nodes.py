"""What a fleet is made of: nodes, their GPUs, and the MIG instances that a GPU can be cut into, with prices.

How much of a model a device carries is for :mod:`tritonkit.advisor.fleet_demand`.
"""

from __future__ import annotations

import functools
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace

from tritonkit import gpus
from tritonkit.errors import InputError
from tritonkit.gpus import Gpu

_WHOLE_SHARE = 0.92  # of device memory: the rest is the driver's, and fragments; as for a single model
# Of a MIG instance's part of the memory, nvidia-smi lists 0.914 (H100 NVL, 1g.12gb: 10.75 GiB), 0.909 (H200, 1g.18gb:
# 16.00 GiB) and 0.95 (A100 40 GB, 1g.5gb: 4.75 GiB).
_SLICE_SHARE = 0.90


@dataclass(frozen=True)
class Device:
    """What one pod is given: whole GPUs of one kind, or one MIG instance.

    Attributes:
        gpu: The figures that the pod sees: of a MIG instance, its part of the GPU's.
        profile: MIG profile, such as ``1g.10gb``; empty for whole GPUs.
        usable_gib: Memory that models can have on one of them, in GiB.
    """

    gpu: Gpu
    profile: str
    usable_gib: float

    @property
    def name(self) -> str:
        """``l4``, or ``h100-sxm 1g.10gb``."""
        return f"{self.gpu.key} {self.profile}".strip()


@dataclass(frozen=True)
class Node:
    """One kind of node.

    Attributes:
        name: Its instance type; the GPU's key where the price is the user's and no type is known.
        gpu: Its GPUs.
        gpu_count: How many it has.
        usd_per_hour: US dollars an hour for all of it.
        most: How many of it there can be; None: any number.
    """

    name: str
    gpu: Gpu
    gpu_count: int
    usd_per_hour: float
    most: int | None = None


def node(
    gpu: Gpu, *, name: str | None = None, gpu_count: int | None = None, usd_per_hour: float | None = None,
    usd_per_gpu_hour: float | None = None, most: int | None = None,
) -> Node:  # fmt: skip
    """A node with what is not given from the catalogue's instance for that GPU.

    Args:
        gpu: Its GPUs.
        name: Its instance type.
        gpu_count: GPUs of a node.
        usd_per_hour: Of a whole node.
        usd_per_gpu_hour: Of one GPU; instead of ``usd_per_hour``.
        most: How many of it there can be.

    Raises:
        InputError: The catalogue has no price for the GPU, and none was given.
    """
    listed = gpus.price(gpu)
    count = gpu_count or (listed.gpu_count if listed else 1)
    if name is None:
        name = listed.instance if listed and count == listed.gpu_count else gpu.key
    if usd_per_hour is not None:
        return Node(name, gpu, count, usd_per_hour, most)
    each = usd_per_gpu_hour if usd_per_gpu_hour is not None else listed.usd_per_hour if listed else None
    if each is None:
        raise InputError(
            f"there is no price for {gpu.key} here",
            f"say one: usd_per_hour of a node, or --price {gpu.key}=USD of an hour of one GPU",
        )
    return Node(name, gpu, count, each * count, most)


@functools.cache
def devices(gpu_key: str) -> tuple[Device, ...]:
    """What pods can get of a GPU: itself, and each MIG profile but the one that is all of it."""
    gpu = gpus.get(gpu_key)
    whole = Device(gpu, "", gpu.memory_gib * _WHOLE_SHARE)
    return (whole, *(_slice(gpu, profile) for profile in gpu.mig if _units(gpu, profile) < _all_units(gpu)))


@functools.cache
def layouts(gpu_key: str) -> tuple[Mapping[str, int], ...]:
    """The ways to cut a GPU, as MIG profile to number of instances; those that leave room for one more are left out.

    NVIDIA's placements: an instance begins at a multiple of its memory, in eighths (quarters of a GPU with four
    slices), and a profile that fits ``n`` times alone begins at the first ``n`` of them.
    """
    gpu = gpus.get(gpu_key)
    layouts_seen: set[tuple[tuple[str, int], ...]] = set()

    def place(at: int, placed: tuple[str, ...]) -> None:
        if at >= _all_units(gpu):
            layouts_seen.add(tuple(sorted(Counter(placed).items())))
            return
        for profile, count in gpu.mig.items():
            units = _units(gpu, profile)
            if units < _all_units(gpu) and at % units == 0 and at // units < count:
                place(at + units, (*placed, profile))
        place(at + 1, placed)

    place(0, ())
    mixes = [dict(layout) for layout in layouts_seen if layout]
    return tuple(mix for mix in mixes if not any(_holds(other, mix) for other in mixes if other != mix))


def _holds(larger: Mapping[str, int], smaller: Mapping[str, int]) -> bool:
    return all(larger.get(profile, 0) >= count for profile, count in smaller.items())


def _slice(gpu: Gpu, profile: str) -> Device:
    part = _units(gpu, profile) / _all_units(gpu)
    sms = gpu.mig_sms * _compute_slices(profile)
    cut = replace(
        gpu, sms=sms, bandwidth_gbs=gpu.bandwidth_gbs * part, l2_mib=gpu.l2_mib * part, nvlink_gbs=0,
        peaks={precision: peak * sms / gpu.sms for precision, peak in gpu.peaks.items()},
    )  # fmt: skip
    return Device(cut, profile, gpu.memory_gib * part * _SLICE_SHARE)


def _all_units(gpu: Gpu) -> int:
    """Parts that MIG hands a GPU's memory out in: 8 with seven compute slices, 4 with four."""
    return 8 if max(map(_compute_slices, gpu.mig), default=0) == 7 else 4


def _units(gpu: Gpu, profile: str) -> int:
    gib = int(re.sub(r".*\.|gb.*", "", profile))
    return max(1, round(_all_units(gpu) * gib / gpu.memory_gib))


def _compute_slices(profile: str) -> int:
    return int(profile.partition("g.")[0])
