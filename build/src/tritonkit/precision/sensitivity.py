"""Which nodes lose most in 8 bits, and what accuracy costs: the curve from none of them quantized to all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from tritonkit.precision import metrics
from tritonkit.precision.search import Choice, Search, SearchResult

RANKED_BY = 8  # selection samples that single nodes are compared by
LEAST_SHARE = 0.25  # below this share of the work, 8 bits are not worth their casts: the gate may refuse the best then
SHARES = (0.1, 0.25, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0)


@dataclass(frozen=True)
class Node:
    """One compute node.

    Attributes:
        name: Its name in the graph.
        op: Its type.
        sqnr_db: Signal to noise ratio of the outputs when only this node is in 8 bits.
        share: Of the work of all nodes with constant weights.
    """

    name: str
    op: str
    sqnr_db: float
    share: float


@dataclass(frozen=True)
class Point:
    """The curve at one place: ``nodes`` of the least sensitive in 8 bits, which is ``share`` of the work."""

    nodes: int
    share: float
    accuracy: dict[str, float]


def rank(searching: Search, choice: Choice) -> list[Node]:
    """Every node that can be quantized, the least sensitive first."""
    full = searching.selecting
    searching.narrow(RANKED_BY)
    try:
        ops = {node.name: node.op_type for node in searching.graph.nodes}
        work = searching.work.operations
        total = searching.total_work()
        nodes = []
        for index, name in enumerate(sorted(searching.all)):
            searching.step(f"node {index + 1} of {len(searching.all)}")
            nodes.append(Node(name, ops[name], searching.score({name}, choice), work[name] / total))
    finally:
        searching.widen(full)
    return sorted(nodes, key=lambda node: -node.sqnr_db)


def curve(searching: Search, choice: Choice, ranked: Sequence[Node]) -> list[Point]:
    """Accuracy on the selection samples against the share of the work in 8 bits."""
    points: list[Point] = []
    for share in SHARES:
        count = _count(ranked, share)
        if count == 0 or (points and count == points[-1].nodes):
            continue
        chosen = {node.name for node in ranked[:count]}
        searching.step(f"{count} of {len(ranked)} nodes")
        got = searching.outputs(searching.make(chosen, choice))
        measured = metrics.measure(searching.recipe, searching.reference, got)
        points.append(Point(count, sum(node.share for node in ranked[:count]), measured))
    return points


def within_bounds(searching: Search) -> SearchResult:
    """The best graph that keeps the recipe's bounds on the selection samples, with as many nodes in 8 bits as can be.

    Where even few nodes are too many, the graph with all of them: the gate then refuses it with its numbers.
    """
    result = searching.best()
    if _holds(searching, result.outputs):
        return result
    searching.step("the bounds do not hold: rank the nodes")
    ranked = rank(searching, result.choice)
    for share in (share for share in reversed(SHARES[:-1]) if share >= LEAST_SHARE):
        chosen = {node.name for node in ranked[: _count(ranked, share)]}
        if not chosen:
            break
        searching.step(f"{len(chosen)} of {len(ranked)} nodes")
        model = searching.make(chosen, result.choice)
        outputs = searching.outputs(model)
        if _holds(searching, outputs):
            kept = sorted(searching.all - chosen)
            return replace(result, model=model, quantized=sorted(chosen), kept=kept, outputs=outputs)
    return result


def _holds(searching: Search, got: metrics.Outputs) -> bool:
    return not metrics.failures(searching.recipe, metrics.measure(searching.recipe, searching.reference, got))


def _count(ranked: Sequence[Node], share: float) -> int:
    """How many of the least sensitive nodes do at most this share of the work."""
    total, reached = sum(node.share for node in ranked), 0.0
    for index, node in enumerate(ranked):
        reached += node.share
        if reached > share * total * (1 + 1e-9):
            return index
    return len(ranked)
