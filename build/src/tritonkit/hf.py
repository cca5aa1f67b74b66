"""Loads a local Hugging Face directory as a module whose inputs and outputs are plain tensors.

A directory that sentence-transformers wrote (it has ``modules.json``) becomes an embedding model with its
pooling and normalisation inside; any other becomes the architecture that its ``config.json`` names.
"""

from __future__ import annotations

import json
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
    model: torch.nn.Module = getattr(transformers, names[0]).from_pretrained(directory, local_files_only=True)
    return model


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
    encoder = transformers.AutoModel.from_pretrained(directory, local_files_only=True, add_pooling_layer=False)
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
