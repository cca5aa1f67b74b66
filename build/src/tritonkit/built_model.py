"""The result of building one model: what it is, how near it is to its source, and what the gate measured of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from tritonkit.passport import Forest, ForestParity, Measurement
from tritonkit.queue_limits import QueueLimits
from tritonkit.recipe import Precision

if TYPE_CHECKING:  # it loads numpy, which printing a result does not need
    from tritonkit.precision.gate import Row


@dataclass(frozen=True)
class BuiltModel:
    """One model of a build.

    Attributes:
        key: The beginning of its export's key in the store; of a forest the SHA-256 of the file that is served.
        graph_bytes: Size of the graph that is served, with its weights; of a forest that of its file.
        export_seconds: What the export took, when it was made.
        worst_parity: The largest relative difference from its source; None where there was nothing to compare with.
        precision: The one that is served.
        forced: It was named, whatever the gate says.
        tuned: The recipe's ``batching`` names it.
        judged_on: Samples that the gate measured accuracy on.
        slo_ms: The latency that the recipe promises; None where it promises none.
        alone_ms: What one sample takes alone; None where that was not measured.
        queue: The limits that follow from the SLO; None where none do.
        queue_by_name: What the recipe's ``batching`` says of the queue, which no limits replace.
        gate: Every variant that was looked at, simplest first.
        forest: What a forest is; None for graphs.
        parity: How a forest's scores are from its library's; None for graphs.
    """

    key: str
    graph_bytes: int
    export_seconds: float
    worst_parity: Measurement | None
    precision: Precision
    forced: bool = False
    tuned: bool = False
    judged_on: int = 0
    slo_ms: float | None = None
    alone_ms: float | None = None
    queue: QueueLimits | None = None
    queue_by_name: Mapping[str, int] = field(default_factory=dict)
    gate: tuple[Row, ...] = ()
    forest: Forest | None = None
    parity: ForestParity | None = None

    def as_json(self) -> dict[str, Any]:
        """Plain data, as ``tritonkit build --json`` prints it; a forest's keys only for forests."""
        return {
            "key": self.key,
            "graph_bytes": self.graph_bytes,
            "export_seconds": self.export_seconds,
            "worst_parity": self.worst_parity.model_dump(exclude_unset=True) if self.worst_parity else None,
            "precision": self.precision,
            "forced": self.forced,
            "tuned": self.tuned,
            "judged_on": self.judged_on,
            "slo_ms": self.slo_ms,
            "alone_ms": self.alone_ms,
            "queue": self.queue.as_json() if self.queue else None,
            "queue_by_name": dict(self.queue_by_name),
            "gate": [asdict(row) for row in self.gate],
            **({"forest": self.forest.model_dump(exclude_unset=True)} if self.forest else {}),
            **({"parity": self.parity.model_dump(exclude_unset=True)} if self.parity else {}),
        }
