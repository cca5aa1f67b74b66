"""Language models of a repository: which there are, whether the server has their engine, and how far each one is.

The server's backend writes a file for each instance into the server's own folder: what its start is doing, and the
address of its OpenAI API once it answers.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from tritonkit import passport as passports
from tritonkit.errors import MissingError
from tritonkit.recipe import image_of
from tritonkit.repository import model_directory
from tritonkit.server import engine_environment
from tritonkit.server.runtime import Device

STATES = "vllm-*.json"


@dataclass(frozen=True)
class State:
    """One instance of a language model.

    Attributes:
        model: Its name.
        version: Its version.
        phase: What its start is doing; empty once it answers.
        url: Of its OpenAI API; empty until it answers.
    """

    model: str
    version: str
    phase: str = ""
    url: str = ""


def states(directory: Path) -> list[State]:
    """What the instances of a running server have written into its folder."""
    instances = []
    for path in sorted(directory.glob(STATES)):
        try:
            instances.append(State(**json.loads(path.read_text(encoding="utf-8"))))
        except (OSError, ValueError, TypeError):
            continue  # it has just been unloaded
    return instances


def models_of(repository: Path, models: Collection[str] = ()) -> list[str]:
    """Names of the models there that vLLM serves, tritonkit's and strangers'.

    Args:
        repository: Where they lie.
        models: Those that are to be served; all if empty.
    """
    folders = (path.parent for path in sorted(repository.glob(f"*/{model_directory.CONFIG}")))
    return [
        folder.name
        for folder in folders
        if (not models or folder.name in models)
        and (config := model_directory.find_config(folder))
        and config.backend == "vllm"
    ]


def check(repository: Path, models: Collection[str], of_vllm: Collection[str], device: Device | None = None) -> None:
    """Refuse language models whose engine the embedded server lacks.

    Args:
        repository: Where they lie.
        models: Those that are to be served; all if empty.
        of_vllm: Those of them that vLLM serves: :func:`models_of`.
        device: What the server is for.

    Raises:
        MissingError: An engine is missing; the fix names the command that installs it, or the image that has it.
    """
    for path in sorted(repository.glob(f"*/{model_directory.PASSPORT}")):
        if models and path.parent.name not in models:
            continue
        passport = passports.find(path)
        if passport and passport.llm and passport.llm.engine == "tensorrt_llm":
            raise MissingError(
                f"{path.parent.name} is a language model for tensorrt_llm, which the embedded server does not have",
                f"serve the repository with {image_of('tensorrt_llm')} (docs/llm.md), or one model of the others: "
                f"tritonkit serve {repository} --recipe FILE",
            )
    if of_vllm and engine_environment.find(device) is None:
        raise MissingError(
            f"{', '.join(of_vllm)}: served by vLLM, which is not installed for the Triton server",
            "run `tritonkit install-server --engine vllm`; without these models: "
            f"tritonkit serve {repository} --recipe FILE",
        )
