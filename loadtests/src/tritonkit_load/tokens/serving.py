"""A language model behind a real Triton with vLLM: from its recipe to both of its endpoints."""

from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tritonkit import llm, progress
from tritonkit import server as servers
from tritonkit.errors import CheckFailed, InputError
from tritonkit.llm import sketch
from tritonkit.passport import LanguageModel
from tritonkit.recipe import LanguageRecipe, load_any
from tritonkit.server import TritonServer, engine_environment, runtime
from tritonkit.zoo import smollm2_135m
from tritonkit_load.load.target import Target

VERSION_TIMEOUT_S = 10
CONTEXT = 2048  # of the shipped model: a quarter of its own, so that four contexts take 0.4 GB


@dataclass(frozen=True)
class Served:
    """A model that answers.

    Attributes:
        server: The running Triton.
        model: Its name.
        openai_url: Of vLLM's own API.
        vllm: The version of vLLM.
        facts: Of the build: dtype, longest context, bytes of the weights and of the KV cache.
        start_s: How long the server took to start.
    """

    server: TritonServer
    model: str
    openai_url: str
    vllm: str
    facts: LanguageModel
    start_s: float


def write_recipe(folder: Path, target: Target) -> Path:
    """The recipe of SmolLM2-135M-Instruct as ``tritonkit init`` writes it, with a context for a laptop.

    Args:
        folder: Where it is written.
        target: On a CPU it is computed in fp32, as bf16 gave wrong answers on a Xeon (decision 0027).

    Raises:
        TritonkitError: The model cannot be had.
    """
    directory = smollm2_135m.directory()
    folder.mkdir(parents=True, exist_ok=True)
    name, text = sketch.recipe(directory, folder.absolute())
    lines = [f"max_model_len: {CONTEXT}", *(["dtype: fp32"] if target == "cpu" else [])]
    path = folder / f"{name}.yaml"
    path.write_text(text + "\n".join(lines) + "\n", encoding="utf-8")
    return path


def load_recipe(path: Path) -> LanguageRecipe:
    """A recipe for vLLM.

    Raises:
        InputError: The recipe is of another kind.
        RecipeError: The file cannot be read.
    """
    recipe = load_any(path)
    if not isinstance(recipe, LanguageRecipe) or recipe.engine != "vllm":
        raise InputError(f"{path} is no recipe for vLLM", "name one with  engine: vllm  (docs/guides/llm.md)")
    return recipe


def install(target: Target) -> None:
    """Bring the server and vLLM, if they are not here yet: 1 and 2.4 GiB for a CPU.

    Raises:
        MissingError: A package cannot be had, or this machine cannot run them.
    """
    servers.install(target)
    engine_environment.install(target)


@contextmanager
def served(recipe: LanguageRecipe, repository: Path, target: Target) -> Iterator[Served]:
    """Build the recipe into ``repository``, start a Triton on that model alone, and end it with the block.

    Raises:
        TritonkitError: The recipe does not fit its directory, or the model does not start.
    """
    built = llm.build(llm.check([recipe]), repository)
    server = TritonServer(repository, runtime=runtime.find(target), models=[recipe.name])
    begun = time.monotonic()
    try:
        with progress.task("Triton") as report:
            report(f"start vLLM with {recipe.name} (a minute)")
            server.start(report)
        states = [state for state in server.language_models() if state.model == recipe.name and state.url]
        if not states:
            raise CheckFailed(f"{recipe.name} is ready and its OpenAI API is not", f"read {server.log}")
        url = states[0].url
        yield Served(
            server, recipe.name, url, _version(url), built.models[recipe.name], time.monotonic() - begun
        )  # fmt: skip
    finally:
        server.stop()


def _version(openai_url: str) -> str:
    """The version that the server at this address reports."""
    with urllib.request.urlopen(f"{openai_url.removesuffix('/v1')}/version", timeout=VERSION_TIMEOUT_S) as answer:
        return str(json.loads(answer.read())["version"])
