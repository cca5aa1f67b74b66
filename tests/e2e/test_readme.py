"""The README's promises, executed: its recipe, its commands, its Python, its tree, its verbs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from tritonkit import graph, recipe
from tritonkit.server import TritonServer

# What a reader brings: a network of their own, which the zoo does not have.
TWO_TOWERS = """
import torch

class TwoTowers(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv = torch.nn.Conv2d(3, 8, 3, stride=2)
        self.score = torch.nn.Linear(16, 4)
        self.embed = torch.nn.Linear(16, 16)
        self.features = torch.nn.Linear(8, 8)

    def forward(self, img, extra):
        pooled = torch.relu(self.conv(img)).mean((2, 3))
        both = torch.cat([pooled, self.features(extra)], dim=1)
        return self.score(both), self.embed(both)

def load():
    return TwoTowers()
"""


def blocks(root: Path, language: str) -> list[str]:
    """The README's fenced blocks of one language."""
    text = (root / "README.md").read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def test_recipe_commands_and_client_code_of_the_readme_serve_a_model_of_the_readers_own(
    root: Path, tmp_path: Path
) -> None:
    (said,) = blocks(root, "yaml")
    assert len(said.strip().splitlines()) <= 15, "the README promises a recipe of at most 15 lines"
    commands = [line.split("#")[0].split() for line in blocks(root, "bash")[1].splitlines()]
    assert [command[:2] for command in commands] == [["tritonkit", "build"], ["tritonkit", "serve"]]
    path = tmp_path / commands[0][2]
    path.write_text(said, encoding="utf-8")
    (tmp_path / "two_towers.py").write_text(TWO_TOWERS, encoding="utf-8")
    tritonkit = Path(sys.executable).with_name("tritonkit")
    subprocess.run([tritonkit, *commands[0][1:]], cwd=tmp_path, check=True, capture_output=True, timeout=200)
    repository = tmp_path / "model_repository"

    random = np.random.default_rng(0)
    inputs = {
        "picture": random.standard_normal((3, 3, 32, 32)).astype(np.float32),
        "features": random.standard_normal((3, 8)).astype(np.float32),
    }
    (code,) = blocks(root, "python")
    with TritonServer(repository) as server:
        scope: dict[str, object] = dict(inputs)
        exec(code.replace("grpc://127.0.0.1:8001", server.grpc_url), scope)
    out = scope["out"]
    assert isinstance(out, dict)
    expected = graph.Session(repository / "two_towers/1/model.onnx", threads=1).run(inputs)
    assert {name: array.shape for name, array in out.items()} == {"score": (3, 4), "embedding": (3, 16)}
    for name, array in expected.items():
        np.testing.assert_array_equal(out[name], array)


SAMPLES = """
import numpy as np

def samples():
    random = np.random.default_rng(0)
    for _ in range(40):
        yield {"picture": random.standard_normal((3, 32, 32)).astype(np.float32),
               "features": random.standard_normal(8).astype(np.float32)}
"""


def test_the_other_commands_of_the_readme_run_on_that_model(root: Path, tmp_path: Path) -> None:
    (said,) = blocks(root, "yaml")
    recipe_file = tmp_path / "two_towers.yaml"
    recipe_file.write_text(f"{said}samples: two_towers.py:samples\nprecisions: [fp32, fp16]\n", encoding="utf-8")
    (tmp_path / "two_towers.py").write_text(TWO_TOWERS + SAMPLES, encoding="utf-8")
    tritonkit = Path(sys.executable).with_name("tritonkit")

    def run(*arguments: str) -> str:
        done = subprocess.run(
            [tritonkit, *arguments], cwd=tmp_path, capture_output=True, text=True, timeout=200, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    run("build", "two_towers.yaml")
    commands = [line.split("#")[0].split()[1:] for line in blocks(root, "bash")[2].splitlines()]
    printed = {
        command[0]: run(*[recipe_file.name if word == "RECIPE" else word for word in command]) for command in commands
    }
    assert "most sensitive" in printed["sensitivity"]
    assert re.search(r"fp16 +t4 +7\.5 +ok", printed["engine"])
    assert "clean" in printed["lint"]
    assert "two_towers may run here" in printed["passport"]


def test_every_file_that_the_readmes_tree_names_exists(root: Path) -> None:
    tree = blocks(root, "text")[-1]
    folders: list[str] = []
    named = []
    for line in tree.splitlines():
        depth = len(re.split(r"[├└]", line)[0]) // 4
        entry = re.split(r"── ", line)[1].split()[0]
        folders[depth:] = [entry.rstrip("/")]
        named.append("/".join(folders))
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
    documented = (root / "docs/recipes.md").read_text(encoding="utf-8")
    assert all(f"`{key}`" in documented for key in recipe.Recipe.model_fields if key != "path")
    assert all(f"`{key}`" in documented for key in recipe.Batching.model_fields)
    used = yaml.safe_load((root / f"build/recipes/{name}.yaml").read_text(encoding="utf-8"))
    assert all(f"`{key}`" in documented for key in used)
