"""The cheapest mix of nodes for models that share them: a mixed-integer program, solved by HiGHS.

A pod serves a bundle of models on one device. What is to be chosen: nodes of each kind, how MIG cuts their GPUs, and
pods of each bundle with their part of its models' requests.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from tritonkit.advisor.fleet_bundles import Bundle
from tritonkit.advisor.fleet_nodes import Node, layouts
from tritonkit.errors import MissingError

_SECONDS = 30.0  # of HiGHS; what it has then is said with how far it may be from the cheapest
_TOGETHER = (2, 3, 4, 6, 8, 12, 20)  # nodes over which pods are spread, of which one may fail
_MOST_NODES = 100_000
_GAP = 1e-4  # of the price, up to which HiGHS looks for a cheaper mix
_NOTHING = 1e-6  # of a rate: rounding; dollars of a node that costs nothing, so that no more are taken than needed


@dataclass(frozen=True)
class Pods:
    """Pods of one bundle on one kind of node.

    Attributes:
        node: Where they run.
        bundle: What each serves.
        count: How many there are.
        part: Of its models' requests, what they get.
        rps: The same as requests a second of each model.
    """

    node: Node
    bundle: Bundle
    count: int
    part: float
    rps: Mapping[str, float]

    @property
    def busy(self) -> float:
        """Share of their devices' time."""
        return sum(self.rps[fit.model] / fit.most_rps for fit in self.bundle.fits) / self.count


@dataclass(frozen=True)
class Mix:
    """What HiGHS chose.

    Attributes:
        nodes: Each kind with how many of it.
        cuts: Kind of node to the MIG layout of its cut GPUs, and how many of them are cut.
        pods: What runs on them.
        gap: How much of the price a cheaper mix could still save, at most; 0 where none is cheaper.
    """

    nodes: tuple[tuple[Node, int], ...]
    cuts: Mapping[str, tuple[Mapping[str, int], int]]
    pods: tuple[Pods, ...]
    gap: float

    @property
    def usd_per_hour(self) -> float:
        """US dollars an hour of all nodes."""
        return sum(node.usd_per_hour * count for node, count in self.nodes)


def solve(
    rates: Mapping[str, float], choices: Sequence[Bundle], nodes: Sequence[Node], *, spare: int
) -> tuple[Mix | None, Mapping[str, float]]:
    """The cheapest mix, or how much of each model's rate no mix of these nodes carries.

    Args:
        rates: Model to its requests a second.
        choices: Bundles, of which each model has one at least.
        nodes: Kinds of nodes.
        spare: 1: with any one node gone the others carry every rate; 0: all nodes are there.

    Raises:
        MissingError: SciPy, which brings HiGHS, is not installed.
    """
    program = _Program(rates, choices, nodes, spare)
    if not program.minimize(program.price):
        program = _Program(rates, choices, nodes, spare, elastic=True)
        return None, program.missing() if program.minimize(program.shortage) else dict(rates)
    mix = program.mix()
    # Of all that cost the same, the one with the fewest variants and pods.
    program.keep_nodes(mix.nodes)
    if program.minimize(program.size):
        mix = replace(program.mix(), gap=mix.gap)
    return mix, {}


class _Program:
    """The program, row by row; variables are known by their numbers.

    Each model is in one set of models, so that its callers ask one Service; a set may run on several kinds of devices,
    each with its part of all the set's requests.
    """

    def __init__(
        self, rates: Mapping[str, float], choices: Sequence[Bundle], nodes: Sequence[Node], spare: int, *,
        elastic: bool = False,
    ) -> None:  # fmt: skip
        self._whole: list[int] = []
        self._upper: list[float] = []
        self._rows: list[tuple[dict[int, float], float]] = []  # each at least its number
        self._rates, self._spare = rates, spare
        self.price: dict[int, float] = {}
        self.size: dict[int, float] = {}
        self.shortage: dict[int, float] = {}
        self._cuts: dict[Node, list[tuple[Mapping[str, int], int]]] = {}
        self._pods: list[tuple[Node, Bundle, int, int]] = []  # with the number of pods, and the part of the requests
        self._values: Sequence[float] = ()
        self._gap = 0.0
        self._sets = {
            models: self._variable(whole=True, upper=1) for models in dict.fromkeys(bundle.models for bundle in choices)
        }
        for model in rates:
            terms = {place: 1.0 for models, place in self._sets.items() if model in models}
            self._at_least(terms, 1)
            self._at_least(dict.fromkeys(terms, -1.0), -1)
        self._nodes = {node: self._variable(whole=True, upper=_most(node)) for node in nodes}
        self.price = {place: node.usd_per_hour + _NOTHING for node, place in self._nodes.items()}
        for node in nodes:
            own = [
                bundle
                for bundle in choices
                if bundle.device.gpu.key == node.gpu.key and bundle.gpu_count <= node.gpu_count
            ]
            self._add_node(node, own)
        for models, place in self._sets.items():
            parts = {part: 1.0 for _, bundle, _, part in self._pods if bundle.models == models}
            if elastic:
                short = self._variable()
                parts[short] = 1.0
                self.shortage[short] = float(len(models))
            self._at_least(parts | {place: -1.0}, 0)
            self._at_least(dict.fromkeys(parts, -1.0) | {place: 1.0}, 0)

    def minimize(self, costs: Mapping[int, float]) -> bool:
        """Solve for the least of the costs of variables; whether there is a solution.

        Raises:
            MissingError: SciPy is not installed.
        """
        try:
            from scipy.optimize import Bounds, LinearConstraint, milp
            from scipy.sparse import coo_array
        except ModuleNotFoundError as error:
            raise MissingError(
                "scipy, whose HiGHS chooses the nodes, is not installed", "pip install 'tritonkit[advisor]'"
            ) from error
        entries = [(row, place, value) for row, (terms, _) in enumerate(self._rows) for place, value in terms.items()]
        rows, places, values = (np.array(column) for column in zip(*entries, strict=True))
        matrix = coo_array((values, (rows, places)), shape=(len(self._rows), len(self._whole))).tocsr()
        objective = np.zeros(len(self._whole))
        objective[list(costs)] = list(costs.values())
        solved = milp(
            objective, integrality=np.array(self._whole), bounds=Bounds(0, np.array(self._upper)),
            constraints=LinearConstraint(matrix, lb=np.array([least for _, least in self._rows])),
            options={"time_limit": _SECONDS, "mip_rel_gap": _GAP},
        )  # fmt: skip
        if solved.x is None:
            return False
        self._values, self._gap = solved.x, float(solved.mip_gap or 0.0)
        return True

    def keep_nodes(self, nodes: Sequence[tuple[Node, int]]) -> None:
        """From now on, so many nodes and no others."""
        counts = dict(nodes)
        for node, place in self._nodes.items():
            self._upper[place] = counts.get(node, 0)

    def mix(self) -> Mix:
        """What was solved."""
        bought = [(node, round(self._values[place])) for node, place in self._nodes.items()]
        pods = [
            Pods(node, bundle, round(self._values[count]), float(self._values[part]), {
                fit.model: float(self._values[part]) * self._rates[fit.model] for fit in bundle.fits
            })
            for node, bundle, count, part in self._pods
            if round(self._values[count]) and self._values[part] > _NOTHING
        ]  # fmt: skip
        cuts = {
            node.name: (layout, round(self._values[place]))
            for node, cuts_of_node in self._cuts.items()
            for layout, place in cuts_of_node
            if round(self._values[place])
        }
        return Mix(tuple((node, count) for node, count in bought if count), cuts, tuple(pods), self._gap)

    def missing(self) -> Mapping[str, float]:
        """Model to the requests a second that these nodes cannot carry, where that is more than nothing."""
        served = dict.fromkeys(self._rates, 0.0)
        for _, bundle, _, part in self._pods:
            for fit in bundle.fits:
                served[fit.model] += float(self._values[part]) * self._rates[fit.model]
        short = {model: rate - served[model] for model, rate in self._rates.items()}
        return {model: rps for model, rps in short.items() if rps > _NOTHING * self._rates[model]}

    def _add_node(self, node: Node, choices: Sequence[Bundle]) -> None:
        """The pods of a kind of node, and what its GPUs have room for."""
        whole = [bundle for bundle in choices if not bundle.device.profile]
        cut = [bundle for bundle in choices if bundle.device.profile]
        room = {self._nodes[node]: float(node.gpu_count)}
        spread = self._spread(node, {self._nodes[node]: 1.0})
        for bundle in whole:
            room[self._add_pods(node, bundle, node.gpu_count // bundle.gpu_count, spread)] = -float(bundle.gpu_count)
        if cut:
            pieces = self._add_cuts(node, sum(map(self._pods_alone, cut)))
            cuts = [place for _, place in self._cuts[node]]
            room |= dict.fromkeys(cuts, -1.0)
            cut_spread = self._spread(node, dict.fromkeys(cuts, 1.0))
            for bundle in cut:
                profile = bundle.device.profile
                each = node.gpu_count * max(layout.get(profile, 0) for layout in layouts(node.gpu.key))
                pieces[profile][self._add_pods(node, bundle, each, cut_spread)] = -1.0
            for terms in pieces.values():
                self._at_least(terms, 0)
        self._at_least(room, 0)

    def _add_cuts(self, node: Node, most: int) -> dict[str, dict[int, float]]:
        """GPUs cut by MIG, all of one kind of node alike; profile to the terms of how many instances there are."""
        cuts = [
            (layout, self._variable(whole=True, upper=most), self._variable(whole=True, upper=1))
            for layout in layouts(node.gpu.key)
        ]
        self._at_least(dict.fromkeys((chosen for _, _, chosen in cuts), -1.0), -1)
        for _, place, chosen in cuts:
            self._at_least({chosen: float(most), place: -1.0}, 0)
            self.size[place] = 0.1
        self._cuts[node] = [(layout, place) for layout, place, _ in cuts]
        profiles = dict.fromkeys(profile for layout, _ in self._cuts[node] for profile in layout)
        return {
            profile: {place: float(layout[profile]) for layout, place in self._cuts[node] if profile in layout}
            for profile in profiles
        }

    def _time(self, bundle: Bundle) -> float:
        """Devices that all requests of a bundle's models would keep busy all the time."""
        return sum(self._rates[fit.model] / fit.most_rps for fit in bundle.fits)

    def _pods_alone(self, bundle: Bundle) -> int:
        """Pods with which a bundle carries all of its models' rates, and a failing node's besides."""
        return math.ceil(self._time(bundle) / bundle.share) * (1 + self._spare) + 1

    def _add_pods(self, node: Node, bundle: Bundle, on_a_node: int, spread: Mapping[int, int]) -> int:
        """The number of a bundle's pods, with the part of its models' requests that they get.

        Args:
            node: Where they run.
            bundle: What they serve.
            on_a_node: The most of them that one node has room for.
            spread: So many nodes to whether pods are spread over them.
        """
        most, time = self._pods_alone(bundle), self._time(bundle)
        count = self._variable(whole=True, upper=most)
        used = self._variable(whole=True, upper=1)
        part = self._variable(upper=1)
        self.size |= {used: 1.0, count: 0.1}
        self._pods.append((node, bundle, count, part))
        self._at_least({self._sets[bundle.models]: 1.0, used: -1.0}, 0)
        self._at_least({used: 1.0, part: -1.0}, 0)
        self._at_least({used: float(most), count: -1.0}, 0)
        self._at_least({count: bundle.share, part: -time}, 0)
        if self._spare and on_a_node == 1:
            self._at_least({count: bundle.share_without, used: -bundle.share_without, part: -time}, 0)
        elif self._spare:
            lost = self._variable(whole=True, upper=most)
            self._at_least({count: bundle.share_without, lost: -bundle.share_without, part: -time}, 0)
            self._at_least(dict.fromkeys(spread.values(), 1.0) | {used: -1.0}, 0)
            for nodes, apart in spread.items():
                self._at_least({lost: 1.0, count: -1 / nodes, apart: -float(most)}, -float(most))
        return count

    def _spread(self, node: Node, among: Mapping[int, float]) -> dict[int, int]:
        """Numbers of nodes to a variable: 1 where there are so many of them, over which pods can be spread."""
        if not self._spare:
            return {}
        apart = {nodes: self._variable(whole=True, upper=1) for nodes in _TOGETHER}
        for nodes, chosen in apart.items():
            self._at_least({**among, chosen: -float(nodes)}, 0)
            self._at_least({self._nodes[node]: 1.0, chosen: -float(nodes)}, 0)
        self._at_least(dict.fromkeys(apart.values(), -1.0), -1)
        return apart

    def _variable(self, *, whole: bool = False, upper: float = 1.0) -> int:
        self._whole.append(int(whole))
        self._upper.append(upper)
        return len(self._whole) - 1

    def _at_least(self, terms: Mapping[int, float], least: float) -> None:
        self._rows.append((dict(terms), least))


def _most(node: Node) -> int:
    return _MOST_NODES if node.most is None else node.most
