"""Language models: a Hugging Face directory becomes a model directory for NVIDIA's vLLM or TensorRT-LLM backend.

Nothing here runs an engine: what an engine would refuse is found by reading the directory. Where the model runs is
left to NVIDIA's images (docs/guides/llm.md).
"""

from tritonkit.llm.directory import Directory, is_language_model
from tritonkit.llm.kv_cache import KvCache
from tritonkit.llm.pipeline import Built, build, check

__all__ = ["Built", "Directory", "KvCache", "build", "check", "is_language_model"]
