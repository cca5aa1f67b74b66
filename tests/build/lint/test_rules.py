"""Every rule: it finds its bad model and nothing wrong in its good one, and the real server agrees with both."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tritonkit.repository import lint
from tritonkit.repository.lint import RULES, registry

from .cases import CASES
from .lab import DIED, NO_ANSWER, PARTS, Case, Files, Served, write

ENFORCED_HERE = {
    registry.CORE,
    registry.PYTHON,
    registry.ONNXRUNTIME,
    registry.TRITONKIT,
    registry.FIL,
    "the model's backend",
}


def each(cases: list[Case]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("case", cases, ids=[case.name for case in cases])


by_name = each(CASES)


def check_model(place: Path, name: str, files: Files, options: lint.Options) -> list[lint.Finding]:
    """What lint says of one model; that of an ensemble in a repository with its parts."""
    parts = PARTS if "ensemble" in str(files.get("config.pbtxt")) else {}
    for part, part_files in (parts | {name: files}).items():
        write(place / part, part_files)
    return [finding for finding in lint.check(place, options).findings if finding.model == name]


@by_name
def test_the_bad_model_breaks_its_rule_and_has_no_other_error(case: Case, tmp_path: Path) -> None:
    findings = check_model(tmp_path, f"{case.name}_bad", case.bad, case.options)
    mine = [finding for finding in findings if finding.rule == case.rule]
    assert mine, [finding.message for finding in findings]
    assert mine[0].severity == (case.severity or RULES[case.rule].severity)
    assert {finding.rule for finding in findings if finding.severity == "error"} <= {case.rule}
    assert re.search(r"[^.]$", mine[0].message), "a message has no full stop: the report adds what follows"
    assert mine[0].fix
    assert mine[0].path.is_relative_to(tmp_path / f"{case.name}_bad")


@by_name
def test_the_good_model_keeps_the_rule_and_has_no_error(case: Case, tmp_path: Path) -> None:
    findings = check_model(tmp_path, f"{case.name}_good", case.good, case.good_options or case.options)
    assert [finding.message for finding in findings if finding.rule == case.rule or finding.severity == "error"] == []


@by_name
def test_triton_refuses_the_bad_model_if_it_enforces_the_rule(case: Case, refusals: dict[str, str]) -> None:
    enforced = RULES[case.rule].enforced_by in ENFORCED_HERE
    assert enforced == bool(case.says), "what Triton enforces must be put to it, and nothing else"
    if enforced:
        words = refusals[f"{case.name}_bad"].lower()
        assert case.says.lower() in words or (case.hangs and NO_ANSWER in words) or (case.ends and DIED in words)


@each([case for case in CASES if case.runs])
def test_triton_loads_the_good_model(case: Case, served: Served) -> None:
    assert served.why_not(f"{case.name}_good") == ""


@each([case for case in CASES if case.advised])
def test_triton_loads_what_lint_only_advises_against(case: Case, served: Served) -> None:
    """The bad models of warnings are loaded, or the rules would have to be errors."""
    assert served.why_not(f"{case.name}_bad") == ""


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("tk033_input", "expected 2 inputs but got 1 inputs"),
        ("tk054", "Request timeout expired"),
        ("tk122", "does not implement `execute` method"),
    ],
)
def test_requests_fail_where_lint_says_so_though_triton_loads_the_model(name: str, words: str, served: Served) -> None:
    assert served.infer(served.same[f"{name}_good"]) == ""
    assert words in served.infer(f"{name}_bad")


def test_every_rule_has_a_case_an_explanation_and_a_lasting_id() -> None:
    assert {case.rule for case in CASES} == set(RULES)
    assert len({case.name for case in CASES}) == len(CASES)
    assert len({rule.slug for rule in RULES.values()}) == len(RULES) >= 25
    for rule in RULES.values():
        assert re.fullmatch(r"TK\d{3}", rule.id)
        assert len(rule.explanation) > 60, rule.id
        assert rule.severity != "error" or rule.enforced_by
