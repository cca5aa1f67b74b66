"""A report as SARIF 2.1.0, the format in which code hosts take findings and show them beside the lines.

https://docs.oasis-open.org/sarif/sarif/v2.1.0/sarif-v2.1.0.html
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tritonkit import __version__
from tritonkit.repository.lint.findings import Finding, Report, Severity
from tritonkit.repository.lint.registry import Rule, in_order

SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
_LEVELS: dict[Severity, str] = {"error": "error", "warning": "warning", "info": "note"}
# Code hosts take this base for the checkout's root.
_CHECKOUT = "%SRCROOT%"
_REPOSITORY = "REPOSITORY"


def as_sarif(report: Report) -> dict[str, Any]:
    """One run with every rule and every finding.

    Paths are relative to the working directory where they lie under it, as code hosts want them, else to the
    repository.
    """
    rules = in_order()
    bases = {_CHECKOUT: {"uri": _folder_uri(Path.cwd())}, _REPOSITORY: {"uri": _folder_uri(report.repository)}}
    return {
        "$schema": SCHEMA,
        "version": "2.1.0",
        "runs": [
            {
                "tool": {
                    "driver": {
                        "name": "tritonkit lint",
                        "version": __version__,
                        "rules": [_rule(rule) for rule in rules],
                    }
                },
                "originalUriBaseIds": bases,
                "columnKind": "unicodeCodePoints",
                "results": [_result(report, finding, rules) for finding in report.findings],
            }
        ],
    }


def _folder_uri(path: Path) -> str:
    return path.resolve().as_uri().rstrip("/") + "/"


def _rule(rule: Rule) -> dict[str, Any]:
    enforced = f" Enforced by: {rule.enforced_by}." if rule.enforced_by else ""
    return {
        "id": rule.id,
        "name": "".join(word.capitalize() for word in rule.slug.split("-")),
        "shortDescription": {"text": f"Finds {rule.summary}."},
        "fullDescription": {"text": rule.explanation},
        "help": {"text": f"{rule.explanation}{enforced} Source: {rule.source or 'none'}."},
        "defaultConfiguration": {"level": _LEVELS[rule.severity]},
    }


def _result(report: Report, finding: Finding, rules: list[Rule]) -> dict[str, Any]:
    return {
        "ruleId": finding.rule,
        "ruleIndex": [rule.id for rule in rules].index(finding.rule),
        "level": _LEVELS[finding.severity],
        "message": {"text": f"{finding.message}. Fix: {finding.fix}."},
        "locations": [
            {
                "physicalLocation": {
                    "artifactLocation": _place(report, finding.path),
                    "region": {"startLine": finding.line or 1},
                },
                "logicalLocations": [{"name": finding.model, "kind": "module"}],
            }
        ],
    }


def _place(report: Report, path: Path) -> dict[str, str]:
    whole = path.absolute()
    under_checkout = whole.is_relative_to(Path.cwd())
    base = Path.cwd() if under_checkout else report.repository.absolute()
    uri = whole.relative_to(base).as_posix() if whole.is_relative_to(base) else whole.name
    return {"uri": quote(os.fsencode(uri)), "uriBaseId": _CHECKOUT if under_checkout else _REPOSITORY}
