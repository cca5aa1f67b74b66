"""Loads a local Hugging Face directory as a module whose inputs and outputs are plain tensors.

A directory that sentence-transformers wrote (it has ``modules.json``) becomes an embedding model with its
pooling and normalisation inside; any other becomes the architecture that its ``config.json`` names. Weights are loaded
as fp32 whatever the checkpoint has: smaller types are variants, which the gate judges against fp32.
"""

from __future__ import annotations

import inspect
import json
import struct
from pathlib import Path
from typing import Any

import torch

from tritonkit.errors import MissingError, SourceError


def load(directory: Path) -> torch.nn.Module:
    """The model in ``directory``, from its own files only; nothing is fetched.

    Raises:
        SourceError: The directory is not a model, or its weights are missing.
        MissingError: ``transformers`` is not installed.
    """
    try:
        import transformers
    except ModuleNotFoundError as error:
        raise MissingError("transformers is not installed", 'pip install "tritonkit[hf]"') from error
    config = directory / "config.json"
    if not config.is_file():
        raise SourceError(f"{directory} has no config.json", "name a Hugging Face model directory")
    if not any(directory.glob("*.safetensors")) and not any(directory.glob("pytorch_model*.bin")):
        raise SourceError(f"{directory} has no weights (*.safetensors)", "copy the weights beside config.json")
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    if (directory / "modules.json").is_file():
        return _embedding(directory, transformers)
    names = json.loads(config.read_text(encoding="utf-8")).get("architectures") or []
    if not names or not hasattr(transformers, names[0]):
        raise SourceError(
            f"{config} names the architecture {names[:1] or None}, which transformers "
            f"{transformers.__version__} does not have",
            "load the model yourself in a function and name that as the source",
        )
    kind = getattr(transformers, names[0])
    model: torch.nn.Module = kind.from_pretrained(directory, local_files_only=True, dtype=torch.float32)
    return model


def checkpoint_precision(directory: Path) -> str:
    """The type that most of a checkpoint's weights have, where it is smaller than fp32: ``bf16``, ``fp16`` or empty.

    It is read in the headers of the safetensors files (https://huggingface.co/docs/safetensors, "Format"): 8 bytes of
    length, then JSON with a ``dtype`` for each tensor. Without such files it is what ``config.json`` says.
    """
    words = {"BF16": "bf16", "F16": "fp16", "bfloat16": "bf16", "float16": "fp16"}
    counts: dict[str, int] = {}
    for path in directory.glob("*.safetensors"):
        with path.open("rb") as file:
            length = struct.unpack("<Q", file.read(8))[0]
            header = json.loads(file.read(length))
        for name, entry in header.items():
            if name != "__metadata__":
                counts[entry["dtype"]] = counts.get(entry["dtype"], 0) + entry["data_offsets"][1]
    if counts:
        return words.get(max(counts, key=lambda dtype: counts[dtype]), "")
    config = _json(directory / "config.json")
    return words.get(str(config.get("dtype") or config.get("torch_dtype")).removeprefix("torch."), "")


Inputs = dict[str, tuple[str, tuple[int | str, ...]]]
TOKENS = "sequence"  # the dimension that texts have


def inputs_of(module: torch.nn.Module, directory: Path | None = None) -> tuple[Inputs, list[str]]:
    """What a Hugging Face model takes: name to dtype and dims without batch, and notes on what was guessed.

    Args:
        module: A model of transformers, or a :class:`SentenceEncoder`.
        directory: Its files, for the size of pictures where the model's own configuration does not have it.

    Raises:
        SourceError: The model needs several calls of ``forward`` for an answer, or takes neither texts nor pictures.
    """
    config: Any = getattr(module, "config", None)
    kind = type(module).__name__
    parameters = list(inspect.signature(module.forward).parameters)
    if getattr(config, "is_encoder_decoder", False) and any(name.startswith("decoder_") for name in parameters):
        raise SourceError(
            f"{kind} writes its answer step by step, with a decoder; a graph is one call of forward",
            "serve the encoder, from a function of yours:\n\n"
            + loader(kind, directory, ".get_encoder()")
            + "\n`tritonkit init FILE.py:load` then writes its recipe",
        )
    known: Inputs = {
        "input_ids": ("int64", (TOKENS,)), "attention_mask": ("int64", (TOKENS,)),
        "pixel_values": ("fp32", (getattr(_vision(config), "num_channels", 3), *_picture(config, directory))),
    }  # fmt: skip
    if "input_ids" not in parameters:
        del known["attention_mask"]  # of pictures it would mask patches, and none is needed
    inputs = {name: known[name] for name in parameters if name in known}
    if not inputs:
        raise SourceError(
            f"{kind} takes {', '.join(parameters)}; of these, init knows none ({', '.join(known)})",
            "load it in a function of yours, and say what it takes:\n\n"
            + loader(kind, directory)
            + f"\n`tritonkit init FILE.py:load --input {getattr(module, 'main_input_name', parameters[0])}:fp32:DIMS`",
        )
    notes = []
    if "input_ids" in inputs:
        notes.append(
            "Token ids other than 0 and 1 are only tried with `samples`: name a function that yields real ones."
        )
    return inputs, notes


def loader(kind: str, directory: Path | None, more: str = "") -> str:
    """Python code of a function that loads a model from a directory, as :func:`load` does."""
    place = json.dumps(str(directory) if directory else "DIRECTORY")
    return (
        "import torch\nimport transformers\n\n\ndef load():\n"
        f"    return transformers.{kind}.from_pretrained({place}, dtype=torch.float32){more}\n"
    )


def most_tokens(module: torch.nn.Module, directory: Path | None = None) -> int | None:
    """The longest text that a model takes, in tokens; None where nothing limits it.

    Models whose positions begin after the padding's (RoBERTa and its kin give their table of positions a
    ``padding_idx``) take so many fewer than ``max_position_embeddings``. What sentence-transformers cuts texts at
    (``max_seq_length``) counts too.
    """
    config: Any = getattr(getattr(module, "encoder", module), "config", None)
    positions = getattr(getattr(config, "text_config", config), "max_position_embeddings", None)
    limits = [positions] if isinstance(positions, int) and positions > 0 else []
    for name, table in module.named_modules():
        if isinstance(table, torch.nn.Embedding) and table.num_embeddings == positions and "position" in name:
            limits.append(positions - (0 if table.padding_idx is None else table.padding_idx + 1))
    cut = directory / "sentence_bert_config.json" if directory else None
    if cut and cut.is_file() and isinstance(length := _json(cut).get("max_seq_length"), int):
        limits.append(length)
    return min(limits, default=None)


def _vision(config: Any) -> Any:
    return getattr(config, "vision_config", config)


def _picture(config: Any, directory: Path | None) -> tuple[int, int]:
    """Height and width: the model's own, else what its processor makes of pictures, else 224."""
    size = getattr(_vision(config), "image_size", None)
    processor = directory / "preprocessor_config.json" if directory else None
    if size is None and processor and processor.is_file():
        settings = _json(processor)
        size = settings.get("crop_size") or settings.get("size")
    if isinstance(size, dict):
        size = (size["height"], size["width"]) if "height" in size else size.get("shortest_edge")
    if isinstance(size, (list, tuple)) and len(size) == 2:
        return int(size[0]), int(size[1])
    return (size, size) if isinstance(size, int) else (224, 224)


def _embedding(directory: Path, transformers: Any) -> torch.nn.Module:
    stages = [stage["type"].rpartition(".")[2] for stage in _json(directory / "modules.json")]
    if stages[:2] != ["Transformer", "Pooling"] or not set(stages[2:]) <= {"Normalize"}:
        raise SourceError(
            f"{directory}/modules.json has the stages {stages}; Transformer, Pooling and Normalize are known",
            "load the model yourself in a function and name that as the source",
        )
    pooling = next(stage for stage in _json(directory / "modules.json") if stage["type"].endswith("Pooling"))
    modes = _json(directory / pooling["path"] / "config.json")
    if modes.get("pooling_mode_mean_tokens"):
        pool = _mean
    elif modes.get("pooling_mode_cls_token"):
        pool = _first
    else:
        raise SourceError(f"{directory}: only mean and CLS pooling are known", "write the module yourself")
    encoder = transformers.AutoModel.from_pretrained(
        directory, local_files_only=True, dtype=torch.float32, add_pooling_layer=False
    )
    return SentenceEncoder(encoder, pool, normalize="Normalize" in stages)


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        raise SourceError(f"cannot read {path}: {error}", "copy the whole model directory") from error


def _mean(hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    weights = mask.unsqueeze(-1).to(hidden.dtype)
    return (hidden * weights).sum(1) / weights.sum(1).clamp(min=1e-9)


def _first(hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:  # noqa: ARG001 (one signature for all)
    return hidden[:, 0]


class SentenceEncoder(torch.nn.Module):
    """Token ids to one vector a text: encoder, pooling over the mask, and unit length if asked."""

    def __init__(self, encoder: torch.nn.Module, pool: Any, *, normalize: bool) -> None:
        super().__init__()
        self.encoder = encoder
        self.pool = pool
        self.normalize = normalize

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> dict[str, torch.Tensor]:
        """Embed a batch.

        Args:
            input_ids: int64, (batch, sequence).
            attention_mask: int64, (batch, sequence), 1 for a token and 0 for padding.

        Returns:
            ``sentence_embedding``: fp32, (batch, hidden).
        """
        hidden = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        vector = self.pool(hidden, attention_mask)
        if self.normalize:
            vector = torch.nn.functional.normalize(vector, dim=1)
        return {"sentence_embedding": vector}
