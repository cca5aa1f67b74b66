"""Hugging Face directories of random tiny language models, whole and broken, and adapters as PEFT writes them."""

from __future__ import annotations

import json
import shutil
import struct
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import save_file

TEMPLATE = "{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}\n{% endfor %}"
WORDS = ["<unk>", "<s>", "</s>", *(chr(97 + letter) for letter in range(26)), "▁"]
LLAMA = {
    "vocab_size": 32, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 128,
}  # fmt: skip

CHARACTERS = {
    "hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 1, "max_position_embeddings": 2048, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip


def save(path: Path, kind: str = "Llama", dtype: torch.dtype = torch.bfloat16, **config: Any) -> Path:
    """A directory as ``save_pretrained`` writes it, with a tokenizer and a chat template."""
    import tokenizers
    import transformers

    transformers.utils.logging.disable_progress_bar()
    torch.manual_seed(0)
    settings = getattr(transformers, f"{kind}Config")(**(LLAMA | config))
    model = getattr(transformers, f"{kind}ForCausalLM")(settings).to(dtype)
    model.save_pretrained(path)
    vocabulary = {word: number for number, word in enumerate(WORDS)}
    base = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=base, unk_token="<unk>", eos_token="</s>")
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(path)
    return path


def save_characters(path: Path, **config: Any) -> Path:
    """A directory whose tokens are printable characters, so that any text is a prompt and any answer is text.

    Random weights of 1 MB; heads of 64, which vLLM's attention has on a CPU.
    """
    import string

    import tokenizers
    import transformers

    transformers.utils.logging.disable_progress_bar()
    vocabulary = {word: number for number, word in enumerate(["<unk>", "<s>", "</s>", *string.printable])}
    torch.manual_seed(0)
    settings = transformers.LlamaConfig(**(CHARACTERS | {"vocab_size": len(vocabulary)} | config))
    transformers.LlamaForCausalLM(settings).to(torch.bfloat16).save_pretrained(path)
    base = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="<unk>"))
    base.pre_tokenizer = tokenizers.pre_tokenizers.Split(tokenizers.Regex(r"[\s\S]"), "isolated")
    base.decoder = tokenizers.decoders.Fuse()
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=base, unk_token="<unk>", bos_token="<s>", eos_token="</s>"
    )
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(path)
    return path


def copy(source: Path, target: Path, **config: Any) -> Path:
    """A copy of a directory with some keys of ``config.json`` changed; None removes a key."""
    shutil.copytree(source, target)
    settings = json.loads((target / "config.json").read_text())
    settings = {key: value for key, value in (settings | config).items() if value is not None}
    (target / "config.json").write_text(json.dumps(settings))
    return target


def described(path: Path, **config: Any) -> Path:
    """A directory that has a ``config.json`` and nothing else."""
    path.mkdir(parents=True)
    (path / "config.json").write_text(json.dumps(config))
    return path


def save_adapter(
    path: Path, rank: int = 4, width: int = 32, module: str = "q_proj", fill: float = 0.0, **config: Any
) -> Path:
    """A LoRA adapter of one module, as PEFT writes it; without ``fill`` it changes nothing."""
    path.mkdir(parents=True)
    settings = {
        "peft_type": "LORA", "r": rank, "base_model_name_or_path": "acme/llama", "bias": "none", "lora_alpha": 8,
        "target_modules": [module],
    }  # fmt: skip
    (path / "adapter_config.json").write_text(json.dumps(settings | config))
    name = f"base_model.model.model.layers.0.self_attn.{module}"
    tensors = {
        f"{name}.lora_A.weight": np.full((rank, width), fill, np.float32),
        f"{name}.lora_B.weight": np.full((width, rank), fill, np.float32),
    }
    save_file(tensors, path / "adapter_model.safetensors")
    return path


def shard(directory: Path) -> None:
    """Split the file of weights in two, with an index."""
    from safetensors.torch import load_file
    from safetensors.torch import save_file as save_torch

    tensors = load_file(directory / "model.safetensors")
    names = sorted(tensors)
    halves = [names[: len(names) // 2], names[len(names) // 2 :]]
    places: dict[str, str] = {}
    for number, half in enumerate(halves, 1):
        file = f"model-{number:05}-of-00002.safetensors"
        save_torch({name: tensors[name] for name in half}, directory / file)
        places |= dict.fromkeys(half, file)
    (directory / "model.safetensors").unlink()
    (directory / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))


def cut(path: Path, size: int) -> None:
    """Take so many bytes off a file's end."""
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - size)


def header_length(path: Path) -> int:
    """Bytes of a safetensors file before its tensors."""
    return 8 + int(struct.unpack("<Q", path.read_bytes()[:8])[0])
