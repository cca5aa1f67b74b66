"""The half of ``tritonkit advise`` for language models: its options, and what it prints.

``--rps``, ``--gpu``, ``--engine``, ``--precision``, ``--price``, ``--all`` and ``--json`` are those of graphs.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, get_args

from tritonkit.cli.output import out, print_json
from tritonkit.errors import InputError

if TYPE_CHECKING:
    from tritonkit.advisor.language import Request

ENGINES = ("vllm", "tensorrt_llm")
PRECISIONS = ("bf16", "fp16", "fp8", "int4", "fp4", "mxfp4")


def add_arguments(verb: argparse.ArgumentParser) -> None:
    """Add the options that only language models have."""
    group = verb.add_argument_group("language models", "a Hugging Face directory, or its config.json alone")
    group.add_argument("--prompt", type=int, metavar="TOKENS", help="of a prompt; default: the context less the answer")
    group.add_argument("--answer", type=int, metavar="TOKENS", help="of an answer; default: 256")
    group.add_argument("--context", type=int, metavar="TOKENS", help="longest sequence; default: 8192")
    group.add_argument("--concurrency", type=int, metavar="N", help="requests in flight, instead of --rps")
    group.add_argument("--ttft-ms", type=float, metavar="MS", help="99 %% get their first token within")
    group.add_argument("--itl-ms", type=float, metavar="MS", help="mean time between the tokens of an answer")
    group.add_argument("--reuse", type=float, metavar="SHARE", help="of a prompt that the prefix cache knows")
    group.add_argument(
        "--tensor-parallel-size", type=_counts, metavar="N,N", help="GPUs that share each layer; default: 1,2,4,8"
    )
    group.add_argument("--kv-cache-dtype", choices=("auto", "fp8"), help="fp8 halves the KV cache")
    group.add_argument("--gpu-memory-utilization", type=float, metavar="SHARE", help="default: 0.9")
    group.add_argument("--max-num-batched-tokens", type=int, metavar="N", help="of a step; default: vLLM's")
    group.add_argument("--max-num-seqs", type=int, metavar="N", help="of a step; default: vLLM's")
    group.add_argument("--block-size", type=int, metavar="TOKENS", help="of the KV cache; default: vLLM's")
    group.add_argument("--steady", action="store_true", help="the same weights fill their GPUs for weeks")
    group.add_argument("--shared", action="store_true", help="models of other kinds are served beside it")


def given(options: argparse.Namespace) -> list[str]:
    """Which of these options were given."""
    parser = argparse.ArgumentParser(add_help=False)
    add_arguments(parser)
    return [f"--{name.replace('_', '-')}" for name, plain in vars(parser.parse_args([])).items()
            if getattr(options, name) != plain]  # fmt: skip


def run(options: argparse.Namespace) -> int:
    """Advise and print; 1 where no choice keeps the promise.

    Raises:
        SourceError: The model's configuration cannot be used.
        InputError: The value of an option is not allowed.
    """
    from tritonkit.advisor import language, language_table

    result = language.advise(options.model, request(options))
    if options.json:
        print_json(result.to_json())
    else:
        text = language_table.text(result, max(120, out.width), everything=options.all)
        out.print(text, markup=False, soft_wrap=True, end="")
    return 0 if result.best else 1


def request(options: argparse.Namespace) -> Request:
    """What the options ask for.

    Raises:
        InputError: ``--engine`` names one that runs no language model.
    """
    from tritonkit import gpus
    from tritonkit.advisor.language import Request
    from tritonkit.advisor.language_latency import Engine

    engines = options.engine or ("vllm",)
    engine: Engine | None = next((name for name in get_args(Engine) if name in engines), None)
    if engine is None:
        raise InputError(f"--engine {','.join(engines)} runs no language model", f"one of {', '.join(ENGINES)}")
    named = {
        "answer": options.answer, "context": options.context, "reuse": options.reuse,
        "gpu_counts": options.tensor_parallel_size, "precisions": options.precision, "kv_dtype": options.kv_cache_dtype,
        "gpu_memory_utilization": options.gpu_memory_utilization,
    }  # fmt: skip
    return Request(
        prompt=options.prompt,
        concurrency=options.concurrency,
        rps=options.rps,
        ttft_ms=options.ttft_ms,
        itl_ms=options.itl_ms,
        gpus=tuple(name for name in options.gpu.split(",") if name and name != "all"),
        engine=engine,
        max_num_batched_tokens=options.max_num_batched_tokens,
        max_num_seqs=options.max_num_seqs,
        block_size=options.block_size,
        prices={gpus.get(name).key: price for name, price in options.price},
        steady=options.steady,
        needs_triton=options.shared,
        **{name: value for name, value in named.items() if value is not None},
    )


def _counts(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(word) for word in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no number, and no list of numbers with commas") from None
