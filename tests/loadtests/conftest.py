"""Finds a browser; and one real server with a small model for each behaviour that a load test meets."""

from __future__ import annotations

import json
import os
import shutil
import string
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from models import write_models

from tritonkit.server import TritonServer

Recipes = Callable[..., Path]
SAMPLE_FUNCTIONS = """
import numpy as np
def samples():
    for number in range(64):
        yield {"left": np.full(3, number, np.float32), "right": np.full(3, -number, np.float32)}
def sleeping():
    yield {"timeout": np.array([0.02], np.float32)}
def failing():
    yield {"timeout": np.array([-1], np.float32)}
def prompts():
    yield {"prompt": np.array([b"one two three"], dtype=object)}
"""
# What a recipe says of each model of tests/models.py that is loaded here.
RECIPE_KEYS: dict[str, dict[str, Any]] = {
    "arithmetic": {
        "inputs": {name: {"dtype": "fp32", "dims": [3]} for name in ("left", "right")},
        "outputs": {name: {"dtype": "fp32", "dims": [3]} for name in ("sum", "difference")},
        "max_batch_size": 4,
        "samples": "given.py:samples",
    },
    "sleep": {
        "inputs": {"timeout": {"dtype": "fp32", "dims": [1]}},
        "outputs": {"slept": {"dtype": "fp32", "dims": [1]}},
        "max_batch_size": 1,
        "samples": "given.py:sleeping",
    },
    "writer": {
        "inputs": {"prompt": {"dtype": "string", "dims": [1]}},
        "outputs": {"word": {"dtype": "string", "dims": [1]}},
        "max_batch_size": 0,
        "samples": "given.py:prompts",
    },
}


@pytest.fixture(scope="session")
def chromium() -> str:
    """The browser's path; skips where there is none, but fails in CI."""
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if path is None:
        if os.environ.get("CI") == "true":
            pytest.fail("CI must have Chromium: .ci/run installs it")
        pytest.skip("no Chromium on this machine; `apt-get install chromium` adds it")
    return path


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    """Serves arithmetic, sleep and writer; `unloaded` is in its repository and not loaded."""
    repository = tmp_path_factory.mktemp("repository")
    write_models(repository, *RECIPE_KEYS)
    (repository / "unloaded").symlink_to(repository / "arithmetic")
    arguments = ("--model-control-mode=explicit", *(f"--load-model={name}" for name in RECIPE_KEYS))
    with TritonServer(repository, arguments=arguments, exit_timeout_s=1) as running:
        yield running


@pytest.fixture
def character_model(tmp_path: Path) -> Path:
    """The recipe of `m`, whose tokens are characters: a tokenizer and a context of 512, and no weights."""
    import tokenizers

    directory = tmp_path / "m"
    directory.mkdir()
    vocabulary = {word: number for number, word in enumerate(["<unk>", "<s>", "</s>", *string.printable])}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Split(tokenizers.Regex(r"[\s\S]"), "isolated")
    tokenizer.save(str(directory / "tokenizer.json"))
    config = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "max_position_embeddings": 512}
    (directory / "config.json").write_text(json.dumps(config))
    (tmp_path / "m.yaml").write_text("engine: vllm\nname: m\nsource: {hf: m}\n")
    return tmp_path / "m.yaml"


@pytest.fixture
def write_recipe(tmp_path: Path) -> Recipes:
    """Writes the recipe of one of these models, with some keys changed."""
    (tmp_path / "given.py").write_text(SAMPLE_FUNCTIONS, encoding="utf-8")

    def write(model: str, **changes: Any) -> Path:
        keys = RECIPE_KEYS.get(model, RECIPE_KEYS["arithmetic"])
        recipe = {"name": model, "source": {"onnx": "none.onnx"}} | keys | changes
        path = tmp_path / f"{recipe['name']}.yaml"
        path.write_text(yaml.safe_dump(recipe), encoding="utf-8")
        return path

    return write
