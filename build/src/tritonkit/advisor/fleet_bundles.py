"""Which models of a fleet may share a pod, and how full its device may be then.

What each takes alone is for :mod:`~tritonkit.advisor.fleet_demand`; which are chosen for
:mod:`~tritonkit.advisor.fleet_solve`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from tritonkit.advisor import queueing
from tritonkit.advisor.fleet_demand import Fit
from tritonkit.advisor.fleet_nodes import Device, Node

_ALL_SUBSETS = 6  # models up to which every subset is a bundle; of more, pairs, and the rest by what they take
_ROUNDING = 1e-4


@dataclass(frozen=True)
class Bundle:
    """Models that one pod serves together.

    Attributes:
        fits: Each of them on the pod's device.
        share: Largest share of the device's time that is planned with.
        share_without: The same while a node is away.
    """

    fits: tuple[Fit, ...]
    share: float
    share_without: float

    @property
    def models(self) -> frozenset[str]:
        """Names of the models."""
        return frozenset(fit.model for fit in self.fits)

    @property
    def device(self) -> Device:
        """What a pod gets."""
        return self.fits[0].device

    @property
    def gpu_count(self) -> int:
        """GPUs of a pod."""
        return self.fits[0].gpu_count

    @property
    def memory_gib(self) -> float:
        """What the models take of each GPU."""
        return sum(fit.memory_gib for fit in self.fits)


def bundles(fits: Sequence[Fit], utilization: float, *, together: bool = True) -> list[Bundle]:
    """Every set of models that has room on a device and keeps its promises there together.

    Two models on one device wait for each other: the planned share of the time is all models' together, and each
    request may find the longest batch of another model before it.

    Args:
        fits: Of all models, alone.
        utilization: Largest share of the time that is planned with.
        together: Whether models may share a device.
    """
    candidates = [_together((fit,), utilization) for fit in fits]
    shared = [fit for fit in fits if fit.service is not None] if together else []
    for _, group in itertools.groupby(sorted(shared, key=_place), key=_place):
        for several in _subsets(list(group)):
            if sum(fit.memory_gib for fit in several) <= several[0].device.usable_gib:
                candidates.append(_together(several, utilization))
    return [bundle for bundle in candidates if bundle.share > 0]


def _place(fit: Fit) -> tuple[str, str]:
    return fit.device.name, fit.engine


def _subsets(fits: Sequence[Fit]) -> Iterable[tuple[Fit, ...]]:
    if len(fits) <= _ALL_SUBSETS:
        for size in range(2, len(fits) + 1):
            yield from itertools.combinations(fits, size)
        return
    yield from itertools.combinations(fits, 2)
    by_memory = sorted(fits, key=lambda fit: fit.memory_gib)
    yield from (tuple(by_memory[:size]) for size in range(3, len(fits) + 1))


def _together(fits: tuple[Fit, ...], utilization: float) -> Bundle:
    def others_ms(fit: Fit) -> float:
        return max((other.batch_ms for other in fits if other is not fit), default=0.0)

    kept = min(fit.share(others_ms(fit)) for fit in fits)
    if fits[0].service is None:  # a language model is planned for the rate that it keeps its promise at
        return Bundle(fits, utilization, 1.0)
    return Bundle(fits, min(utilization, kept), min(queueing.MOST_BUSY, kept))


def affordable(rates: Mapping[str, float], choices: Sequence[Bundle], nodes: Sequence[Node], spare: int) -> list[Node]:
    """Without the nodes of which the fewest that can be used cost more than a mix that is known to do.

    Args:
        rates: Model to its requests a second.
        choices: Bundles, of whole GPUs with one model at least.
        nodes: Kinds of nodes.
        spare: Nodes that may be away.
    """
    if any(node.most is not None for node in nodes):
        return list(nodes)
    total = 0.0
    for model, rate in rates.items():
        costs = [
            node.usd_per_hour * _nodes_alone(rate, bundle, node, spare)
            for bundle in choices
            for node in nodes
            if len(bundle.fits) == 1 and bundle.fits[0].model == model and not bundle.device.profile
            and bundle.device.gpu.key == node.gpu.key and bundle.gpu_count <= node.gpu_count
        ]  # fmt: skip
        total += min(costs, default=math.inf)
    return [node for node in nodes if node.usd_per_hour * (1 + spare) <= total * (1 + _ROUNDING)]


def _nodes_alone(rate: float, bundle: Bundle, node: Node, spare: int) -> int:
    """Nodes that certainly do for one model: those without a failure, and as many more as may fail."""
    pods = math.ceil(rate / bundle.fits[0].most_rps / bundle.share - 1e-9)
    return math.ceil(pods * bundle.gpu_count / node.gpu_count) + spare
