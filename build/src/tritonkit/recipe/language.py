"""A language model's recipe: which engine serves a Hugging Face directory, and how.

It knows the words and their bounds; whether the directory fits them is for :mod:`tritonkit.llm.checks`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import Field, field_validator, model_validator

from tritonkit.recipe.sections import MOST_VERSION, HfSource, Name, Percentiles, Section

Engine = Literal["vllm", "tensorrt_llm"]
ENGINES: tuple[Engine, ...] = get_args(Engine)
Dtype = Literal["fp32", "fp16", "bf16"]
Quantization = Literal["none", "fp8", "awq", "gptq"]
KvDtype = Literal["auto", "fp8"]
LORA_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # MaxLoRARanks in vllm/config/lora.py of vLLM 0.24.0, which has 1 too


class GenerationDefaults(Section):
    """What a request gets that does not say otherwise: the sampling parameters that vLLM lets a model preset.

    Attributes:
        temperature: 0 takes the likeliest token always.
        top_p: Share of the probability that tokens are drawn from.
        top_k: How many of the likeliest tokens they are drawn from.
        min_p: Least probability of a token, relative to the likeliest one's.
        repetition_penalty: Above 1, tokens that were there already become less likely.
        max_tokens: The longest answer.
    """

    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=1)] | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    repetition_penalty: Annotated[float, Field(gt=0, le=10)] | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None


class TokenSlo(Section):
    """What callers of a language model were promised. What is not given is not judged.

    Attributes:
        ttft: Time to the first token.
        itl: Time from one token to the next.
        tpot: Mean time of a token of one answer after its first.
        e2e: Time of the whole answer.
        error_rate: Largest share of requests that may fail.
        goodput: Least share of requests that keep every bound: the largest of ``ttft``, ``tpot`` and ``e2e``, and in
            their own gaps each of ``itl``.
    """

    ttft: Percentiles = Percentiles()
    itl: Percentiles = Percentiles()
    tpot: Percentiles = Percentiles()
    e2e: Percentiles = Percentiles()
    error_rate: Annotated[float, Field(ge=0, le=1)] = 0.001
    goodput: Annotated[float, Field(gt=0, le=1)] | None = None

    @model_validator(mode="after")
    def _goodput_has_a_latency(self) -> TokenSlo:
        if self.goodput is not None and all(part.latency_ms is None for part in self.times.values()):
            raise ValueError("goodput counts requests within a latency; add  ttft: {p99_ms: 500}")
        return self

    @property
    def times(self) -> dict[str, Percentiles]:
        """The bounds of each time, by its name."""
        return {"ttft": self.ttft, "itl": self.itl, "tpot": self.tpot, "e2e": self.e2e}


class LanguageRecipe(Section):
    """One language model: the directory that it is in, and how an engine serves it.

    Attributes:
        engine: ``vllm`` or ``tensorrt_llm``.
        name: The model's name in Triton and its directory's name in the repository.
        source: ``{hf: directory}``, relative to the recipe.
        version: The number of the version that the recipe is built into. 1 if not given.
        max_model_len: The longest context, prompt and answer together, in tokens; the directory's own if not given.
        dtype: What weights and activations are computed in; the checkpoint's own if not given.
        quantization: The method that the directory must have; whatever it has if not given. ``fp8`` also quantizes an
            unquantized checkpoint while vLLM loads it.
        kv_cache_dtype: ``fp8`` halves the KV cache; ``auto`` keeps it in ``dtype``.
        tensor_parallel_size: GPUs that share each layer.
        gpu_memory_utilization: Share of each GPU's memory that the engine may take.
        max_num_seqs: Requests that may run at the same time; the engine's own default if not given.
        model_impl: ``transformers`` runs an architecture that vLLM does not have by transformers' code.
        adapters: Name that a request chooses by, to a LoRA adapter's directory.
        max_lora_rank: The largest rank of an adapter; the smallest that fits those named if not given.
        generation: See :class:`GenerationDefaults`.
        tool_call_parser: How the model writes calls of tools, by vLLM's name for it (``hermes``): its OpenAI API then
            takes ``tools``.
        slo: See :class:`TokenSlo`.
        gpus: What it will run on (:mod:`tritonkit.gpus`); precisions are checked against them.
        path: The file this recipe was read from.
    """

    engine: Engine
    name: Name
    source: HfSource
    version: Annotated[int, Field(ge=1, le=MOST_VERSION)] | None = None
    max_model_len: Annotated[int, Field(ge=1)] | None = None
    dtype: Dtype | None = None
    quantization: Quantization | None = None
    kv_cache_dtype: KvDtype = "auto"
    tensor_parallel_size: Annotated[int, Field(ge=1, le=1024)] = 1
    gpu_memory_utilization: Annotated[float, Field(gt=0, le=1)] = 0.9
    max_num_seqs: Annotated[int, Field(ge=1, le=100_000)] | None = None
    model_impl: Literal["auto", "transformers"] = "auto"
    adapters: dict[Name, str] = Field(default={})
    max_lora_rank: int | None = None
    generation: GenerationDefaults = GenerationDefaults()
    tool_call_parser: Annotated[str, Field(pattern=r"^[a-z0-9_]+$")] | None = None
    slo: TokenSlo | None = None
    gpus: tuple[str, ...] = ()
    path: Annotated[Path, Field(exclude=True)] = Path("recipe.yaml")

    @field_validator("max_lora_rank")
    @classmethod
    def _rank_is_known(cls, value: int | None) -> int | None:
        if value is not None and value not in LORA_RANKS:
            raise ValueError(f"{value} is no rank that vLLM prepares for; one of {', '.join(map(str, LORA_RANKS))}")
        return value

    @model_validator(mode="after")
    def _ranks_need_adapters(self) -> LanguageRecipe:
        if self.max_lora_rank is not None and not self.adapters:
            raise ValueError("max_lora_rank is for adapters, and there are none; add  adapters: {NAME: directory}")
        return self

    @model_validator(mode="after")
    def _engine_takes_it(self) -> LanguageRecipe:
        if self.engine == "tensorrt_llm":
            for key, given in (
                ("generation", self.generation != GenerationDefaults()),
                ("model_impl", self.model_impl != "auto"),
                ("dtype: fp32", self.dtype == "fp32"),
                ("tool_call_parser", self.tool_call_parser is not None),
            ):
                if given:
                    raise ValueError(f"TensorRT-LLM has no {key}; leave it out, or use engine: vllm")
        return self

    @property
    def number(self) -> int:
        """The version that the recipe is built into."""
        return self.version or 1

    @property
    def served(self) -> tuple[int, ...]:
        """The versions that are served; empty where the recipe names none, which leaves it to Triton."""
        return (self.version,) if self.version else ()

    @property
    def entry(self) -> str:
        """The model that callers use."""
        return self.name

    @property
    def directory(self) -> Path:
        """The folder that relative paths in the recipe start from."""
        return self.path.parent

    def as_json(self) -> dict[str, Any]:
        """The recipe as plain data, for passports; the file's own path is not part of it."""
        return self.model_dump(mode="json")
