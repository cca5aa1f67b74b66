"""The cheapest fleet for several models, each with a rate and a promise: what to buy, what runs where, and why.

:func:`plan` is what the command calls. Loads come from :mod:`~tritonkit.advisor.fleet_demand`, nodes from
:mod:`~tritonkit.advisor.fleet_nodes`, the choice from :mod:`~tritonkit.advisor.fleet_solve`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tritonkit import gpus
from tritonkit.advisor import fleet_bundles, fleet_solve
from tritonkit.advisor.fleet_bundles import Bundle
from tritonkit.advisor.fleet_demand import Fit, Language, Miss, Model, fits
from tritonkit.advisor.fleet_file import FleetFile
from tritonkit.advisor.fleet_nodes import Device, Node, devices, node
from tritonkit.advisor.fleet_solve import Mix
from tritonkit.errors import InputError


@dataclass(frozen=True)
class Plan:
    """What came of it.

    Attributes:
        models: That were to be served.
        mix: What to buy, and what runs on it; None where no mix carries the fleet.
        impossible: Why none does: which model, which bound, and by how much; empty where one does.
        reasons: Why this one, as sentences.
        notes: What holds for all of it.
    """

    models: tuple[Model, ...]
    mix: Mix | None
    impossible: tuple[str, ...]
    reasons: tuple[str, ...]
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """As ``--json`` prints it."""
        mix = self.mix
        return {
            "usd_per_hour": mix and round(mix.usd_per_hour, 4),
            "gap": mix and mix.gap,
            "nodes": [
                {"node": node.name, "gpu": node.gpu.key, "gpus_per_node": node.gpu_count, "count": count,
                 "usd_per_hour": round(node.usd_per_hour * count, 4)}
                for node, count in (mix.nodes if mix else ())
            ],
            "mig": {
                name: {"gpus": count, "layout": dict(layout)}
                for name, (layout, count) in (mix.cuts if mix else {}).items()
            },
            "pods": [
                {"node": pods.node.name, "gpu": pods.node.gpu.key, "profile": pods.bundle.device.profile,
                 "gpus_per_pod": pods.bundle.gpu_count, "count": pods.count, "busy": round(pods.busy, 4),
                 "memory_gib": round(pods.bundle.memory_gib, 3),
                 "models": [
                     {"model": fit.model, "engine": fit.engine, "precision": fit.precision,
                      "rps": round(pods.rps[fit.model], 3), "most_rps": round(fit.most_rps, 3)}
                     for fit in pods.bundle.fits
                 ]}
                for pods in (mix.pods if mix else ())
            ],
            "impossible": list(self.impossible), "reasons": list(self.reasons), "notes": list(self.notes),
        }  # fmt: skip


def nodes_of(fleet: FleetFile, names: Sequence[str] = (), prices: Mapping[str, float] | None = None) -> list[Node]:
    """The nodes that a fleet's file and the command line let choose from.

    Args:
        fleet: The file.
        names: Keys or families of GPUs that are considered instead of the file's.
        prices: US dollars an hour of one GPU, by key, before those of the catalogue.

    Raises:
        InputError: A GPU is not known, has no price, or one that cannot be.
    """
    own = prices or {}
    for key, usd in own.items():
        if not (math.isfinite(usd) and usd >= 0):
            raise InputError(f"the price of {key} is {usd:g}", "give US dollars an hour, 0 or more")
    if names:
        keys = dict.fromkeys(part.key for name in names for part in gpus.members(name))
    elif fleet.gpus or fleet.nodes:
        keys = dict.fromkeys(fleet.gpus)
    else:
        keys = dict.fromkeys(gpu.key for gpu in gpus.all() if gpu.key in own or gpus.price(gpu))
    nodes = [node(gpus.get(key), usd_per_gpu_hour=own.get(key)) for key in keys]
    for entry in () if names else fleet.nodes:
        gpu = gpus.get(entry.gpu)
        nodes.append(node(
            gpu, name=entry.name, gpu_count=entry.gpus, most=entry.most, usd_per_hour=entry.usd_per_hour,
            usd_per_gpu_hour=None if entry.usd_per_hour is not None else own.get(gpu.key),
        ))  # fmt: skip
    twice = [item.name for place, item in enumerate(nodes) if item.name in {other.name for other in nodes[:place]}]
    if twice:
        raise InputError(f"two kinds of node are called {twice[0]}", "give each a name: of its own, or leave one out")
    return nodes


def plan(models: Sequence[Model], nodes: Sequence[Node], *, utilization: float, spare: int) -> Plan:
    """Choose the cheapest mix.

    Args:
        models: What is served.
        nodes: To choose from.
        utilization: Largest share of a device's time that is planned with.
        spare: 1: with any one node gone the others keep every promise; 0: none is spare.
    """
    rates = {model.name: model.rps for model in models}
    counts = {node.gpu.key: max(other.gpu_count for other in nodes if other.gpu == node.gpu) for node in nodes}
    whole, misses = _fits(models, [devices(key)[0] for key in counts], counts, utilization)
    alone = fleet_bundles.bundles(whole, utilization, together=False)
    # Nodes that cost more than a mix that is known to do need no closer look.
    looked_at = fleet_bundles.affordable(rates, alone, nodes, spare)
    keys = {node.gpu.key for node in looked_at}
    cut, cut_misses = _fits(models, [part for key in keys for part in devices(key)[1:]], counts, utilization)
    choices = fleet_bundles.bundles([fit for fit in whole if fit.device.gpu.key in keys] + cut, utilization)
    notes = tuple(_notes(models, nodes))
    placed = {fit.model for bundle in choices for fit in bundle.fits}
    if unplaced := [model for model in models if model.name not in placed]:
        sentences = [_why_not(model, [*misses[model.name], *cut_misses[model.name]]) for model in unplaced]
        return Plan(tuple(models), None, tuple(sentences), (), notes)
    mix, short = fleet_solve.solve(rates, choices, looked_at, spare=spare)
    if mix is None:
        sentences = _too_few(rates, short, choices, looked_at, spare)
        return Plan(tuple(models), None, tuple(sentences), (), notes)
    return Plan(tuple(models), mix, (), tuple(_reasons(models, mix, spare)), notes)


def _fits(
    models: Sequence[Model], parts: Sequence[Device], counts: Mapping[str, int], utilization: float
) -> tuple[list[Fit], dict[str, list[Miss]]]:
    placed: list[Fit] = []
    misses: dict[str, list[Miss]] = {}
    for model in models:
        fitting, misses[model.name] = fits(model, parts, counts, utilization)
        placed += fitting
    return placed, misses


def _why_not(model: Model, misses: Sequence[Miss]) -> str:
    """The bound that is nearest to letting a model through, and by how much it misses."""
    promise = "" if isinstance(model, Language) or model.p99_ms is None else f" within {model.p99_ms:g} ms"
    nearest = [
        min((miss for miss in misses if miss.bound == bound), key=lambda miss: miss.missing)
        for bound in ("time", "memory", "precision")
        if any(miss.bound == bound for miss in misses)
    ]
    if not nearest:
        return f"{model.name}: no device keeps 99 %{promise} once requests wait for each other, though one alone would"
    listed = "; ".join(miss.sentence for miss in nearest)
    return f"{model.name} goes on none of the devices{promise}. Nearest: {listed}"


def _too_few(
    rates: Mapping[str, float], short: Mapping[str, float], choices: Sequence[Bundle], nodes: Sequence[Node], spare: int
) -> list[str]:
    """What the nodes that there are carry of each rate, and what more would do."""
    limits = ", ".join(f"{node.most} {node.name}" for node in nodes if node.most is not None)
    sentences = [
        f"{name}: {limits} carry {max(0.0, rates[name] - rps):,.0f} of {rates[name]:,.0f} requests a second, "
        f"{rps:,.0f} too few: the devices' time is the bound"
        for name, rps in short.items()
    ]
    if spare and (mix := fleet_solve.solve(rates, choices, nodes, spare=0)[0]):
        sentences.append(f"without a spare node they do, for ${mix.usd_per_hour:,.2f} an hour: spare_nodes: 0")
    unlimited = [replace(node, most=None) for node in nodes]
    if mix := fleet_solve.solve(rates, choices, unlimited, spare=spare)[0]:
        listed = " and ".join(f"{count} {node.name}" for node, count in mix.nodes)
        sentences.append(f"without limits, {listed} are the cheapest that do, for ${mix.usd_per_hour:,.2f} an hour")
    return sentences


def _reasons(models: Sequence[Model], mix: Mix, spare: int) -> list[str]:
    reasons = []
    for model in models:
        parts = [pods for pods in mix.pods if pods.rps.get(model.name, 0) > 0]
        for pods in parts:
            fit = next(fit for fit in pods.bundle.fits if fit.model == model.name)
            others = [other.model for other in pods.bundle.fits if other is not fit]
            beside = f", beside {' and '.join(others)}" if others else ""
            share = pods.rps[model.name] / fit.most_rps / pods.count
            reasons.append(
                f"{model.name}: {pods.rps[model.name]:,.6g} requests a second on {pods.count} x "
                f"{pods.bundle.device.name}{beside}: {share:.0%} of their time; {pods.bundle.share:.0%} may be planned"
                f"{_limit(model, pods.bundle)}"
            )
    if spare:
        reasons.append("with any one node gone, the pods that are left keep every promise, up to 95 % busy")
    reasons.append(
        f"a cheaper mix may exist, by {mix.gap:.1%} at most: HiGHS was stopped after its time" if mix.gap > 1e-3
        else "HiGHS proved that no mix of these nodes is cheaper"
    )  # fmt: skip
    return reasons


def _limit(model: Model, bundle: Bundle) -> str:
    """What keeps a device from being planned fuller."""
    if isinstance(model, Language) or model.p99_ms is None or bundle.share < bundle.share_without:
        return ""
    shares = "ms allow" if len(bundle.fits) == 1 else "ms and its neighbours' promises allow"
    return f", as its {model.p99_ms:g} {shares} no more"


def _notes(models: Sequence[Model], nodes: Sequence[Node]) -> list[str]:
    notes = ["times are predicted: docs/guides/advisor.md says how far off they were on rows that they never saw"]
    if any(isinstance(model, Language) for model in models):
        notes.append("a language model has its GPUs to itself, as vLLM takes their memory")
    if price := next((price for node in nodes if (price := gpus.price(node.gpu))), None):
        notes.append(f"prices: {price.source}; {price.dated}; --price GPU=USD gives your own")
    return notes
