"""Tiny language models, made once, and one server with vLLM for all tests that generate."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from languagemodels import save, save_adapter, save_characters

from tritonkit import recipe
from tritonkit.llm import pipeline
from tritonkit.server import TritonServer, engine_environment
from tritonkit_client import Client


@pytest.fixture(scope="session")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("transformers")
    return save(tmp_path_factory.mktemp("llm") / "llama")


@pytest.fixture(scope="session")
def vllm() -> engine_environment.EngineEnvironment:
    """vLLM's environment, which is 2.4 GB: `make test-llm` installs it, the suite does not."""
    environment = engine_environment.find()
    if environment is None:
        message = "vLLM is not installed for the server: `make test-llm` installs it and runs these tests"
        (pytest.fail if os.environ.get("TEST_LLM") else pytest.skip)(message)
    return environment


@pytest.fixture(scope="session")
def language_repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`tiny`: random weights, every character a token, an adapter `loud` that changes its answers."""
    pytest.importorskip("transformers")
    place = tmp_path_factory.mktemp("language")
    save_characters(place / "tiny")
    save_adapter(place / "loud", rank=8, width=128, fill=0.5)
    description = {
        "engine": "vllm", "name": "tiny", "source": {"hf": "tiny"}, "adapters": {"loud": "loud"}, "max_model_len": 1024,
        "generation": {"temperature": 0.1, "top_k": 3}, "tool_call_parser": "hermes",
    }  # fmt: skip
    (place / "tiny.yaml").write_text(yaml.safe_dump(description))
    loaded = recipe.load_any(place / "tiny.yaml")
    assert isinstance(loaded, recipe.LanguageRecipe)
    pipeline.build(pipeline.check([loaded]), place / "model_repository")
    return place / "model_repository"


@pytest.fixture(scope="session")
def language_server(language_repository: Path, vllm: engine_environment.EngineEnvironment) -> Iterator[TritonServer]:
    with TritonServer(language_repository) as server:
        yield server


@pytest.fixture(scope="session")
def language_client(language_server: TritonServer) -> Iterator[Client]:
    with Client(language_server.grpc_url) as client:
        yield client
