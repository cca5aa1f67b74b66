"""What the verbs run models on: this machine's CPU or its NVIDIA GPUs; and which model repository belongs to each.

``model_repository`` is the CPU's. A build for CUDA has a folder of its own. Verbs that only measure build what they
serve in a temporary place (:mod:`.load.models`), unless they are given a repository.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Literal, cast, get_args

from tritonkit.errors import MissingError
from tritonkit.server import runtime

Target = Literal["cpu", "cuda"]
REPOSITORIES: dict[Target, Path] = {"cpu": Path("model_repository"), "cuda": Path("model_repository.cuda")}


def add_options(parser: argparse.ArgumentParser, what: str = "") -> None:
    """Give a verb ``--target`` and ``--repository``.

    Args:
        parser: The verb's.
        what: The repository is to a verb that writes one: "where the winner goes". Other verbs read it, if it is named.
    """
    parser.add_argument(
        "--target", choices=get_args(Target),
        help="what models run on; cuda where this machine has an NVIDIA driver, else cpu",
    )  # fmt: skip
    defaults = " or ".join(str(path) for path in REPOSITORIES.values())
    served = "serve the model as it lies there, instead of building it for the occasion"
    parser.add_argument("--repository", type=Path, help=f"{what}; {defaults} by target" if what else served)


def resolve(options: argparse.Namespace) -> Target:
    """The target of the options of a verb that writes a repository; the target's is filled in where none is named.

    Raises:
        MissingError: The target is ``cuda``, and no NVIDIA driver is loaded.
    """
    target = supported(options.target)
    options.target = target
    options.repository = options.repository or REPOSITORIES[target]
    return target


def supported(chosen: str | None) -> Target:
    """The target that was chosen, or that of this machine.

    Raises:
        MissingError: The target is ``cuda``, and no NVIDIA driver is loaded.
    """
    target = cast(Target, chosen or runtime.detect_device())
    if target == "cuda" and runtime.detect_device() != "cuda":
        raise MissingError(
            "the target is cuda, and this machine has no NVIDIA driver (no /dev/nvidiactl)",
            "run it on a machine with an NVIDIA GPU, or with TARGET=cpu (--target cpu)",
        )
    return target
