"""LoRA adapters: whether each is whole, and made for the model that the recipe names.

What vLLM refuses is taken from ``vllm/lora/peft_helper.py`` of vLLM 0.24.0.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tritonkit.errors import SourceError
from tritonkit.llm import weights
from tritonkit.llm.directory import read_json
from tritonkit.llm.weights import Tensor, Weights

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
_PART = re.compile(r"(?:base_model\.model\.)?(.+)\.lora_(A|B)(?:\.default)?\.weight")


@dataclass(frozen=True)
class Adapter:
    """One adapter.

    Attributes:
        name: What requests choose it by.
        path: Its directory.
        rank: Its rank.
        base: The model that it says it was made for; only a name.
    """

    name: str
    path: Path
    rank: int
    base: str

    @property
    def files(self) -> tuple[Path, ...]:
        """What an engine reads of it."""
        return (self.path / CONFIG, self.path / WEIGHTS)


def read(name: str, path: Path, base: Weights) -> Adapter:
    """Look at an adapter's directory.

    Args:
        name: What requests will choose it by.
        path: The directory, as PEFT writes it.
        base: The weights of the model that it is for.

    Raises:
        SourceError: The directory is missing or incomplete, vLLM serves no such adapter, or it is for another model.
    """
    if not path.is_dir():
        raise SourceError(f"there is no directory {path}", "name the directory that PEFT's save_pretrained wrote")
    config = read_json(path / CONFIG)
    if not config:
        raise SourceError(f"{path} has no {CONFIG}", "name the directory that PEFT's save_pretrained wrote")
    if not (path / WEIGHTS).is_file():
        raise SourceError(f"{path} has no {WEIGHTS}", "save the adapter with safe_serialization=True")
    if refused := list(_refused(config)):
        raise SourceError(f"{path / CONFIG}: {'; '.join(refused)}", "train the adapter without that, or merge it")
    rank = config.get("r")
    if not isinstance(rank, int) or rank < 1:
        raise SourceError(f"{path / CONFIG} has no rank (r)", "save the adapter again with PEFT")
    if missing := [key for key in ("lora_alpha", "target_modules") if config.get(key) in (None, [])]:
        raise SourceError(
            f"{path / CONFIG} has no {' and no '.join(missing)}, which vLLM needs", "save the adapter again with PEFT"
        )
    _check_base(path, weights.read_file(path / WEIGHTS), base)
    return Adapter(name, path, rank, str(config.get("base_model_name_or_path") or ""))


def _refused(config: Mapping[str, object]) -> Iterator[str]:
    if config.get("peft_type", "LORA") != "LORA":
        yield f"its peft_type is {config['peft_type']}, and only LORA is served"
    if config.get("use_dora"):
        yield "use_dora is set, which vLLM does not have"
    if config.get("bias", "none") != "none":
        yield f"bias is {config['bias']!r}, where vLLM takes none"
    if config.get("modules_to_save"):
        yield "modules_to_save is set, which vLLM does not have"


def _check_base(path: Path, tensors: Mapping[str, Tensor], base: Weights) -> None:
    """Every module that the adapter changes is in the model, with a matrix of that size where it is not quantized."""
    modules = {name.rpartition(".")[0] for name in base.tensors}
    parts = [(match[1], match[2], tensor) for name, tensor in tensors.items() if (match := _PART.fullmatch(name))]
    if not parts:
        raise SourceError(f"{path / WEIGHTS} has no lora_A and lora_B", "save the adapter with PEFT")
    for module, part, tensor in parts:
        if module not in modules:
            raise SourceError(
                f"{path} is an adapter for another model: it changes {module}, which this one does not have",
                "name the adapter of this model",
            )
        matrix = base.tensors.get(f"{module}.weight")
        if matrix is None or len(matrix.shape) != 2 or len(tensor.shape) != 2:
            continue
        width = tensor.shape[1] if part == "A" else tensor.shape[0]
        if width not in matrix.shape:
            raise SourceError(
                f"{path} is an adapter for another model: its lora_{part} of {module} is for a width of {width}, this "
                f"model's matrix is {matrix.shape[0]} × {matrix.shape[1]}",
                "name the adapter of this model",
            )
