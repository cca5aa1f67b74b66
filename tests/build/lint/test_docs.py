"""docs/reference/lint.md says what the registry says."""

from __future__ import annotations

from pathlib import Path

from tritonkit.repository.lint import RULES


def test_the_table_of_rules_is_the_registry(root: Path) -> None:
    text = (root / "docs/reference/lint.md").read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if line.startswith("| TK")]
    expected = [
        f"| {rule.id} | `{rule.slug}` | {rule.severity} | {rule.summary} | {rule.enforced_by or '-'} |"
        for rule in (RULES[key] for key in sorted(RULES))
    ]
    assert rows == expected, "the table is drift; it has to be:\n" + "\n".join(expected)
