"""`make bench-autoscaler`: replays a day against autoscaler settings, and says which of them the chart should have.

It writes reports/autoscaler/index.html and autoscaler.json. With ``--measure`` it first measures a pod on a real
Triton; with ``--keep`` the result is kept in proofs/autoscaler.json, where a test holds the chart's values to it.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tritonkit import atomic, progress
from tritonkit.cli.arguments import Parser
from tritonkit.cli.output import run_command
from tritonkit_load.benchmarks.proofs import choice, measure, page, service, steady
from tritonkit_load.load import environment
from tritonkit_load.load import target as targets

REPORT = Path("reports/autoscaler")
KINDS: dict[targets.Target, str] = {"cpu": "cpu", "cuda": "gpu"}  # of pod, by target


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure if asked to, replay, print, write."""
    return run_command(lambda: _main(arguments))


def _main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    return _run(options)


def _parser() -> Parser:
    parser = Parser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
        examples=["python -m tritonkit_load.benchmarks.bench_autoscaler --measure --target cpu --keep"],
    )  # fmt: skip
    parser.add_argument("--measure", action="store_true", help="measure a pod on this machine first, 2 minutes")
    parser.add_argument(
        "--target", choices=list(KINDS), help="what that pod runs on; cuda where there is an NVIDIA driver"
    )
    parser.add_argument("--model", default="efficientnet_lite0", help="whose recipe is measured: its name, or its file")
    parser.add_argument("--keep", action="store_true", help="keep measurement and result beside the code")
    return parser


def _run(options: argparse.Namespace) -> int:
    console = Console(highlight=False, width=110)
    with progress.task("autoscaler") as say:
        pods = {kind: json.loads(path.read_text(encoding="utf-8")) for kind, path in choice.MEASURED.items()}
        if options.measure:
            target = targets.supported(options.target)
            kind = KINDS[target]
            pods[kind] = measure.measure(options.model, say, target)
            measure.write(choice.MEASURED[kind] if options.keep else REPORT / f"measured-{kind}.json", pods[kind])
        began = time.monotonic()
        settings = len(choice.compared())
        say(f"replay {choice.DAYS} days and a step, {settings} settings, {len(choice.MEASURED)} kinds of pod")
        played = choice.play_all()
        seconds = time.monotonic() - began
        say("one pod at a constant rate")
        checks = {
            kind: steady.checks(service.parse(pod), measure.observed(pod))
            for kind, pod in pods.items()
            if "observed" in pod
        }
    rows = [row for kind_rows, _ in played.values() for row in kind_rows]
    result = choice.result(rows)
    facts = environment.machine() | {"replays": f"{seconds:.0f} s"}
    command = "make bench-autoscaler" + (" MEASURE=1" if options.measure else "")
    html = page.render(played, checks, command, datetime.now().astimezone().isoformat(timespec="seconds"), facts)
    atomic.write(REPORT / "index.html", html.encode())
    text = (json.dumps(result, indent=2) + "\n").encode()
    atomic.write(REPORT / "autoscaler.json", text)
    if options.keep:
        atomic.write(choice.RESULT, text)
    _print(console, rows, result["best"], checks)
    console.print(f"Replays {seconds:.0f} s. Report: {REPORT}/index.html")
    disagree = [check for beside in checks.values() for check in beside if check.valid and not check.agrees]
    for check in disagree:
        comparison = f"{check.in_flight:.1f} were in flight, simulated {check.simulated_in_flight:.1f}"
        console.print(f"error: at {check.rate:.0f} requests/s {comparison}")
    return 1 if disagree else 0


def _print(
    console: Console, rows: Sequence[choice.Row], best: Mapping[str, str], checks: Mapping[str, Sequence[steady.Check]]
) -> None:
    for kind in dict.fromkeys(row.kind for row in rows):
        table = Table(f"pod: {kind}", "bad minutes", "lost", "late", "pod-hours", "changes", "step: bad", box=None,
                      pad_edge=False)  # fmt: skip
        for row in rows:
            if row.kind == kind:
                table.add_row(
                    row.name + (" *" if row.name == best[kind] else ""), str(row.bad_minutes), f"{row.lost:,}",
                    f"{row.late:.2%}", f"{row.pod_hours:.0f}", str(row.changes), str(row.step_bad),
                )  # fmt: skip
        console.print(table, "")
    for kind, check in ((kind, check) for kind, beside in checks.items() for check in beside):
        console.print(
            f"real pod ({kind}) at {check.rate:.0f}/s: {check.in_flight:.2f} in flight, simulated "
            f"{check.simulated_in_flight:.2f}; p99 {check.p99_ms:.1f} ms, simulated {check.simulated_p99_ms:.1f}"
            f"{'' if check.valid else '; generator late'}"
        )
    console.print("* best of the chart's signal: " + ", ".join(f"{name} ({kind})" for kind, name in best.items()))


if __name__ == "__main__":
    sys.exit(main())
