"""Prints checks and changes for a person who sees this release for the first time."""

from __future__ import annotations

import os
from collections.abc import Sequence

from rich.markup import escape

from tritonkit.cli.output import out
from tritonkit.deploying import chart, nodes
from tritonkit.deploying.chart import Object, Rendered
from tritonkit.deploying.chart_source import Chart
from tritonkit.deploying.check import Check
from tritonkit.deploying.difference import Difference
from tritonkit.deploying.environment import Environment
from tritonkit.deploying.models import Models

_WORDS = {
    "ok": "[green]ok[/]       ", "note": "[yellow]note[/]     ",
    "unchecked": "[yellow]unchecked[/]", "missing": "[bold red]missing[/]  ",
}  # fmt: skip
_INDENT = " " * 13
_MOST_LINES = 200  # of a diff on a terminal; the file has all


def say(text: str) -> None:
    """Print one line without markup."""
    out.print(escape(text), soft_wrap=True)


def title(text: str) -> None:
    """Print the title of a section."""
    out.print(f"\n[bold]{escape(text)}[/]", soft_wrap=True)


def head(environment: Environment, models: Models, source: Chart, apply: bool) -> None:
    """Print what would be deployed, from which chart and models, to which cluster."""
    where = environment.deploy
    going = "to" if apply else "would go to"
    out.print(f"[bold]deploy {escape(environment.name)}[/]" + ("" if apply else ": a dry run, nothing is changed"))
    rows = {
        "chart": f"tritonkit {source.version} with Triton {source.triton}, {_from(source)}",
        "release": f"{where.release}, in namespace {where.namespace} of context {where.context}",
        "values": os.path.relpath(environment.path),
        "models": models.text,
        "publish": f"{going} {where.publish}" if where.publish else "nothing: they are there already",
    }
    for name, text in rows.items():
        say(f"  {name:<10}{text}")


def _from(source: Chart) -> str:
    return f"from {source.source}" if "://" in source.source else f"in {source.source}"


def checks(name: str, findings: Sequence[Check]) -> None:
    """Print a section of checks, with the fix below each that is not ok."""
    title(name)
    wide = max((len(check.name) for check in findings), default=0)
    for check in findings:
        first, *rest = check.text.splitlines() or [""]
        out.print(f"  {_WORDS[check.state]}  {escape(f'{check.name:<{wide}}  {first}')}", soft_wrap=True)
        for line in rest:
            say(f"{_INDENT}{' ' * (wide + 2)}{line}")
        if check.fix and check.state != "ok":
            say(f"{_INDENT}{' ' * (wide + 2)}fix: {check.fix}")


def listed(rendered: Rendered) -> None:
    """Print all objects of the manifest, for when no cluster says which of them are new."""
    title("objects (which of them are new is not known)")
    for obj in rendered.objects:
        say(f"  {described(obj, rendered.objects)}")


def changes(rendered: Rendered, difference: Difference) -> None:
    """Print what would happen to each object."""
    by_name = {chart.name(obj): obj for obj in rendered.objects}
    title("changes in the cluster")
    for word, names in (("create", difference.created), ("change", difference.changed)):
        for name in names:
            say(f"  {word:<9}{described(by_name[name], rendered.objects)}")
    for name in difference.removed:
        say(f"  {'remove':<9}{name}")
    if difference.unchanged:
        say(f"  {'keep':<9}{len(difference.unchanged)} as they are")


def diff(text: str, file: str) -> None:
    """Print the changes to existing objects, line by line."""
    lines = text.splitlines()
    title(f"diff ({file})")
    for line in lines[:_MOST_LINES]:
        colour = {"+": "green", "-": "red", "@": "cyan"}.get(line[:1])
        out.print(f"[{colour}]{escape(line)}[/]" if colour else escape(line), soft_wrap=True)
    if len(lines) > _MOST_LINES:
        say(f"… and {len(lines) - _MOST_LINES} more lines in {file}")


def described(obj: Object, objects: Sequence[Object]) -> str:
    """``Deployment triton: 2 pods, each 1 nvidia.com/gpu``."""
    spec, name = obj.get("spec", {}), chart.name(obj)
    if obj["kind"] == "Deployment":
        requests = nodes.requested_devices(spec["template"]["spec"])
        devices = [f"{count} {resource}" for resource, count in requests.items()]
        fewest, most = chart.replicas(obj, objects)
        count = _pods(most) if fewest == most else f"{fewest} to {_pods(most)}"
        if fewest == most and "replicas" not in spec:
            count = "as many pods as an autoscaler outside this manifest says"
        return f"{name}: {count}, {', '.join(devices) + ' each' if devices else 'no GPU'}"
    if obj["kind"] == "Service":
        return f"{name}: {', '.join(str(port['port']) for port in spec['ports'])}"
    return name


def _pods(count: int) -> str:
    return "1 pod" if count == 1 else f"{count} pods"
