"""The README's promises, executed: its recipe, its commands, its Python, its tree, its verbs."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from tritonkit import cli, graph, recipe
from tritonkit.server import TritonServer


def blocks(root: Path, language: str) -> list[str]:
    """The README's fenced blocks of one language."""
    text = (root / "README.md").read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def write_named(directory: Path, block: str) -> None:
    """A block whose first line is ``# name.py`` becomes that file."""
    (directory / block.splitlines()[0].removeprefix("# ")).write_text(block, encoding="utf-8")


def shell(directory: Path, *lines: str) -> str:
    """Lines of the README as a reader types them, in a shell of its own, beside a ``.venv``; gives what they print."""
    link = directory / ".venv"
    if not link.exists():
        link.symlink_to(sys.prefix)
    command = ["bash", "-e", "-c", "\n".join(lines)]
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_first_model_of_the_readme_is_served_as_typed(root: Path, tmp_path: Path) -> None:
    module, call = blocks(root, "python")
    write_named(tmp_path, module)
    *lines, serve = blocks(root, "bash")[1].splitlines()
    assert serve.split("#")[0].split() == ["tritonkit", "serve"]
    shell(tmp_path, *lines)
    written = yaml.safe_load((tmp_path / "tickets.yaml").read_text(encoding="utf-8"))
    (shown,) = blocks(root, "yaml")
    for key in ("name", "source", "inputs", "outputs"):
        assert written[key] == yaml.safe_load(shown)[key]
    with TritonServer(tmp_path / "model_repository") as server:
        scope: dict[str, Any] = {}
        exec(call.replace("grpc://127.0.0.1:8001", server.grpc_url), scope)
    session = graph.Session(tmp_path / "model_repository/tickets/1/model.onnx", threads=1)
    expected = session.run({"features": np.zeros((1, 8), np.float32)})
    assert scope["answer"].keys() == expected.keys() == yaml.safe_load(shown)["outputs"].keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(scope["answer"][name], array)


ACTIVATE = ". .venv/bin/activate"
SAMPLES = """
import numpy as np

def samples():
    random = np.random.default_rng(0)
    for _ in range(40):
        yield {"features": random.standard_normal(8).astype(np.float32)}
"""


def test_other_commands_of_the_readme_run_on_that_model(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (recipe_text,) = blocks(root, "yaml")
    assert len(recipe_text.strip().splitlines()) <= 15, "the README promises a short recipe"
    (tmp_path / "tickets.yaml").write_text(recipe_text, encoding="utf-8")
    write_named(tmp_path, blocks(root, "python")[0] + SAMPLES)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tritonkit.precision.speed.ROUND_S", 0.05)  # which variant is faster is of no account

    def run(line: str) -> str:
        """What a command prints that runs in this process: each of its own would import PyTorch for the samples."""
        capsys.readouterr()
        assert cli.main(shlex.split(line, comments=True)[1:]) == 0
        return capsys.readouterr().out

    run("tritonkit build tickets.yaml")
    printed = {}
    for line in blocks(root, "bash")[2].splitlines():
        command = line.replace("RECIPE", "tickets.yaml")
        printed[line.split()[1]] = run(command) if command != line else shell(tmp_path, ACTIVATE, command)
    assert "most sensitive" in printed["sensitivity"]
    assert re.search(r"fp16 +t4 +7\.5 +ok", printed["engine"])
    assert "clean" in printed["lint"]
    assert "tickets may run here" in printed["passport"]


def test_bad_minutes_of_the_readme_are_those_of_the_replay(root: Path) -> None:
    rows = json.loads(
        (root / "loadtests/src/tritonkit_load/benchmarks/proofs/autoscaler.json").read_text(encoding="utf-8")
    )["rows"]
    bad = {row["name"]: row["bad_minutes"] for row in rows if row["kind"] == "cpu"}
    ours, usual = bad["inFlightRequests: 2"], bad["in flight: 2, Kubernetes' own behaviour"]
    figures = f"{ours}; {usual} with Kubernetes"
    assert figures in (root / "README.md").read_text(encoding="utf-8")


def test_readme_has_at_most_150_lines(root: Path) -> None:
    assert len((root / "README.md").read_text(encoding="utf-8").splitlines()) <= 150


def test_every_file_that_the_readmes_tree_names_exists(root: Path) -> None:
    tree = blocks(root, "text")[-1]
    folders: list[str] = []
    named = []
    for line in tree.splitlines():
        depth = len(re.split(r"[├└]", line)[0]) // 4
        entries = [entry.rstrip("/") for entry in re.split(r"── ", line)[1].split("  ")[0].split(", ")]
        folders[depth:] = [entries[0]]
        named += ["/".join([*folders[:-1], entry]) for entry in entries]
        named += ["/".join([*folders[:-1], other]) for other in re.findall(r"(\w+\.py):", line)]
    missing = [path for path in named if not (root / path).exists()]
    assert len(named) > 20
    assert not missing


def test_every_make_verb_is_phony_listed_and_the_readmes_commands_are_among_them(root: Path) -> None:
    makefile = (root / "Makefile").read_text(encoding="utf-8")
    phony = set(re.search(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)[1].split())  # type: ignore[index]
    verbs = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    assert verbs == phony
    assert {
        "help",
        "setup",
        "demo",
        "build",
        "serve",
        "loadtest",
        "capacity",
        "tune",
        "compare",
        "bench",
        "bench-client",
        "bench-generator",
        "bench-tuning",
        "bench-drain",
        "bench-autoscaler",
        "deploy",
        "rollback",
        "chart",
        "test",
        "lint",
        "clean",
    } <= verbs
    helped = subprocess.run(["make"], cwd=root, capture_output=True, text=True, check=True, env=_plain()).stdout
    assert all(f"make {verb} " in helped for verb in verbs)
    commands = [line.split("#")[0].strip() for line in blocks(root, "bash")[0].splitlines()]
    assert commands == ["make demo", "make test"]
    assert "make test" in (root / ".ci/run").read_text(encoding="utf-8").splitlines()


def test_clean_leaves_the_sources_in_build_alone(root: Path) -> None:
    commands = subprocess.run(
        ["make", "--dry-run", "clean"], cwd=root, capture_output=True, text=True, check=True, env=_plain()
    ).stdout
    removed = [word for line in commands.splitlines() if line.startswith("rm ") for word in line.split()[2:]]
    assert removed
    assert not any(word.startswith(("build", "model_repository", ".venv")) for word in removed)


def _plain() -> dict[str, str]:
    """Without what an outer make passes on."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}


@pytest.mark.parametrize("name", ["efficientnet_lite0", "all_minilm_l6_v2"])
def test_recipe_documentation_names_every_key_that_a_recipe_may_have(root: Path, name: str) -> None:
    documented = (root / "docs/reference/recipes.md").read_text(encoding="utf-8")
    assert all(f"`{key}`" in documented for key in recipe.Recipe.model_fields if key != "path")
    assert all(f"`{key}`" in documented for key in recipe.Batching.model_fields)
    used = yaml.safe_load((root / f"build/recipes/{name}.yaml").read_text(encoding="utf-8"))
    assert all(f"`{key}`" in documented for key in used)
