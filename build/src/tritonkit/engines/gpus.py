"""The GPUs that recipes and commands may name, with what an engine depends on: compute capability and memory."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass

from tritonkit.errors import InputError


@dataclass(frozen=True)
class Gpu:
    """One data centre GPU.

    Attributes:
        name: The word in recipes and on the command line.
        capability: CUDA compute capability, major and minor (developer.nvidia.com/cuda-gpus).
        memory_gib: Device memory of the smallest part of that name, in GiB, as its datasheet sells it.
        products: Beginnings of what ``nvidia-smi --query-gpu=name`` says, without a leading ``NVIDIA``.
    """

    name: str
    capability: tuple[int, int]
    memory_gib: int
    products: tuple[str, ...]

    @property
    def sm(self) -> str:
        """``sm86`` for compute capability 8.6: what plan files are called by."""
        return "sm{}{}".format(*self.capability)

    @property
    def compute(self) -> str:
        """``8.6``, the key of Triton's ``cc_model_filenames``."""
        return "{}.{}".format(*self.capability)


_TABLE = (
    Gpu("t4", (7, 5), 16, ("Tesla T4", "T4")),
    Gpu("a100", (8, 0), 40, ("A100",)),
    Gpu("a30", (8, 0), 24, ("A30",)),
    Gpu("a10g", (8, 6), 24, ("A10G",)),
    Gpu("a10", (8, 6), 24, ("A10",)),
    Gpu("a40", (8, 6), 48, ("A40",)),
    Gpu("l4", (8, 9), 24, ("L4",)),
    Gpu("l40s", (8, 9), 48, ("L40S",)),
    Gpu("h100", (9, 0), 80, ("H100",)),
    Gpu("h200", (9, 0), 141, ("H200",)),
    Gpu("b200", (10, 0), 180, ("B200",)),
    Gpu("rtx-pro-6000", (12, 0), 96, ("RTX PRO 6000",)),
)
BY_NAME = {gpu.name: gpu for gpu in _TABLE}
FP8_SINCE = (8, 9)  # the first compute capability with E4M3 tensor cores (Ada)
TENSORRT_SINCE = (7, 5)  # the lowest that TensorRT 11 builds for


def find(name: str) -> Gpu:
    """The GPU of a name, in any case.

    Raises:
        InputError: There is none; the message suggests the nearest.
    """
    wanted = name.strip().lower()
    if wanted in BY_NAME:
        return BY_NAME[wanted]
    near = difflib.get_close_matches(wanted, BY_NAME, n=1)
    hint = f"did you mean {near[0]}? " if near else ""
    raise InputError(f"there is no GPU {name!r} here", f"{hint}known are {', '.join(BY_NAME)}")


def find_all(names: Sequence[str]) -> list[Gpu]:
    """Several at once, in their order and each once.

    Raises:
        InputError: One of them is not known.
    """
    return list(dict.fromkeys(find(name) for name in names))


def by_product(product: str) -> Gpu | None:
    """The GPU behind a product name as ``nvidia-smi`` says it; None where it is not in the table."""
    said = product.removeprefix("NVIDIA ").replace("-", " ").split(" ")
    for gpu in _TABLE:
        for known in gpu.products:
            words = known.split(" ")
            if said[: len(words)] == words:
                return gpu
    return None
