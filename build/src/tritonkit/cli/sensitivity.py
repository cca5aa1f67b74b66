"""``tritonkit sensitivity``: which nodes lose most in 8 bits, and what accuracy costs."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table

from tritonkit.cli.output import Verbs, make_table, out, print_json

if TYPE_CHECKING:
    from tritonkit.precision.search import Search

BAR = 36  # letters of the plot's longest bar


def add(verbs: Verbs, _common: argparse.ArgumentParser, report: argparse.ArgumentParser) -> None:
    """Add the arguments of ``sensitivity``."""
    verb = verbs.add_parser(
        "sensitivity", parents=[report], help="which nodes lose most in 8 bits",
        examples=["tritonkit sensitivity my_model.yaml --target cpu --top 5"],
    )  # fmt: skip
    verb.add_argument("recipe", type=Path, metavar="RECIPE")
    verb.add_argument("--target", choices=["cpu", "tensorrt"], default="tensorrt", help="default: %(default)s")
    verb.add_argument("--precision", choices=["int8", "fp8"], default="int8", help="default: %(default)s")
    verb.add_argument("--top", type=int, default=15, help="nodes to list, the most sensitive; default: %(default)s")
    verb.set_defaults(command=_sensitivity)


def _sensitivity(options: argparse.Namespace) -> int:
    from tritonkit import cached_export, progress, recipe
    from tritonkit.precision import metrics, sensitivity, variants

    loaded = recipe.load_graph(options.recipe)
    bounds = metrics.bounds(loaded)
    base, _ = cached_export.exported(loaded)
    with progress.task(f"{loaded.name}: {options.precision} for {options.target}") as step:
        search = variants.searching(loaded, base, options.target, options.precision, step)
        choice = search.best().choice
        ranked = sensitivity.rank(search, choice)
        points = sensitivity.curve(search, choice, ranked)
    missing = search.work.missing(search.all)
    if options.json:
        print_json({
            "model": loaded.name, "target": options.target, "precision": options.precision, "choice": asdict(choice),
            "nodes": [asdict(node) for node in ranked], "curve": [asdict(point) for point in points], "bounds": bounds,
            "not_quantized": missing, "not_counted": list(search.work.uncounted),
        })  # fmt: skip
        return 0
    out.print(_ranking(ranked[::-1][: options.top], len(ranked)))
    for metric in points[0].accuracy if points else ():
        out.print()
        out.print(_plot(metric, points, bounds.get(metric)))
    out.print(
        f"\n“In 8 bits”: share of the work of {len(ranked)} nodes, the least sensitive first; ┃ is the recipe's bound."
    )
    out.print(f"Measured on {len(search.selecting)} samples; {choice.method}, smoothing {choice.alpha or 'off'}.")
    for line in _uncovered(missing, search):
        out.print(line, markup=False)
    return 0


def _uncovered(missing: dict[str, float], search: Search) -> list[str]:
    """What the shares above are not shares of."""
    from tritonkit.precision import work

    lines = []
    if missing:
        lines.append(f"Never in 8 bits, of all the work: {work.describe(missing)}.")
        reasons = {work.no_8_bits(kind, search.scheme): kind for kind in reversed(missing)}
        lines += [f"{kind}: {reason}." for reason, kind in reversed(reasons.items()) if reason]
    if search.work.uncounted:
        lines.append(f"Not counted: what runs inside {', '.join(search.work.uncounted)}.")
    return lines


def _ranking(nodes: list, total: int) -> Table:  # type: ignore[type-arg]
    table = make_table("node", "type", "SQNR dB, it alone in 8 bits", "of the work",
                  title=f"The most sensitive of {total} nodes", title_justify="left", title_style="bold")  # fmt: skip
    for node in nodes:
        table.add_row(escape(node.name), escape(node.op), f"{node.sqnr_db:.1f}", f"{node.share:.1%}")
    return table


def _plot(metric: str, points: list, bound: float | None) -> Table:  # type: ignore[type-arg]
    """A bar a point, from the least value to the largest, and the recipe's bound as a line among them."""
    values = [point.accuracy[metric] for point in points]
    low, high = min([*values, *([bound] if bound is not None else [])]), max(values)
    width = max(high - low, 1e-12)
    title = metric.replace("_", " ") + (f", bound {bound:g}" if bound is not None else "")
    table = make_table("in 8 bits", "nodes", title, "")
    mark = None if bound is None else round((bound - low) / width * (BAR - 1))
    for point, value in zip(points, values, strict=True):
        filled = round((value - low) / width * (BAR - 1)) + 1
        bar = "".join("┃" if index == mark else "█" if index < filled else "·" for index in range(BAR))
        table.add_row(f"{point.share:.0%}", str(point.nodes), f"{value:.4f}", bar)
    return table
