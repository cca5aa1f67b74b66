"""What a recipe may not say is answered in a person's words: the line, the value, and what belongs there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from support import Project

from tritonkit.errors import RecipeError
from tritonkit.recipe import load_any

RECIPE: dict[str, Any] = {
    "name": "clf",
    "source": "clf.py:load",
    "inputs": {"tokens": {"dtype": "int64", "dims": ["n"]}},
    "outputs": {"topic": {"dtype": "fp32", "dims": [6]}},
    "shapes": {"n": {"min": 4, "opt": 64, "max": 128}},
}
# Words of pydantic, Python and regular expressions.
JARGON = (
    "Input should",
    "instance of",
    "Tuple",
    "tuple",
    "Dictionary",
    "dictionary",
    "pattern",
    "constrained",
    "parse ",
)


def tokens(**spec: Any) -> dict[str, Any]:
    return {"inputs": {"tokens": {"dtype": "int64", "dims": ["n"], **spec}}}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"slo": "p99_ms=30"}, "slo: p99_ms=30 does not belong here; write  slo: {p99_ms: 50}"),
        ({"slo": {"p99_ms": "30ms"}}, "slo.p99_ms: a number belongs here, got 30ms"),
        ({"shapes": {"n": 128}}, "shapes.n: 128 does not belong here; write  n: {min: 1, opt: 16, max: 128}"),
        ({"shapes": {"m": {"min": 1, "opt": 2, "max": 3}}}, "'n' has no range, and shapes.m no dimension: use one name"),
        ({"precisions": "fp16"}, "precisions: a list belongs here, got fp16; write  precisions: [fp16]"),
        ({"precisions": ["fp61"]}, "precisions.0: fp61 is none of 'fp32', 'fp16', 'bf16', 'int8' or 'fp8'; did you mean 'fp16'?"),
        ({"precisions": []}, "precisions: at least 1 must be named, got []"),
        ({"name": "my clf"}, "net.yaml:1: name: my clf is no name: letters, digits"),
        ({"gpus": ["h1000"]}, "gpus: there is no GPU 'h1000' here: did you mean h100"),
        ({"max_batch_size": "many"}, "max_batch_size: a whole number belongs here, got many"),
        ({"max_batch_size": -1}, "max_batch_size: must be at least 0, got -1"),
        ({"tf32": "maybe"}, "tf32: true or false belongs here, got maybe"),
        ({"source": None}, "source: there is nothing here; write  source: module:function"),
        ({"source": {"onx": "a.onnx"}}, "source: {onx: a.onnx} does not belong here; write  source: module:function"),
        (tokens(dims=[-1]), "inputs.tokens.dims.0: -1 is no dimension: a size from 1 on"),
        (tokens(dims="n"), "inputs.tokens.dims: a list belongs here, got n; write  dims: [n]"),
        ({"inputs": {"tokens": "int64"}}, "inputs.tokens: int64 does not belong here; write  tokens: {dtype: "),
        ({"engine": "onnx"}, "engine: there is no engine 'onnx'\n"),
        ({"engine": "vllm", "slo": "fast"}, "slo: fast does not belong here; write  slo: {ttft: {p99_ms: 500}}"),
    ],
)  # fmt: skip
def test_a_wrong_value_is_answered_with_what_belongs_there(changes: dict[str, Any], words: str, tmp_path: Path) -> None:
    path = tmp_path / "net.yaml"
    path.write_text(yaml.safe_dump(RECIPE | changes, sort_keys=False))
    with pytest.raises(RecipeError) as error:
        load_any(path)
    assert words in str(error.value)
    assert not [word for word in JARGON if word in str(error.value)]
    if "engine" not in changes:
        assert error.value.message.count("\n") == 0  # one mistake, one line


def test_a_recipe_that_is_not_there_names_the_one_that_was_meant(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipes = tmp_path / "build" / "recipes"
    recipes.mkdir(parents=True)
    for path in (tmp_path / "classifier.yaml", recipes / "small_net.yaml"):
        path.write_text("name: x")
    monkeypatch.chdir(tmp_path)
    for given, meant in (("clasifier.yaml", "classifier.yaml"), ("small_net", "build/recipes/small_net.yaml")):
        with pytest.raises(RecipeError, match=f"there is no recipe {given}; did you mean {meant}"):
            load_any(Path(given))
    with pytest.raises(RecipeError, match=r"there is no recipe other\.yaml\n"):
        load_any(Path("other.yaml"))


def test_init_speaks_of_files_and_not_of_a_recipe_that_nobody_has(project: Project) -> None:
    project.write()
    (project.directory / "readme.md").write_text("hello")
    (project.directory / "weights.pt").write_bytes(b"x")
    for model, words, fix in (
        ("absent.onnx", "there is no file", "check the path"),
        ("nett.py:load", "did you mean", "net.py"),
        ("absent.ubj", "there is no file", "check the path"),
        ("net.py", "may have several functions", ":load"),
        ("net.py:lod", "net.py has no 'lod'", "it has: "),
        ("readme.md:load", "is no Python file", "ends in .py"),
        ("weights.pt", "has weights, and no code", "write a function"),
    ):
        status, _, err = project.run("init", f"{project.directory}/{model}")
        assert status == 2, model
        assert words in err
        assert fix in err
        assert "recipe.yaml" not in err
        assert "relative to the recipe" not in err


def test_init_names_the_inputs_that_are_still_to_be_said(project: Project) -> None:
    project.write(
        "import torch\nclass Sum(torch.nn.Module):\n    def forward(self, x, mask):\n        return x + mask\n"
    )
    status, _, err = project.run("init", f"{project.directory}/net.py:Sum", "--input", "x:fp32:4")
    assert status == 2
    assert "say an --input for each of x, mask" in err
