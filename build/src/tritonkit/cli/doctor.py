"""``tritonkit doctor``: what this machine can do, and what is missing."""

from __future__ import annotations

import argparse
from dataclasses import asdict

from rich.markup import escape

from tritonkit.cli.output import Verbs, make_table, out, print_json


def add(verbs: Verbs, _common: argparse.ArgumentParser, report: argparse.ArgumentParser) -> None:
    """Add the arguments of ``doctor``."""
    doctor = verbs.add_parser(
        "doctor", parents=[report], help="what this machine can do, what is missing",
        examples=["tritonkit doctor", "tritonkit doctor --json"],
    )  # fmt: skip
    doctor.set_defaults(command=_doctor)


def _doctor(options: argparse.Namespace) -> int:
    from tritonkit import doctor

    findings = doctor.examine()
    if options.json:
        print_json([asdict(finding) for finding in findings])
    else:
        table = make_table("", "what", "")
        for finding in findings:
            mark = "[green]yes[/]" if finding.present else "[red]no[/]" if finding.needed else "[yellow]no[/]"
            table.add_row(mark, finding.name, escape(finding.detail + (f"\n→ {finding.fix}" if finding.fix else "")))
        out.print(table)
    missing = [finding.name for finding in findings if finding.needed and not finding.present]
    if missing and not options.json:
        out.print(f"missing for the first steps: {', '.join(missing)}")
    return 3 if missing else 0
