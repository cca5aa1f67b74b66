"""Prints how far the latency model is off: ``make advisor-validate``.

Rows are predicted by fits that never saw them (:func:`tritonkit.advisor.validation.held_out`), then by the coefficients
that ship. ``--write`` fits those anew.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tritonkit.advisor import validation, validation_cpu
from tritonkit.advisor.validation import MEDIAN, WORST, Check
from tritonkit.cli.output import make_table, out, run_command

if TYPE_CHECKING:
    from rich.table import Table

_WITHIN = 0.20  # of the rows of one GPU


def main(arguments: Sequence[str] | None = None) -> int:
    """Fit, predict and print; 0 whether or not the bounds are met."""
    parser = argparse.ArgumentParser(description="How far the advisor's latency model is off, on held-out rows.")
    parser.add_argument("--write", action="store_true", help="fit on all rows, and write coefficients.json")
    options = parser.parse_args(arguments)
    if options.write:
        out.print(f"wrote {validation.write()}")
    checks = validation.held_out("tensorrt")
    out.print(_table("TensorRT, MLPerf Offline: each GPU predicted by a fit on the others", checks))
    _say("held out", checks, MEDIAN, WORST)
    _say("the coefficients that ship, fitted on all of them", validation.fitted("tensorrt"), MEDIAN, WORST)
    checks = validation.held_out("onnxruntime")
    out.print(_table("onnxruntime on an H200: each workload predicted by a fit on the others", checks))
    _say_by_launch("held out", checks)
    shipped = validation.fitted("onnxruntime")
    out.print(_table("onnxruntime on an H200: the coefficients that ship, fitted on all of them", shipped))
    _say_by_launch("fitted", shipped)
    served = validation.served()
    table = make_table("model", "instances", "measured/s", "predicted/s", "error", title=f"\n{validation.SERVED}",
                       title_justify="left", title_style="bold")  # fmt: skip
    for model, instances, measured, predicted in served:
        table.add_row(
            model, str(instances), f"{measured:,.0f}", f"{predicted:,.0f}", f"{predicted / measured - 1:+.0%}"
        )
    out.print(table)
    _say_cpu("each workload predicted by a fit on the others", validation_cpu.held_out())
    _say_cpu("the coefficients that ship, fitted on all of them", validation_cpu.fitted())
    return 0


def _say_cpu(what: str, checks: Sequence[validation_cpu.Check]) -> None:
    title = f"\nonnxruntime on one CPU core: {what}"
    table = make_table("model", "precision", "batch", "measured ms", "predicted ms", "error",
                       title=title, title_justify="left", title_style="bold")  # fmt: skip
    for check in checks:
        row = check.row
        sizes = "".join(f" at {size}" for size in row.sizes.values())
        table.add_row(
            row.model + sizes, row.precision, str(row.batch), f"{row.ms:.2f}", f"{check.predicted:.2f}",
            f"{check.error:+.0%}",
        )  # fmt: skip
    out.print(table)
    errors = [abs(check.error) for check in checks]
    bound = validation_cpu.BOUND
    out.print(
        f"{what}: {len(errors)} rows, median error {statistics.median(errors):.0%}, worst {max(errors):.0%}, "
        f"{sum(error <= bound for error in errors)} within {bound:.0%} "
        f"(bound: worst {bound:.0%}: {'met' if max(errors) <= bound else 'missed'})",
        markup=False,
    )


def _table(title: str, checks: Sequence[Check]) -> Table:
    table = make_table("model", "GPU", "precision", "batch", "launches", "measured", "predicted", "error",
                       title=f"\n{title}", title_justify="left", title_style="bold")  # fmt: skip
    for check in checks:
        row = check.row
        sizes = "".join(f" at {size}" for size in row.sizes.values())
        table.add_row(
            row.model + sizes, row.gpu, row.precision, "best" if row.batch is None else str(row.batch),
            "in a graph" if row.graphs else "one by one", f"{row.measured:,g} {row.unit}",
            f"{check.predicted:,.2f}" if row.unit == "ms" else f"{check.predicted:,.0f}", f"{check.error:+.0%}",
        )  # fmt: skip
    return table


def _say_by_launch(what: str, checks: Sequence[Check]) -> None:
    """Print rows in CUDA graphs, as models are served, apart from rows launched one by one, onnxruntime's default."""
    for graphs, how in ((True, "in a graph, as tritonkit serves"), (False, "launched one by one")):
        _say(f"{what}, {how}", [check for check in checks if check.row.graphs == graphs], None, _WITHIN)


def _say(what: str, checks: Sequence[Check], median_bound: float | None, worst_bound: float) -> None:
    median, worst = validation.summary(checks)
    within = sum(abs(check.error) <= worst_bound for check in checks)
    met = worst <= worst_bound and (median_bound is None or median <= median_bound)
    bounds = (f"median {median_bound:.0%}, " if median_bound else "") + f"worst {worst_bound:.0%}"
    out.print(
        f"{what}: {len(checks)} rows, median error {median:.0%}, worst {worst:.0%}, {within} within {worst_bound:.0%} "
        f"(bounds: {bounds}: {'met' if met else 'missed'})",
        markup=False,
    )


if __name__ == "__main__":
    raise SystemExit(run_command(main))
