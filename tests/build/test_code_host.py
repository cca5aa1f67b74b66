"""What a code host reads: workflows and issue forms that fit its schemas, and commands that the Makefile has."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

CHECKER = Path(sys.executable).with_name("check-jsonschema")


@pytest.mark.parametrize(
    ("schema", "pattern"),
    [
        ("vendor.github-workflows", ".github/workflows/*.yml"),
        ("custom.github-workflows-require-timeout", ".github/workflows/*.yml"),
        ("vendor.github-issue-forms", ".github/ISSUE_TEMPLATE/[!c]*.yml"),
        ("vendor.github-issue-config", ".github/ISSUE_TEMPLATE/config.yml"),
    ],
)
def test_files_fit_the_hosts_schema(root: Path, schema: str, pattern: str) -> None:
    files = sorted(root.glob(pattern))
    assert files
    command = [str(CHECKER), "--builtin-schema", schema, *map(str, files)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_command_of_the_workflows_and_hooks_exists(root: Path) -> None:
    workflows = [yaml.safe_load(path.read_text(encoding="utf-8")) for path in root.glob(".github/workflows/*.yml")]
    steps = [step for workflow in workflows for job in workflow["jobs"].values() for step in job["steps"]]
    hooks = yaml.safe_load((root / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"][0]["hooks"]
    commands = [step["run"] for step in steps if "run" in step] + [hook["entry"] for hook in hooks]
    verbs = set(re.findall(r"^([a-z-]+):.*##", (root / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named = {verb for command in commands for verb in re.findall(r"\bmake ([a-z-]+)", command)}
    assert {"lint", "setup", "build"} <= named <= verbs
    assert all(command.startswith(("make ", ".ci/run", ".venv/bin/tritonkit lint ")) for command in commands)
    assert any(command == ".ci/run" for command in commands), "the tests do not run"


def test_every_action_is_of_a_named_version(root: Path) -> None:
    text = "".join(path.read_text(encoding="utf-8") for path in root.glob(".github/workflows/*.yml"))
    used = re.findall(r"uses: (\S+)", text)
    assert used
    assert all(re.fullmatch(r"(actions|github)/[a-z-]+(/[a-z-]+)*@v\d+", action) for action in used)
