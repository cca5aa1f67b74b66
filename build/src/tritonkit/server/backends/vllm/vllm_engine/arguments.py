"""The command line of vLLM's OpenAI server, from what ``model.json`` and ``multi_lora.json`` say.

Both are read as NVIDIA's backend reads them. What they leave open is vLLM's own default, except on a CPU: there it is
fp32, as bf16 gave wrong answers on a Xeon, without compilation, which takes minutes on two cores, and with a KV cache
for a few contexts, as vLLM would take nine tenths of the machine's memory.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

ENGINE_ARGUMENTS = "model.json"
ADAPTERS = "multi_lora.json"
PASSPORT = "passport.json"
# Arguments whose value is a path, or may be one.
PATHS = ("model", "tokenizer", "hf_config_path", "generation_config", "chat_template", "download_dir")
# Options without a negation, as false is their default (vllm/engine/arg_utils.py, 0.32.0).
ONLY_TRUE = ("disable_log_stats", "aggregate_engine_logging", "data_parallel_multi_port_external_lb")
OPEN_DTYPES = ("", "auto")
# On a CPU, room for so many contexts of full length, within these bounds; vLLM fills what it takes at once.
CONTEXTS = 4
LEAST_CACHE_BYTES, MOST_CACHE_BYTES = 2**28, 2**32
KV_CACHE_VARIABLE = "VLLM_CPU_KVCACHE_SPACE"  # GiB; vLLM's own, and stronger than an argument
ITEM_BYTES = {"float32": 4, "float": 4, "float16": 2, "half": 2, "bfloat16": 2}


class SettingsError(ValueError):
    """The files say something that cannot be served."""


@dataclass(frozen=True)
class Settings:
    """What one instance of a model is served with.

    Attributes:
        name: Of the model, as callers know it.
        arguments: Keyword of vLLM's engine arguments to its value, paths as they are on this machine.
        adapters: Name to path of each LoRA adapter, in the order of the file.
        on_cpu: Whether vLLM runs on the CPU.
        notes: What was decided for the files, one sentence each.
    """

    name: str
    arguments: dict[str, Any]
    adapters: dict[str, str] = field(default_factory=dict)
    on_cpu: bool = False
    notes: tuple[str, ...] = ()

    @property
    def log_stats(self) -> bool:
        """Whether vLLM keeps the statistics that its metrics come from."""
        return not self.arguments.get("disable_log_stats")

    def command_line(self, port: int) -> list[str]:
        """The arguments of ``python -m vllm.entrypoints.openai.api_server`` for a port of this machine."""
        line = ["--host", "127.0.0.1", "--port", str(port), "--disable-uvicorn-access-log"]
        for key, value in self.arguments.items():
            line += _argument(key, value)
        if self.adapters:
            line.append("--lora-modules")
            line += [json.dumps({"name": name, "path": path}) for name, path in self.adapters.items()]
        return line


def read_settings(version_directory: str | Path, name: str, kind: str, *, on_cpu: bool) -> Settings:
    """What a model's files say.

    Args:
        version_directory: The folder with ``model.json``.
        name: The model's name.
        kind: Of its instance: ``CPU``, ``GPU`` or ``MODEL``.
        on_cpu: Whether vLLM runs on the CPU.

    Raises:
        SettingsError: A file is missing, is not a JSON object, or contradicts the instance.
    """
    directory = Path(version_directory)
    arguments = _booleans(_read_object(directory / ENGINE_ARGUMENTS))
    parallel = int(arguments.get("tensor_parallel_size", 1)) * int(arguments.get("pipeline_parallel_size", 1))
    if parallel > 1 and kind == "GPU":
        raise SettingsError(
            f"{name} takes {parallel} GPUs, and KIND_GPU gives an instance one; write KIND_MODEL in its instance_group"
        )
    for key in PATHS:
        if isinstance(arguments.get(key), str):
            arguments[key] = locate(arguments[key], directory)
    adapters = {}
    if arguments.get("enable_lora"):
        listed = _read_object(directory / ADAPTERS)
        adapters = {adapter: locate(path, directory) for adapter, path in listed.items()}
    names: Any = arguments.pop("served_model_name", None) or []
    names = [names] if isinstance(names, str) else list(names)
    arguments["served_model_name"] = [name, *(other for other in names if other != name)]
    notes = _choose_for_cpu(arguments, directory) if on_cpu else []
    return Settings(name, arguments, adapters, on_cpu, tuple(notes))


def locate(path: str, version_directory: Path) -> str:
    """Where a path of the image's is on this machine; any other is left as it is.

    ``/models/NAME/1/weights`` is ``NAME/1/weights`` of the repository that is served, wherever that lies.
    """
    if not path.startswith("/"):
        return path
    repository, name = version_directory.parent.parent, version_directory.parent.name
    parts = PurePosixPath(path).parts
    for start in range(1, len(parts) - 1):
        inside = repository.joinpath(*parts[start:])
        if (parts[start] == name or not os.path.exists(path)) and inside.exists():  # noqa: PTH110
            return str(inside)
    return path


def weights_bytes(arguments: dict[str, Any]) -> int:
    """Bytes of a directory's weights once they are loaded, as its files' sizes tell; 0 if that is no directory."""
    directory = Path(str(arguments.get("model", "")))
    sizes = [path.stat().st_size for path in directory.glob("*.safetensors")]
    stored = ITEM_BYTES.get(str(_config(directory).get("torch_dtype") or _config(directory).get("dtype")), 0)
    loaded = ITEM_BYTES.get(str(arguments.get("dtype")), 0)
    return sum(sizes) * loaded // stored if stored and loaded and not arguments.get("quantization") else sum(sizes)


def kv_cache_bytes(arguments: dict[str, Any]) -> int:
    """A KV cache for a laptop: :data:`CONTEXTS` full contexts of attention without windows, one if that is more.

    Two tensors of a layer hold a vector for each key-value head and token.
    """
    config = _config(Path(str(arguments.get("model", ""))))
    config = config.get("text_config", config)
    try:
        heads = config.get("num_key_value_heads") or config["num_attention_heads"]
        width = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
        tokens = arguments.get("max_model_len") or config["max_position_embeddings"]
        item = ITEM_BYTES.get(str(arguments.get("dtype")), 4)
        context = 2 * int(config["num_hidden_layers"]) * int(heads) * int(width) * int(tokens) * item
    except (KeyError, TypeError, ValueError):
        return MOST_CACHE_BYTES
    return max(min(max(CONTEXTS * context, LEAST_CACHE_BYTES), MOST_CACHE_BYTES), context * 9 // 8)


def check_memory(settings: Settings, available_bytes: int) -> None:
    """Refuse what does not fit this machine's memory, which the kernel would otherwise end without a word.

    Raises:
        SettingsError: The weights and the KV cache do not fit.
    """
    weights, cache = weights_bytes(settings.arguments), settings.arguments.get("kv_cache_memory_bytes")
    if os.environ.get(KV_CACHE_VARIABLE):
        cache = int(os.environ[KV_CACHE_VARIABLE]) * 2**30
    needed = weights + int(cache or 0)
    if needed > available_bytes:
        raise SettingsError(
            f"{settings.name} needs {gib(needed)}: {gib(weights)} for weights in {settings.arguments.get('dtype')} and "
            f"{gib(int(cache or 0))} for the KV cache; {gib(available_bytes)} of this machine's memory are free. "
            "Serve fewer models, or set a smaller kv_cache_memory_bytes in model.json"
        )


def available_memory() -> int:
    """Bytes that a new process may take, as the kernel estimates it."""
    for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return 2**63  # /proc says it on every Linux since 3.14


def gib(count: int) -> str:
    """Bytes in words."""
    return f"{count / 2**30:.1f} GiB"


def _choose_for_cpu(arguments: dict[str, Any], directory: Path) -> list[str]:
    """Fill in what a CPU needs and the files leave open; says what."""
    notes = []
    given = str(arguments.get("dtype", ""))
    if given in OPEN_DTYPES or _dtype_is_open(directory):
        arguments["dtype"] = "float32"
        if given not in (*OPEN_DTYPES, "float32"):
            notes.append(f"dtype float32 on a CPU, as the recipe leaves it open ({given} is for GPUs)")
    arguments.setdefault("enforce_eager", True)
    if arguments.get("kv_cache_memory_bytes") is None and not os.environ.get(KV_CACHE_VARIABLE):
        arguments["kv_cache_memory_bytes"] = kv_cache_bytes(arguments)
        notes.append(
            f"a KV cache of {gib(arguments['kv_cache_memory_bytes'])} on a CPU (kv_cache_memory_bytes in model.json, "
            f"or {KV_CACHE_VARIABLE} in GiB, sets it)"
        )
    return notes


def _dtype_is_open(version_directory: Path) -> bool:
    """Whether tritonkit chose the dtype: its recipe, which the passport has, names none."""
    for place in (version_directory, version_directory.parent):
        try:
            passport = json.loads((place / PASSPORT).read_text(encoding="utf-8"))
            return bool(passport["recipe"]["engine"] == "vllm" and passport["recipe"]["dtype"] is None)
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return False


def _argument(key: str, value: Any) -> list[str]:
    option = f"--{key.replace('_', '-')}"
    if value is None:
        return []
    if value is True:
        return [option]
    if value is False:
        return [] if key in ONLY_TRUE else [f"--no-{key.replace('_', '-')}"]
    if isinstance(value, dict):
        return [option, json.dumps(value)]
    if isinstance(value, (list, tuple)):
        return [option, *(item if isinstance(item, str) else json.dumps(item) for item in value)]
    return [f"{option}={value}"]  # joined, as a value may begin with a dash


def _booleans(arguments: dict[str, Any]) -> dict[str, Any]:
    """The same with "true" and "false" as what they mean: NVIDIA's backend takes them for enable_lora."""
    words: dict[str, Any] = {"true": True, "false": False}
    return {
        key: words.get(value.lower(), value) if isinstance(value, str) else value for key, value in arguments.items()
    }


def _read_object(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SettingsError(f"{path.name} is missing in {path.parent}") from None
    except (OSError, ValueError) as error:
        raise SettingsError(f"{path} cannot be read: {error}") from None
    if not isinstance(value, dict):
        raise SettingsError(f"{path} holds no JSON object")
    return value


def _config(directory: Path) -> dict[str, Any]:
    try:
        config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return config if isinstance(config, dict) else {}
