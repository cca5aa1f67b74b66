"""What the verbs run models on: this machine's CPU or its NVIDIA GPUs; and which model repository belongs to each.

``model_repository`` is the CPU's. A build for CUDA has a folder of its own.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Literal, cast, get_args

from tritonkit.errors import MissingError
from tritonkit.server import runtime

Target = Literal["cpu", "cuda"]
REPOSITORIES: dict[Target, Path] = {"cpu": Path("model_repository"), "cuda": Path("model_repository.cuda")}


def add_options(parser: argparse.ArgumentParser, what: str) -> None:
    """Give a verb ``--target`` and ``--repository``.

    Args:
        parser: The verb's.
        what: The repository is to the verb: "what is served".
    """
    parser.add_argument(
        "--target", choices=get_args(Target),
        help="what models run on; cuda where this machine has an NVIDIA driver, else cpu",
    )  # fmt: skip
    defaults = " or ".join(str(path) for path in REPOSITORIES.values())
    parser.add_argument("--repository", type=Path, help=f"{what}; {defaults} by target")


def resolve(options: argparse.Namespace) -> Target:
    """The target of a verb's options; the repository that belongs to it is filled in where none is named.

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
        MissingError: It is ``cuda``, and no NVIDIA driver is loaded.
    """
    target = cast(Target, chosen or runtime.detect_device())
    if target == "cuda" and runtime.detect_device() != "cuda":
        raise MissingError(
            "the target is cuda, and this machine has no NVIDIA driver (no /dev/nvidiactl)",
            "run it on a machine with an NVIDIA GPU, or with TARGET=cpu (--target cpu)",
        )
    return target
