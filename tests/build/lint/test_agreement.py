"""Lint against the real server on models that nobody thought of: configurations with one random change each."""

from __future__ import annotations

import random
import re
from pathlib import Path

from tritonkit.repository import lint
from tritonkit.repository.lint import RULES, registry

from .cases import CASES
from .lab import PARTS, Files, ask, write

MUTANTS = 60
VALUES = ("-1", "0", "1", "2", "5", '""', '"x"', "TYPE_STRING", "TYPE_INT64", "[ ]", "[ -1, 4 ]", "true", "false")
LINES = (
    "max_batch_size: 2", "dynamic_batching { }", "response_cache { enable: true }", "version_policy { all { } }",
    "instance_group { count: 1 kind: KIND_CPU gpus: 0 }", "sequence_batching { }", "optimization { }",
)  # fmt: skip


def changed(dice: random.Random, files: Files) -> Files:
    """A model with one value of its configuration replaced, or one line dropped, doubled or added."""
    text = str(files["config.pbtxt"])
    values = list(re.finditer(r"-?\b\d+\b|\btrue\b|\bfalse\b|TYPE_\w+|(?<=name: )\"\w*\"", text))
    how = dice.choice(["value", "value", "value", "drop", "double", "add"])
    if how == "value" and values:
        match = dice.choice(values)
        text = text[: match.start()] + dice.choice(VALUES) + text[match.end() :]
    elif how == "add":
        text += f"\n{dice.choice(LINES)}\n"
    else:
        lines = text.splitlines()
        at = dice.randrange(len(lines))
        lines[at : at + 1] = [] if how == "drop" else [lines[at], lines[at]]
        text = "\n".join(lines)
    return files | {"config.pbtxt": text}


def test_no_error_is_false_and_few_refusals_are_missed(tmp_path: Path) -> None:
    dice = random.Random(7)
    configured = [case for case in CASES if case.runs and isinstance(case.good.get("config.pbtxt"), str)]
    mutants = {
        f"m{number}": changed(dice, case.good) for number, case in enumerate(dice.choices(configured, k=MUTANTS))
    }
    for name, files in (PARTS | mutants).items():
        write(tmp_path / "repository" / name, files)
    here = {registry.CORE, registry.PYTHON, registry.ONNXRUNTIME, registry.TRITONKIT, "the model's backend"}
    errors = {
        finding.model: finding.message
        for finding in lint.check(tmp_path / "repository").findings
        if finding.severity == "error" and RULES[finding.rule].enforced_by in here
    }
    (tmp_path / "logs").mkdir()
    said = ask(tmp_path / "repository", dict.fromkeys(mutants, 10.0), tmp_path / "logs")
    refused = {name for name, words in said.items() if words}
    assert {name: errors[name] for name in errors if name not in refused} == {}
    missed = {name: said[name].splitlines()[0] for name in refused if name not in errors}
    assert len(missed) <= len(refused) / 20, missed
    assert MUTANTS / 4 < len(refused) < MUTANTS
