"""Advice for a language model as text: a table, and the reasons below it."""

from __future__ import annotations

import io

from rich import box
from rich.console import Console
from rich.table import Table

from tritonkit.advisor.language import Result
from tritonkit.advisor.language_choice import Choice

_COLUMNS = (
    "GPU", "GPUs", "weights", "verdict", "TTFT p99 ms", "ITL ms", "running", "KV tokens", "replicas", "busy",
    "$/M tokens", "bound by",
)  # fmt: skip
_BOUNDS = {
    "matrix products of prompts": "prompts", "matrix products": "compute", "reading the weights": "weights",
    "reading the KV cache": "KV cache", "overhead of steps": "overhead",
}  # fmt: skip
_ROWS = 15  # without ``everything``
_REASONS = 5  # choices whose reasons are told


def text(result: Result, width: int = 170, everything: bool = False) -> str:
    """The table of the best choice for each GPU and precision, and why the first ones are what they are.

    Args:
        result: The advice.
        width: Characters of a line.
        everything: Show each count of GPUs too.
    """
    out = io.StringIO()
    console = Console(file=out, width=width, force_terminal=False, no_color=True, highlight=False)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    for name in _COLUMNS:
        numbers = name not in {"GPU", "weights", "verdict", "bound by"}
        table.add_column(name, justify="right" if numbers else "left", no_wrap=name == "GPU", overflow="fold")
    short = result.short()
    shown = result.choices if everything else short[:_ROWS]
    for choice in shown:
        table.add_row(*_cells(choice))
    console.print(table)
    more = f"; {len(short) - _ROWS} more with --all" if len(short) > _ROWS and not everything else ""
    console.print(f"* carried over by published peaks, without a measured row of that GPU{more}", soft_wrap=True)
    for choice in shown[:_REASONS]:
        console.print(_sentence(choice), soft_wrap=True)
    failing = [choice for choice in shown[_REASONS:] if choice.verdict != "ok"][:_REASONS]
    for choice in failing:
        console.print(_sentence(choice), soft_wrap=True)
    console.print(f"Engine: {result.engine.sentence}", soft_wrap=True)
    for note in result.notes:
        console.print(note, soft_wrap=True)
    return out.getvalue()


def _cells(choice: Choice) -> list[str]:
    served, cost = choice.served, choice.usd_per_million
    return [
        choice.gpu.key + ("*" if choice.basis == "extrapolated" else ""),
        str(choice.gpu_count),
        choice.precision,
        choice.verdict,
        f"{served.ttft_p99_ms:,.0f}" if served else "",
        f"{served.itl_ms:,.1f}" if served else "",
        f"{served.running:,.0f}" if served else "",
        f"{choice.plan.tokens / 1000:,.0f} k" if choice.plan.tokens else "",
        str(choice.replicas or ""),
        f"{served.busy:.0%}" if served and choice.replicas else "",
        f"{cost:,.2f}" if cost is not None else "",
        _BOUNDS.get(served.bound, served.bound) if served else "",
    ]


def _sentence(choice: Choice) -> str:
    name = f"{choice.gpu_count} x {choice.gpu.key} {choice.precision}: {choice.verdict}"
    changes = f" To change it: {'; '.join(choice.changes)}." if choice.changes else ""
    return f"{name}: {'; '.join(choice.reasons)}.{changes}"
