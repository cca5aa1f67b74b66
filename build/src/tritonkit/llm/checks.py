"""Whether a directory fits its recipe: every value that the engine would refuse is refused here, with its limit.

Limits are those of vLLM 0.24.0 (``vllm/config/model.py``, ``vllm/config/lora.py``), and hold for TensorRT-LLM where it
has the same ones. What only costs something is a note.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import cast

from tritonkit import gpus
from tritonkit.errors import RecipeError, SourceError
from tritonkit.llm import adapters, architectures, directory, kv_cache, weights
from tritonkit.llm.adapters import Adapter
from tritonkit.llm.directory import Directory
from tritonkit.llm.kv_cache import KvCache
from tritonkit.llm.weights import Weights
from tritonkit.recipe import LORA_RANKS, Dtype, LanguageRecipe, line_in

BF16_SINCE = (8, 0)  # vLLM: "Bfloat16 is only supported on GPUs with compute capability of at least 8.0"
_WORDS = {"float32": "fp32", "float16": "fp16", "bfloat16": "bf16", "F32": "fp32", "F16": "fp16", "BF16": "bf16"}
# quant_method of config.json → the recipe's word. Others (compressed-tensors, bitsandbytes, …) the recipe leaves out.
_METHODS = {"fp8": "fp8", "fbgemm_fp8": "fp8", "awq": "awq", "gptq": "gptq"}


@dataclass(frozen=True)
class Problem:
    """A value of the recipe that the engine refuses: the keys of its place, what is wrong, and the fix."""

    keys: tuple[str, ...]
    message: str
    fix: str


@dataclass(frozen=True)
class Checked:
    """A recipe and its directory, which fit each other.

    Attributes:
        recipe: The recipe.
        directory: What it names.
        weights: The directory's weights.
        adapters: The recipe's adapters.
        dtype: What the model is computed in.
        kv_cache: The KV cache on each GPU.
        notes: What is allowed and should be known.
    """

    recipe: LanguageRecipe
    directory: Directory
    weights: Weights
    adapters: tuple[Adapter, ...]
    dtype: Dtype
    kv_cache: KvCache
    notes: tuple[str, ...]

    @property
    def max_model_len(self) -> int:
        """The longest context that is served, in tokens; vLLM's own 2,048 where nothing says one."""
        return self.recipe.max_model_len or self.directory.longest[0] or 2048

    @property
    def max_lora_rank(self) -> int:
        """The rank that the engine prepares for."""
        return self.recipe.max_lora_rank or _fitting_rank(self.adapters)

    @property
    def weights_bytes(self) -> int:
        """Bytes of the weights in memory, of all GPUs together.

        Unquantized ones are in ``dtype``; a matrix that vLLM quantizes to fp8 while it loads has a byte a number.
        """
        if self.directory.quantization:
            return self.weights.checkpoint_bytes
        width = kv_cache.BYTES[self.dtype]
        if self.recipe.quantization != "fp8":
            return self.weights.parameters * width
        tensors = self.weights.tensors.items()
        return sum(tensor.elements * (1 if _is_quantized(name, tensor.shape) else width) for name, tensor in tensors)


def _is_quantized(name: str, shape: tuple[int, ...]) -> bool:
    return len(shape) == 2 and not any(word in name for word in ("embed", "lm_head", "wte", "wpe", "norm"))


def check(recipe: LanguageRecipe) -> Checked:
    """Hold a recipe against its directory.

    Raises:
        RecipeError: Values that do not fit, all of them, each with its line.
        SourceError: The directory, its weights or an adapter is missing or broken.
    """
    checkpoint = directory.read(recipe.directory / recipe.source.hf)
    if unknown := list(_architecture(recipe, checkpoint)):
        raise _as_error(recipe, unknown)
    problems = list(_shape(recipe, checkpoint))
    if not checkpoint.has_tokenizer:
        raise SourceError(
            f"{checkpoint.path} has no tokenizer (tokenizer.json or tokenizer.model)",
            "copy the tokenizer's files beside config.json, or  tokenizer.save_pretrained(DIRECTORY)",
        )
    problems += _quantization(recipe, checkpoint)
    problems += _gpus(recipe, checkpoint)
    read = weights.read(checkpoint) if not problems else None
    loaded: list[Adapter] = []
    for name, place in recipe.adapters.items() if read else ():
        loaded.append(adapters.read(name, recipe.directory / place, cast("Weights", read)))
    problems += _ranks(recipe, loaded)
    if problems or read is None:
        raise _as_error(recipe, problems)
    dtype = recipe.dtype or dtype_of(checkpoint, recipe.gpus)
    kept = "fp8" if recipe.kv_cache_dtype == "fp8" else dtype
    cache = kv_cache.of(checkpoint, kept, recipe.tensor_parallel_size)
    notes = (*_notes(recipe, checkpoint, dtype), *_adapter_notes(checkpoint, loaded))
    return Checked(recipe, checkpoint, read, tuple(loaded), dtype, cache, notes)


def dtype_of(checkpoint: Directory, names: Sequence[str] = ()) -> Dtype:
    """The dtype that a checkpoint is computed in by default: its own, but 16 bits for fp32, and fp16 without bf16."""
    if any(gpu.compute_capability < BF16_SINCE for gpu in gpus.get_all(names)):
        return "fp16"
    word = _WORDS.get(checkpoint.dtype, "bf16")
    return "bf16" if word == "fp32" else cast("Dtype", word)


def _as_error(recipe: LanguageRecipe, problems: list[Problem]) -> RecipeError:
    lines = [
        f"{recipe.path}:{line_in(recipe.path, *problem.keys)}: {'.'.join(problem.keys)}: {problem.message}"
        for problem in problems
    ]
    return RecipeError("\n".join(lines), "; ".join(dict.fromkeys(problem.fix for problem in problems)))


def _architecture(recipe: LanguageRecipe, checkpoint: Directory) -> Iterator[Problem]:
    name = checkpoint.architecture
    place = checkpoint.path / directory.CONFIG
    if not name:
        yield Problem(("source",), f"{place} names no architecture", "add  architectures: [...]  to config.json")
        return
    if recipe.engine != "vllm" or recipe.model_impl == "transformers":
        return
    support = architectures.find(name)
    if not support.releases:
        near = architectures.nearest(name)
        yield Problem(
            ("source",),
            f"{place} names the architecture {name}, which vLLM {' and '.join(architectures.releases())} do not have",
            (f"did you mean {near}? " if near else "")
            + "model_impl: transformers  runs it by transformers' code, where transformers has it",
        )


def _shape(recipe: LanguageRecipe, checkpoint: Directory) -> Iterator[Problem]:
    limit, field = checkpoint.longest
    max_model_len = recipe.max_model_len
    if max_model_len is not None and limit is not None and max_model_len > limit:
        yield Problem(
            ("max_model_len",), f"{max_model_len} is above {limit}, the longest context of the model ({field})",
            f"max_model_len: {limit}, or less",
        )  # fmt: skip
    if recipe.generation.max_tokens and (longest := max_model_len or limit) and recipe.generation.max_tokens >= longest:
        yield Problem(
            ("generation", "max_tokens"),
            f"{recipe.generation.max_tokens} leaves no room for a prompt in a context of {longest}",
            f"generation.max_tokens below {longest}",
        )
    size = recipe.tensor_parallel_size
    if checkpoint.heads % size:
        fitting = [count for count in range(1, checkpoint.heads + 1) if checkpoint.heads % count == 0 and count <= 64]
        yield Problem(
            ("tensor_parallel_size",), f"{size} does not divide the model's {checkpoint.heads} attention heads",
            f"tensor_parallel_size one of {', '.join(map(str, fitting))}",
        )  # fmt: skip
    elif size > 1 and checkpoint.kv_heads > size and checkpoint.kv_heads % size:
        yield Problem(
            ("tensor_parallel_size",), f"{size} does not divide the model's {checkpoint.kv_heads} KV heads",
            f"tensor_parallel_size that divides {checkpoint.kv_heads}",
        )  # fmt: skip


def _quantization(recipe: LanguageRecipe, checkpoint: Directory) -> Iterator[Problem]:
    method, present = recipe.quantization, checkpoint.quantization
    if method is None:
        return
    if present and _METHODS.get(present, present) != method:
        yield Problem(
            ("quantization",), f"{method}, and the weights are quantized by {present} (quant_method in config.json)",
            "leave quantization out: the engine reads it there",
        )  # fmt: skip
    elif not present and (method in {"awq", "gptq"} or (method == "fp8" and recipe.engine == "tensorrt_llm")):
        yield Problem(
            ("quantization",), f"{method}, and {checkpoint.path / directory.CONFIG} has no quantization_config",
            f"leave quantization out, or name a directory whose weights were quantized by {method}",
        )  # fmt: skip


def _gpus(recipe: LanguageRecipe, checkpoint: Directory) -> Iterator[Problem]:
    method = recipe.quantization or _METHODS.get(checkpoint.quantization, checkpoint.quantization)
    for gpu in gpus.get_all(recipe.gpus):
        old = f"{gpu.family} has compute capability {gpu.compute}"
        if gpu.compute_capability < gpus.FP8_SINCE:
            fix = "name GPUs from 8.9 on (l4, l40s, h100, …), or leave fp8 out"
            if method == "fp8":
                key = "quantization" if recipe.quantization else "gpus"
                yield Problem((key,), f"fp8 needs compute capability 8.9, and {old}", fix)
            if recipe.kv_cache_dtype == "fp8":
                yield Problem(("kv_cache_dtype",), f"fp8 needs compute capability 8.9, and {old}", fix)
        if gpu.compute_capability < BF16_SINCE and recipe.dtype == "bf16":
            yield Problem(("dtype",), f"bf16 needs compute capability 8.0, and {old}", "dtype: fp16")


def _ranks(recipe: LanguageRecipe, loaded: list[Adapter]) -> Iterator[Problem]:
    limit = recipe.max_lora_rank or LORA_RANKS[-1]
    for adapter in loaded:
        if adapter.rank > limit:
            yield Problem(
                ("adapters", adapter.name), f"its rank is {adapter.rank}, above "
                + (f"max_lora_rank {limit}" if recipe.max_lora_rank else f"{limit}, the largest that vLLM serves"),
                f"max_lora_rank: {_fitting_rank(loaded)}" if adapter.rank <= LORA_RANKS[-1]
                else f"train an adapter of rank {LORA_RANKS[-1]} at most, or merge it into the model",
            )  # fmt: skip


def _fitting_rank(loaded: tuple[Adapter, ...] | list[Adapter]) -> int:
    largest = max((adapter.rank for adapter in loaded), default=0)
    return next((rank for rank in LORA_RANKS if rank >= largest), LORA_RANKS[-1])


def _notes(recipe: LanguageRecipe, checkpoint: Directory, dtype: Dtype) -> Iterator[str]:
    support = architectures.find(checkpoint.architecture)
    if recipe.engine == "vllm" and recipe.model_impl == "auto":
        if support.missing:
            yield (
                f"vLLM {', '.join(support.missing)} does not have {checkpoint.architecture}, "
                f"{', '.join(support.releases)} has"
            )
        if not support.generates:
            yield f"{checkpoint.architecture} embeds or classifies: it answers no prompt with text"
    if recipe.engine == "tensorrt_llm":
        yield f"whether TensorRT-LLM has {checkpoint.architecture} is not checked"
    if not checkpoint.has_chat_template:
        yield "there is no chat template: messages cannot be put into a prompt, plain prompts can"
    if recipe.dtype is None and _WORDS.get(checkpoint.dtype) == "fp32":
        yield f"the checkpoint is fp32, and is computed in {dtype}; dtype: fp32 keeps it"
    if recipe.dtype is None and _WORDS.get(checkpoint.dtype) == "bf16" and dtype == "fp16":
        yield "the checkpoint is bf16, and is computed in fp16, as not every GPU of the recipe has bf16"
    if recipe.quantization == "fp8" and not checkpoint.quantization:
        yield "the weights are quantized to fp8 while they are loaded; nothing has measured what that costs"
    if recipe.tensor_parallel_size > checkpoint.kv_heads and not checkpoint.number("kv_lora_rank"):
        yield (
            f"{checkpoint.kv_heads} KV heads on {recipe.tensor_parallel_size} GPUs: each keeps a whole one, and more "
            "GPUs add no room"
        )


def _adapter_notes(checkpoint: Directory, loaded: list[Adapter]) -> Iterator[str]:
    name = checkpoint.path.resolve().name.lower()
    for adapter in loaded:
        if adapter.base and adapter.base.rstrip("/").rpartition("/")[2].lower() != name:
            yield f"the adapter {adapter.name} says that it is for {adapter.base}; its matrices fit this model's"
