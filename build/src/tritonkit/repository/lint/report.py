"""Prints what lint found: text for people, grouped by model, and JSON for programs. SARIF is a module of its own."""

from __future__ import annotations

from dataclasses import asdict
from itertools import groupby
from pathlib import Path
from typing import Any

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from tritonkit.repository.lint.findings import Finding, Report, Severity
from tritonkit.repository.lint.registry import Rule

_STYLES: dict[Severity, str] = {"error": "bold red", "warning": "yellow", "info": "cyan"}
_SEVERITY_WIDTH = len("warning")


def print_text(report: Report, console: Console) -> None:
    """Findings under their model's name, and a last line that counts them."""
    for model, findings in groupby(report.findings, key=lambda finding: finding.model):
        console.print(Text(str(report.repository / model), style="bold"))
        console.print(_table(report, list(findings)))
        console.print()
    console.print(_summary(report))


def _table(report: Report, findings: list[Finding]) -> RenderableType:
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(width=0)
    table.add_column(width=_SEVERITY_WIDTH, no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold", ratio=1)
    for finding in findings:
        place = where(report, finding)
        table.add_row(
            "", Text(finding.severity, style=_STYLES[finding.severity]), finding.rule,
            Text.assemble((place, "bold"), ": " if place else "", f"{finding.message}\n", (f"→ {finding.fix}", "dim")),
        )  # fmt: skip
    return table


def where(report: Report, finding: Finding) -> str:
    """The place of a finding inside its model, ``config.pbtxt:12``; empty for the model's folder itself."""
    path = relative(finding.path, report.repository / finding.model)
    if path == ".":
        return ""
    return f"{path}:{finding.line}" if finding.line else path + "/" * finding.path.is_dir()


def relative(path: Path, base: Path) -> str:
    """``path`` from ``base``, with slashes."""
    return path.relative_to(base).as_posix() if path.is_relative_to(base) else path.as_posix()


def _summary(report: Report) -> Text:
    models = _count(report.models, "model")
    if not report.models:
        return Text(f"there are no models in {report.repository}")
    if not report.findings:
        return Text.assemble(("clean", "bold green"), f": nothing to say about {models}")
    counts = [_count(number, severity) for severity, number in report.counts.items() if number]
    word = Text() if report.counts["error"] or report.counts["warning"] else Text("clean, ", style="bold green")
    return Text.assemble(word, f"{', '.join(counts)} in {models}; `tritonkit lint --explain ID` says more")


def _count(number: int, word: str) -> str:
    return f"{number} {word}" if number == 1 or word == "info" else f"{number} {word}s"


def as_json(report: Report) -> dict[str, Any]:
    """The report as plain data; paths are relative to the repository."""
    findings = [asdict(finding) | {"path": relative(finding.path, report.repository)} for finding in report.findings]
    return {
        "repository": str(report.repository),
        "models": report.models,
        "counts": report.counts,
        "findings": findings,
    }


def print_rule(rule: Rule, console: Console) -> None:
    """One rule in full."""
    console.print(Text.assemble((f"{rule.id} {rule.slug}", "bold"), "  ", (rule.severity, _STYLES[rule.severity])))
    console.print(Text(f"Finds {rule.summary}."))
    console.print()
    console.print(Text(rule.explanation))
    console.print()
    console.print(Text(f"enforced by: {rule.enforced_by or 'nobody: it is advice'}"))
    if rule.source:
        console.print(Text(f"source: {rule.source}"))
    console.print(Text(f"off for one model, in its config.pbtxt: # tritonkit: ignore {rule.id}"))


def print_rules(rules: list[Rule], console: Console) -> None:
    """All rules, a line each."""
    table = Table("id", "name", "severity", "finds", box=None, pad_edge=False)
    for rule in rules:
        table.add_row(rule.id, rule.slug, Text(rule.severity, style=_STYLES[rule.severity]), rule.summary)
    console.print(table)
