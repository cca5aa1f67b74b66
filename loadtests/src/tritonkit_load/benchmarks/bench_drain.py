"""`make bench-drain`: a rolling restart with the chart's own seconds, what each part of it is worth, what it costs.

The promise is that no client of any kind loses a request; parts are then taken away one at a time, and the same load
shows who loses what. Everything runs on this machine's loopback; docs/measurements/drain.md explains what is seen.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from tritonkit import progress
from tritonkit.cli.arguments import Parser
from tritonkit.cli.output import run_command
from tritonkit.errors import MissingError
from tritonkit_load.benchmarks.proofs import cost, drain
from tritonkit_load.benchmarks.proofs.pods import Manifest, deployment, haproxy
from tritonkit_load.benchmarks.proofs.rendered import render

# A ready pod is one probe away, so a short period only shortens the bench.
PROBES = {"startup": {"periodSeconds": 1}, "readiness": {"periodSeconds": 1}}
# Where a part is missing: short seconds, as these restarts only have to show a loss.
SHORT = {"front": {"drainSeconds": 5}, "lifecycle": {"preStopSeconds": 3}, "server": {"exitTimeoutSeconds": 10}}
PAUSE_S = 2.0
Change = Callable[[list[Manifest]], None]


@dataclass(frozen=True)
class Part:
    """A part of the drain that is taken away.

    Attributes:
        name: What is missing.
        values: What the chart is rendered with.
        change: What is done to the manifest, as the chart itself would refuse it.
        pause_s: The longest pause of callers that pause.
    """

    name: str
    values: dict[str, Any]
    change: Change = lambda _: None
    pause_s: float = PAUSE_S


def _spec(manifests: Sequence[Manifest]) -> Manifest:
    spec: Manifest = deployment(manifests)["spec"]["template"]["spec"]
    return spec


def _without_hooks(manifests: list[Manifest]) -> None:
    for container in _spec(manifests)["containers"]:
        del container["lifecycle"]


def _short_grace(manifests: list[Manifest]) -> None:
    _spec(manifests)["terminationGracePeriodSeconds"] = 3


def _same_hooks(manifests: list[Manifest]) -> None:
    hooks = {container["name"]: container["lifecycle"] for container in _spec(manifests)["containers"]}
    hooks["triton"]["preStop"] = hooks["front"]["preStop"]


def _cut_idle(manifests: list[Manifest]) -> None:
    for manifest in manifests:
        data = manifest.get("data", {})
        if "haproxy.cfg" in data:
            data["haproxy.cfg"] = data["haproxy.cfg"].replace("option idle-close-on-response", "")


PARTS = (
    Part("nothing is missing", SHORT),
    Part("no front", SHORT | {"front": {"enabled": False}}),
    Part("no preStop hooks", SHORT, _without_hooks),
    Part("Triton's preStop as short as the front's", SHORT, _same_hooks),
    Part("a grace period of 3 s", SHORT, _short_grace),
    Part("no idle-close-on-response in the front", SHORT, _cut_idle),
    Part("pauses no longer than the drain", SHORT, pause_s=20.0),
)


def main() -> int:
    """Measure the chosen parts and print them; 1 if a request was lost that should not be."""
    return run_command(_main)


def _main() -> int:
    arguments = _parser().parse_args()
    console = Console(highlight=False, width=130)
    if haproxy() is None:
        raise MissingError("there is no haproxy", "apt-get install haproxy")
    return _run(arguments, console)


def _parser() -> Parser:
    parser = Parser(
        description=__doc__,
        examples=["python -m tritonkit_load.benchmarks.bench_drain --only restart"],
    )  # fmt: skip
    parser.add_argument("--requests", type=int, default=20_000, help="at least so many in the first restart")
    parser.add_argument("--profile", choices=("surge", "inPlace"), default="surge", help="the chart's rollout.profile")
    parser.add_argument("--only", choices=("restart", "parts", "cost"), help="one of the three")
    return parser


def _run(arguments: argparse.Namespace, console: Console) -> int:
    lost = 0
    with progress.task("drain") as say:
        if arguments.only in (None, "restart"):
            manifests = render({"replicas": 2, "probes": PROBES, "rollout": {"profile": arguments.profile}})
            drain_s = _drain_seconds(manifests)
            calls = drain.load(drain_s / 2)
            result = drain.rolling_restart(manifests, calls, requests=arguments.requests, say=say)
            lost += result.lost
            console.print(_restart_table(result))
            console.print(_story(result, manifests))
        if arguments.only in (None, "parts"):
            rows = []
            for part in PARTS:
                say(part.name)
                rows.append((part.name, _without(part)))
            lost += rows[0][1].lost
            console.print(_parts_table(rows))
        if arguments.only in (None, "cost"):
            say("what the front costs")
            console.print(_cost_table(cost.measure(render({"probes": PROBES}))))
    return 1 if lost else 0


def _drain_seconds(manifests: Sequence[Manifest]) -> float:
    """``hard-stop-after`` of the front's configuration."""
    text = next(manifest["data"]["haproxy.cfg"] for manifest in manifests if "haproxy.cfg" in manifest.get("data", {}))
    return float(text.split("hard-stop-after ")[1].split("s")[0])


def _without(part: Part) -> drain.Result:
    manifests = render({"replicas": 2, "probes": PROBES} | part.values)
    part.change(manifests)
    return drain.rolling_restart(manifests, drain.load(part.pause_s), requests=5_000)


def _restart_table(result: drain.Result) -> Table:
    table = Table("client", "requests", "lost", "slowest ms", box=None, pad_edge=False)
    for account in result.accounts:
        table.add_row(account.kind, str(account.sent), str(len(account.lost)), f"{account.slowest_s * 1e3:.0f}")
    table.add_row("all", str(result.sent), str(result.lost), "")
    return table


def _story(result: drain.Result, manifests: Sequence[Manifest]) -> str:
    grace_s = _spec(manifests)["terminationGracePeriodSeconds"]
    lines = []
    for number, pod in enumerate(result.ended, 1):
        gone = ", ".join(f"{name} gone after {took:.1f} s" for name, took in sorted(pod.containers.items()))
        lines.append(f"pod {number}: {gone} of {grace_s} s grace; killed: {', '.join(pod.killed) or 'none'}")
    lines += [f"lost by {account.kind}: {lost[2]}" for account in result.accounts for lost in account.lost[:3]]
    return "\n".join(lines) + "\n"


def _parts_table(rows: Sequence[tuple[str, drain.Result]]) -> Table:
    table = Table("without", "requests", "lost", "by whom", "containers killed", box=None, pad_edge=False)
    for name, result in rows:
        killed = sum(len(ended.killed) for ended in result.ended)
        table.add_row(name, str(result.sent), str(result.lost), ", ".join(_who(result)) or "-", str(killed))
    return table


def _who(result: drain.Result) -> Iterator[str]:
    """Kinds of client that lost something, with and without pauses together."""
    kinds: dict[str, int] = {}
    for account in result.accounts:
        kind = account.kind.split(", pauses")[0]
        kinds[kind] = kinds.get(kind, 0) + len(account.lost)
    return (f"{kind} {lost}" for kind, lost in kinds.items() if lost)


def _cost_table(costs: Sequence[cost.Cost]) -> Table:
    table = Table("p50", "past the front, ms", "through it, ms", "ratio (middle half)", box=None, pad_edge=False)
    for row in costs:
        low, middle, high = (row.ratios[len(row.ratios) * part // 4] for part in (1, 2, 3))
        ratio = f"{middle:.2f} ({low:.2f} to {high:.2f})"
        table.add_row(f"{row.protocol}, {row.size}", f"{row.past_ms:.2f}", f"{row.through_ms:.2f}", ratio)
    return table


if __name__ == "__main__":
    sys.exit(main())
