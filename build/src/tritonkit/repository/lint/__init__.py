"""Finds what is wrong with a model repository, ours or a stranger's, without a GPU and without starting Triton.

``check`` reads the repository once, lets every rule look at every model, and applies the comments that switch rules
off. Printing is :mod:`tritonkit.repository.lint.report`'s.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tritonkit.errors import OutputError
from tritonkit.repository.lint import contents, needs, pbtxt, registry, rules
from tritonkit.repository.lint.contents import Model
from tritonkit.repository.lint.findings import SEVERITIES, Finding, Options, Problem, Report
from tritonkit.repository.lint.registry import RULES, Context, Rule, rule
from tritonkit.repository.model_directory import CONFIG

__all__ = ["RULES", "Finding", "Options", "Report", "Rule", "check", "needs"]
assert rules.FAMILIES  # importing them registers their rules
STRAY = "TK001"
UNREADABLE = "TK016"
UNUSED_IGNORE = "TK190"


def check(repository: Path, options: Options | None = None) -> Report:
    """Everything that the rules find in a repository.

    Raises:
        OutputError: It is not a directory, cannot be listed, or is a model's folder.
    """
    options = options or Options()
    if not repository.is_dir():
        raise OutputError(f"{repository} is not a directory", "name a model repository; `tritonkit build` makes one")
    if (repository / CONFIG).is_file():
        raise OutputError(f"{repository} is a model's folder, not a repository", f"name {repository.absolute().parent}")
    try:
        content = contents.read(repository, options)
    except OSError as error:
        raise OutputError(
            f"{repository} cannot be listed: {error.strerror}", "give yourself the right to read it"
        ) from error
    context = Context(content, options)
    findings = [finding for model in content.models.values() for finding in _check_model(model, context)]
    return Report(repository, len(content.models), tuple(findings))


def _check_model(model: Model, context: Context) -> list[Finding]:
    rules = [
        rule for rule in registry.in_order() if (rule.always or model.usable) and (not model.stray or rule.id == STRAY)
    ]
    findings = [
        _finding(RULES[rule_id], model, problem)
        for rule in rules
        for rule_id, problem in _problems(rule, model, context)
    ]
    kept = [finding for finding in findings if not _is_ignored(finding, model)]
    kept += [_finding(RULES[UNUSED_IGNORE], model, problem) for problem in _unused(model, findings)]
    return sorted(kept, key=lambda finding: (SEVERITIES.index(finding.severity), finding.line or 0, finding.rule))


def _problems(rule: Rule, model: Model, context: Context) -> Iterator[tuple[str, Problem]]:
    """What one rule finds, each with the rule's id; a file that it may not read is a problem of its own."""
    try:
        yield from ((rule.id, problem) for problem in rule.check(model, context))
    except OSError as error:
        path = Path(str(error.filename or model.directory))
        yield (
            UNREADABLE,
            Problem(f"{path.name} cannot be read ({error.strerror})", "correct its permissions", path=path),
        )


def _finding(rule: Rule, model: Model, problem: Problem) -> Finding:
    path = problem.path or (model.config_path if model.text is not None or model.config_problem else model.directory)
    severity = problem.severity or rule.severity
    line = problem.line if path == model.config_path or problem.path else None
    return Finding(rule.id, rule.slug, severity, model.name, path, line, problem.message, problem.fix)


def _is_ignored(finding: Finding, model: Model) -> bool:
    return any(not comment.ids or finding.rule in _ids(comment) for comment in model.ignores)


def _ids(comment: pbtxt.Ignore) -> set[str]:
    return {word.upper() for word in comment.ids}


def _unused(model: Model, findings: list[Finding]) -> Iterator[Problem]:
    """Problems with the comments themselves."""
    hit = {finding.rule for finding in findings}
    for comment in model.ignores:
        if not comment.ids and not findings:
            yield Problem("the comment switches all rules off, and there is nothing to find", "remove it", comment.line)
        for word in comment.ids:
            if word.upper() not in RULES:
                near = registry.nearest(word)
                fix = f"did you mean {near}?" if near else "`tritonkit lint --rules` lists them"
                yield Problem(f"there is no rule {word}", fix, comment.line, severity="warning")
            elif word.upper() not in hit:
                yield Problem(f"{word.upper()} finds nothing here", "remove it from the comment", comment.line)


@rule(UNUSED_IGNORE, "ignore-unused", "info", "a comment that switches off a rule which finds nothing")
def ignore_unused(_model: Model, _context: Context) -> Iterator[Problem]:
    """`# tritonkit: ignore TK052` in config.pbtxt switches that rule off for the model, several ids one after another;
    without an id all rules are off. A comment that outlives its reason hides the next mistake.
    """
    return iter(())  # found after all others, by `_unused`
