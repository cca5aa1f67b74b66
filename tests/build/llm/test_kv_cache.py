"""Bytes of the KV cache against published architectures: those of models whose configurations have traps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from languagemodels import described

from tritonkit.llm import directory, kv_cache

GIB = 2**30


def plain(kind: str, layers: int, hidden: int, heads: int, kv_heads: int, **more: Any) -> dict[str, Any]:
    return {"model_type": kind, "num_hidden_layers": layers, "hidden_size": hidden, "num_attention_heads": heads,
            "num_key_value_heads": kv_heads, "max_position_embeddings": 131072, **more}  # fmt: skip


def nested(kind: str, **text: Any) -> dict[str, Any]:
    return {"model_type": kind, "text_config": {**text, "model_type": f"{kind}_text"}}


def mla(layers: int, hidden: int, heads: int, kind: str) -> dict[str, Any]:
    return plain(kind, layers, hidden, heads, heads, kv_lora_rank=512, qk_rope_head_dim=64, qk_nope_head_dim=128)


GPT_OSS = {"head_dim": 64, "sliding_window": 128}
# Fields of each model's config.json; bytes a token in 16 bits, and GiB of a sequence of 8k, 32k and 128k tokens, as
# vLLM 0.26's KVCacheSpecs give them.
MODELS = [
    ("llama-3-8b", plain("llama", 32, 4096, 32, 8), 131_072, (1.0, 4.0, 16.0)),
    ("llama-3-70b", plain("llama", 80, 8192, 64, 8), 327_680, (2.5, 10.0, 40.0)),
    ("llama-3-405b", plain("llama", 126, 16384, 128, 8), 516_096, (3.938, 15.75, 63.0)),
    ("llama-2-7b", plain("llama", 32, 4096, 32, 32), 524_288, (4.0, 16.0, 64.0)),
    ("llama-2-70b", plain("llama", 80, 8192, 64, 8), 327_680, (2.5, 10.0, 40.0)),
    ("qwen2.5-7b", plain("qwen2", 28, 3584, 28, 4, sliding_window=131072, use_sliding_window=False, max_window_layers=28),
     57_344, (0.438, 1.75, 7.0)),
    ("qwen2.5-72b", plain("qwen2", 80, 8192, 64, 8, sliding_window=131072, use_sliding_window=False, max_window_layers=80),
     327_680, (2.5, 10.0, 40.0)),
    ("qwen3-8b", plain("qwen3", 36, 4096, 32, 8, head_dim=128), 147_456, (1.125, 4.5, 18.0)),
    ("qwen3-32b", plain("qwen3", 64, 5120, 64, 8, head_dim=128), 262_144, (2.0, 8.0, 32.0)),
    ("qwen3-30b-a3b", plain("qwen3_moe", 48, 2048, 32, 4, head_dim=128), 98_304, (0.75, 3.0, 12.0)),
    ("qwen3-235b-a22b", plain("qwen3_moe", 94, 4096, 64, 4, head_dim=128), 192_512, (1.469, 5.875, 23.5)),
    ("mistral-7b-v0.1", plain("mistral", 32, 4096, 32, 8, sliding_window=4096), 131_072, (0.5, 0.5, 0.5)),
    ("mistral-7b-v0.3", plain("mistral", 32, 4096, 32, 8, sliding_window=None), 131_072, (1.0, 4.0, 16.0)),
    ("mixtral-8x7b", plain("mixtral", 32, 4096, 32, 8, sliding_window=None), 131_072, (1.0, 4.0, 16.0)),
    ("gemma-2-9b", plain("gemma2", 42, 3584, 16, 8, head_dim=256, sliding_window=4096), 344_064, (1.969, 5.906, 21.656)),
    ("gemma-3-12b", nested("gemma3", hidden_size=3840, num_hidden_layers=48, num_attention_heads=16,
                           num_key_value_heads=8, head_dim=256, sliding_window=1024), 393_216, (0.812, 2.312, 8.312)),
    ("gemma-3-27b", nested("gemma3", hidden_size=5376, num_hidden_layers=62, num_attention_heads=32,
                           num_key_value_heads=16, head_dim=128, sliding_window=1024), 507_904, (1.031, 2.906, 10.406)),
    ("gpt-oss-20b", plain("gpt_oss", 24, 2880, 64, 8, **GPT_OSS), 49_152, (0.19, 0.753, 3.003)),
    ("gpt-oss-120b", plain("gpt_oss", 36, 2880, 64, 8, **GPT_OSS), 73_728, (0.286, 1.129, 4.504)),
    ("deepseek-v3", mla(61, 7168, 128, "deepseek_v3"), 70_272, (0.536, 2.145, 8.578)),
    ("deepseek-v2-lite", mla(27, 2048, 16, "deepseek_v2"), 31_104, (0.237, 0.949, 3.797)),
]  # fmt: skip


@pytest.mark.parametrize(("name", "config", "a_token", "gib"), MODELS, ids=[model[0] for model in MODELS])
def test_bytes_of_a_token_and_of_a_sequence(
    name: str, config: dict[str, Any], a_token: int, gib: tuple[float, ...], tmp_path: Path
) -> None:
    cache = kv_cache.of(directory.read(described(tmp_path / name, **config)))
    assert cache.bytes_per_token == a_token
    sizes = [cache.sequence_bytes(tokens) / GIB for tokens in (8192, 32768, 131072)]
    assert sizes == pytest.approx(gib, abs=0.00051)


def test_fp8_halves_the_cache_and_gpus_share_whole_heads(tmp_path: Path) -> None:
    checkpoint = directory.read(described(tmp_path / "llama", **plain("llama", 32, 4096, 32, 8)))
    assert kv_cache.of(checkpoint, "fp8").bytes_per_token == 65_536
    assert kv_cache.of(checkpoint, "bf16", 4).bytes_per_token == 32_768
    assert [kv_cache.of(checkpoint, "bf16", count).bytes_per_token for count in (16, 8)] == [16_384, 16_384]
    latent = directory.read(described(tmp_path / "deepseek", **mla(27, 2048, 16, "deepseek_v2")))
    assert kv_cache.of(latent, "bf16", 8) == kv_cache.of(latent)


def test_layers_without_attention_keep_nothing(tmp_path: Path) -> None:
    kinds = ["linear_attention", "linear_attention", "full_attention", "linear_attention"]
    checkpoint = directory.read(described(tmp_path / "hybrid", **plain("hybrid", 4, 64, 4, 2, layer_types=kinds)))
    assert kv_cache.of(checkpoint).bytes_per_token == 2 * 2 * 16 * 2
