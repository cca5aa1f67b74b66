"""``tritonkit advise fleet FILE``: the cheapest nodes for several models, as a table, JSON and the chart's values."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from tritonkit.cli import advise_language
from tritonkit.cli.output import make_table, out, print_json
from tritonkit.errors import InputError

if TYPE_CHECKING:
    from rich.table import Table

    from tritonkit.advisor.fleet import Plan

WORD = Path("fleet")
_WIDTH = 124  # of the table


def add_arguments(verb: argparse.ArgumentParser) -> None:
    """Say the operand that only fleets have."""
    verb.add_argument(
        "fleet_file", type=Path, nargs="?", metavar="FILE", help="after the word fleet: models with rates and promises"
    )


def is_fleet(options: argparse.Namespace) -> bool:
    """Whether the words are ``fleet FILE``.

    Raises:
        InputError: There are two operands and the first is another word, or one and it is that word.
    """
    if options.fleet_file is None:
        if options.model == WORD and not WORD.exists():
            raise InputError("advise fleet needs the file of a fleet", "tritonkit advise fleet models.yaml")
        return False
    if options.model != WORD:
        raise InputError(
            f"{options.fleet_file} is one operand too many: advise takes one model, or `fleet FILE`",
            "several models with their rates go into a file: tritonkit advise fleet models.yaml",
        )
    return True


def run(options: argparse.Namespace) -> int:
    """Plan and print; 1 where no mix carries the fleet.

    Raises:
        InputError: The file or an option has a value that cannot be.
    """
    from tritonkit import atomic, gpus
    from tritonkit.advisor import fleet, fleet_file, fleet_models, fleet_values

    foreign = {"--rps": options.rps, "--p99-ms": options.p99_ms, "--engine": options.engine, "--shape": options.shape,
               "--precision": options.precision, "--max-batch": options.max_batch, "--instances": options.instances,
               "--utilization": options.utilization, "--html": options.html, "--plot": options.plot or None,
               "--recipe": options.recipe or None, "--all": options.all or None}  # fmt: skip
    given = [name for name, value in foreign.items() if value not in (None, [])] + advise_language.given(options)
    if given:
        raise InputError(
            f"{given[0]} is not for a fleet",
            f"say it in {options.fleet_file}, of each model: docs/guides/advisor-fleet.md",
        )
    parsed = fleet_file.load(options.fleet_file)
    names = [name for name in options.gpu.split(",") if name and name != "all"]
    prices = {gpus.get(name).key: price for name, price in options.price}
    nodes = fleet.nodes_of(parsed, names, prices)
    models = fleet_models.load(options.fleet_file, parsed)
    plan = fleet.plan(models, nodes, utilization=parsed.utilization, spare=parsed.spare_nodes)
    if options.values and plan.mix:
        atomic.write(options.values, fleet_values.text(plan.mix, options.fleet_file.name).encode())
    if options.json:
        print_json(plan.to_json())
    else:
        _print(plan)
    return 0 if plan.mix else 1


def _print(plan: Plan) -> None:
    if plan.mix:
        Console(highlight=False, width=max(out.width, _WIDTH)).print(_table(plan))
        for name, (layout, count) in plan.mix.cuts.items():
            pieces = ", ".join(f"{pieces} x {profile}" for profile, pieces in layout.items())
            out.print(f"MIG cuts {count} GPU{'s' if count > 1 else ''} of {name} into {pieces}", markup=False)
        out.print()
    for sentence in (*plan.impossible, *plan.reasons):
        out.print(f"  {sentence}", markup=False)
    out.print()
    for note in plan.notes:
        out.print(note, markup=False)


def _table(plan: Plan) -> Table:
    table = make_table("node", "nodes", "$/h", "device", "pods", "models", "GiB used", "time used")
    mix = plan.mix
    if mix is None:
        return table
    for node, count in mix.nodes:
        first = (node.name, str(count), f"{node.usd_per_hour * count:,.2f}")
        for pods in (pods for pods in mix.pods if pods.node == node):
            device = pods.bundle.device
            served = ", ".join(f"{fit.model} {fit.precision} {pods.rps[fit.model]:,.4g}/s" for fit in pods.bundle.fits)
            devices = f"{pods.bundle.gpu_count} x {device.name}" if pods.bundle.gpu_count > 1 else device.name
            memory = f"{pods.bundle.memory_gib:.1f} of {device.usable_gib:.1f}"
            table.add_row(*first, devices, str(pods.count), served, memory, f"{pods.busy:.0%}")
            first = ("", "", "")
    total = f"{mix.usd_per_hour:,.2f}"
    table.add_row("all", str(sum(count for _, count in mix.nodes)), total, "", "", "", "", "", style="bold")
    return table
