"""What to do after a comparison of servers: how to measure one that was given up, what sets ours and the best apart.

Every piece of advice rests on a figure or a setting of the result; where there is none, it is not given.
"""

from __future__ import annotations

from collections.abc import Sequence

from tritonkit_load.reporting.comparison_result import ComparisonResult, Row, ordered, overlap
from tritonkit_load.reporting.page import counted, percent, short
from tritonkit_load.reporting.verbs import typed, variables

NEAR = 0.9  # of what the graph alone does on the core: little is left for a server to win
LEAST_ROUNDS = 3  # that make compare does without QUICK=1


def after_comparison(result: ComparisonResult) -> tuple[str, ...]:
    """What to do after `make compare`, the most urgent first."""
    several = len(result.models) > 1
    texts = ["The comparison was interrupted: run the same command to its end."] if result.partial else []
    for model, rows in result.models.items():
        about = _Model(result, model, rows)
        advice = [*about.given_up(), *about.late(), *about.apart(), *about.as_configured(), *about.near_ceiling()]
        texts += [f"{model}: {text}" if several else text for text in advice]
    return tuple(dict.fromkeys([*texts, *_next(result)]))


class _Model:
    """What the rows of one model suggest."""

    def __init__(self, result: ComparisonResult, model: str, rows: Sequence[Row]) -> None:
        self.result, self.name, self.rows = result, model, rows
        self.model = variables(result.command, model)  # MODEL=…, as compare takes it, too
        self.ours = next((row for row in rows if row.ours), None)
        self.best = next((row for row in ordered(rows) if not row.ours and row.capacity), None)

    def given_up(self) -> list[str]:
        """How each server without figures is measured."""
        texts = []
        for row in self.rows:
            if not row.problem or (self.result.partial and not row.fix):
                continue
            cure = row.fix or "see below why"
            again = f"`make compare PEERS={row.key} {self.model}` measures it again"
            alone = f"`make loadtest {self.model}` shows it alone" if row.ours else again
            texts.append(f"{row.name} was given up: {cure}. Then {alone}.")
        return texts

    def late(self) -> list[str]:
        """How capacities that the generator bounds become the servers' own."""
        late = [row for row in self.rows if row.late_at]
        if not late:
            return []
        rates = " and ".join(f"{short(row.late_at)} a second for {row.name}" for row in late)
        return [
            f"The generator could not keep {rates}: a capacity near that is a lower bound. End what else uses its "
            "cores, or compare on a machine with more."
        ]

    def apart(self) -> list[str]:
        """What sets ours and the best peer apart, and what narrows a tie."""
        ours, best = self.ours, self.best
        if ours is None or best is None or not ours.capacity or not best.capacity:
            return []
        if overlap(ours, best):
            return [self._narrower(best)]
        if ours.capacity > best.capacity:
            return []
        return [
            f"{best.name} is ahead: it ran with {best.settings}; tritonkit ran with {ours.settings}. "
            f"`make tune {self.model}` looks for instances, batches and a variant that serve more, and writes them "
            f"into the recipe; `make compare PEERS={best.key} {self.model}` measures both again."
        ]

    def as_configured(self) -> list[str]:
        """Ours was fastest in another way than its recipe says."""
        ours = self.ours
        if ours is None or not ours.capacity or ours.as_configured:
            return []
        return [
            f"tritonkit was fastest with {ours.settings}, which its recipe does not say: `make tune {self.model}` "
            "measures that on this machine and writes what wins into the recipe."
        ]

    def near_ceiling(self) -> list[str]:
        """On a CPU, whether a server can win much at all."""
        ours = self.ours
        if self.result.on_gpu or ours is None or not ours.capacity:
            return []
        alone = self.result.ceiling.get(self.name)
        if not alone or ours.capacity < NEAR * alone:
            return []
        return [
            f"tritonkit serves {percent(ours.capacity / alone)} of what the graph alone does on that core: settings "
            "win little more. A faster graph does: more `precisions` in the recipe, of which the build takes the "
            "fastest that is accurate enough, or a GPU (TARGET=cuda)."
        ]

    def _narrower(self, best: Row) -> str:
        """How to tell ours and the best peer apart."""
        rounds = self.result.rounds
        close = f"tritonkit and {best.name} are too close to tell apart after {counted(rounds, 'round')}"
        if rounds < LEAST_ROUNDS:
            again = f"`make compare PEERS={best.key} {self.model}`"
            return f"{close}: {again}, without QUICK=1, takes {LEAST_ROUNDS}."
        more = f"--models {typed(self.result.command, self.name)} --peers {best.key} --rounds {2 * rounds}"
        return f"{close}: `tritonkit-load compare {more}` narrows their intervals."


def _next(result: ComparisonResult) -> list[str]:
    """What comes next, once tritonkit has figures."""
    names = [name for name, rows in result.models.items() if any(row.ours and row.capacity for row in rows)]
    if not names:
        return []
    about = variables(result.command, names[0]) if len(names) == 1 else "MODEL=…"
    return [
        f"`make capacity {about}` finds what tritonkit serves on all of this machine's cores; `make deploy` ships it."
    ]
