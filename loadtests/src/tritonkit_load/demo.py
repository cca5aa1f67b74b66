"""`make demo`: two PyTorch models become a live Triton, answer over gRPC and HTTP, and are load-tested.

Prints a table, and writes ``reports/demo/summary.json`` and ``reports/demo/index.html``.
"""

from __future__ import annotations

import base64
import io
import json
import sys
import tempfile
import time
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from tritonkit import atomic, pipeline, progress, recipe
from tritonkit.cli.arguments import Parser
from tritonkit.cli.output import run_command
from tritonkit.errors import CheckFailed, InputError
from tritonkit.server import TritonServer, runtime
from tritonkit.zoo import photographs
from tritonkit_client import Client
from tritonkit_load.load import environment
from tritonkit_load.load import target as targets
from tritonkit_load.load.generator import Generator, Plan
from tritonkit_load.load.models import recipe_path
from tritonkit_load.load.recording import read_rows
from tritonkit_load.load.result import ModelResult
from tritonkit_load.reporting import demopage

IMAGE_MODEL, TEXT_MODEL = "efficientnet_lite0", "all_minilm_l6_v2"
STRINGS = "sentence_embedding"  # the ensemble that puts a tokenizer in front of the text model
USERS = (1, 2, 4, 8)
STEP_S = (0.5, 600)  # the least and the most seconds of each number of users
WARM_UP_S = 0.5  # of each number of users, before its seconds
SHOWN = 4  # photographs in the report
# Pairs that mean the same in other words, so that the nearest sentence is worth looking at.
SENTENCES = (
    "How do I reset my password?",
    "I forgot my login and cannot get into my account.",
    "The delivery is three days late.",
    "My parcel has not arrived yet.",
    "Which graphics card should I buy for inference?",
    "What is the best GPU for serving a model?",
)
Summary = dict[str, Any]


def main() -> int:
    """Run the demo; 1 if anything did not agree, 3 if something is missing."""
    return run_command(_main)


def _main() -> int:
    options = _parser().parse_args()
    target = targets.resolve(options)
    if not STEP_S[0] <= options.step_s <= STEP_S[1]:
        raise InputError(f"--step-s is {options.step_s:g}", f"between {STEP_S[0]} and {STEP_S[1]} seconds")
    summary = _run(options.repository, target, options.step_s)
    atomic.write(options.reports / "summary.json", (json.dumps(summary, indent=2) + "\n").encode())
    atomic.write(options.reports / "index.html", demopage.render(summary).encode())
    _print(summary, options.reports / "index.html")
    return 0


def _parser() -> Parser:
    parser = Parser(
        description=__doc__,
        examples=["python -m tritonkit_load.demo --target cpu --step-s 2"],
    )  # fmt: skip
    parser.add_argument("--step-s", type=float, default=5.0, help="seconds with each number of users")
    targets.add_options(parser, "what is built and served")
    parser.add_argument("--reports", type=Path, default=Path("reports/demo"))
    return parser


def _run(repository: Path, target: targets.Target, step_s: float) -> Summary:
    start = time.monotonic()
    recipes = {name: recipe.load(recipe_path(name)) for name in (IMAGE_MODEL, TEXT_MODEL)}
    runtime.find()  # a missing server is reported before anything is built
    built = pipeline.build(list(recipes.values()), repository, target)
    seconds = {"build": time.monotonic() - start}
    summary: Summary = {"created": datetime.now(UTC).isoformat(timespec="seconds"), "command": "make demo"}
    with progress.steps("demo", 2 + len(recipes)) as steps:
        steps.next("start Triton")
        begun = time.monotonic()
        with TritonServer(repository) as server:
            seconds["server_start"] = time.monotonic() - begun
            steps.next("classify photographs and embed sentences over gRPC and HTTP")
            summary |= _answers(server)
            models: dict[str, Summary] = {}
            for name in recipes:
                steps.next(f"load test {name} with Locust, {(step_s + WARM_UP_S) * len(USERS):.0f} s")
                models[name] = _load_test(server, name, step_s) | {"export": built.models[name].as_json()}
    seconds["total"] = time.monotonic() - start
    return summary | {
        "environment": _environment(),
        "seconds": {name: round(value, 1) for name, value in seconds.items()},
        "exported": built.exported,
        "models": models,
    }


def _answers(server: TritonServer) -> Summary:
    """What both models say, asked over both protocols; any difference between those is an error."""
    pictures = [photographs.photograph(*which) for which in photographs.PHOTOGRAPHS]
    batch = np.stack([photographs.prepare(picture) for picture in pictures])
    answers = []
    for url in (server.grpc_url, server.http_url):
        with Client(url) as client:
            logits = client.infer(IMAGE_MODEL, image=batch)["logits"]
            vectors = client.infer(STRINGS, text=list(SENTENCES))["sentence_embedding"]
            answers.append((logits, vectors))
    if not all(np.array_equal(a, b) for a, b in zip(*answers, strict=True)):
        raise CheckFailed("gRPC and HTTP gave different answers to the same requests", "please report this")
    logits, vectors = answers[0]
    labels = (server.repository / IMAGE_MODEL / "labels.txt").read_text(encoding="utf-8").splitlines()
    shown = [
        {"file": name, "image": _thumbnail(picture), "top": _top(row, labels)}
        for (_, name), picture, row in zip(photographs.PHOTOGRAPHS, pictures, logits, strict=True)
    ]
    return {"photographs": shown[:SHOWN], "sentences": _nearest(vectors)}


def _top(logits: np.ndarray[Any, np.dtype[np.float32]], labels: list[str]) -> list[Summary]:
    """The three most probable labels of one row of logits."""
    shifted = np.exp(logits.astype(np.float64) - logits.max())
    probabilities = shifted / shifted.sum()
    best = np.argsort(-probabilities)[:3]
    return [{"label": labels[index], "probability": round(float(probabilities[index]), 4)} for index in best]


def _nearest(vectors: np.ndarray[Any, np.dtype[np.float32]]) -> list[Summary]:
    """Each sentence with the one nearest to it by cosine similarity (the vectors have unit length)."""
    similarity = vectors @ vectors.T
    np.fill_diagonal(similarity, -1)
    return [
        {"text": text, "nearest": SENTENCES[int(row.argmax())], "similarity": round(float(row.max()), 3)}
        for text, row in zip(SENTENCES, similarity, strict=True)
    ]


def _thumbnail(picture: Any) -> str:
    """A small JPEG as a data URL, so that the report is one file."""
    small = picture.copy()
    small.thumbnail((240, 240))
    data = io.BytesIO()
    small.save(data, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(data.getvalue()).decode()


def _load_test(server: TritonServer, name: str, step_s: float) -> Summary:
    """Each number of users for the same time, one after the other, in one load generator."""
    curve, rows = [], []
    with tempfile.TemporaryDirectory(prefix="tritonkit-demo-") as directory:
        record = Path(directory, "requests.csv")
        with Generator(server.grpc_url, recipes=[recipe_path(name)]) as generator:
            for index, users in enumerate(USERS):
                plan = Plan(users=users, duration_s=step_s, warm_up_s=WARM_UP_S)
                curve.append({"users": users} | _step(name, generator.run(plan, record=record).model))
                rows += [
                    (round(start_s + index * step_s, 3), round(latency_ms, 2), users)
                    for start_s, latency_ms, *_ in read_rows(record)
                ]
    starts, latencies, beside = zip(*rows, strict=True)
    return {
        "protocol": "grpc",
        "curve": curve,
        "requests": {"start_s": list(starts), "latency_ms": list(latencies), "users": list(beside)},
    }


def _step(name: str, result: ModelResult) -> Summary:
    """One step in a few numbers; latencies are of the requests that succeeded, as none may fail."""
    if result.failed or result.latency is None or result.server is None:
        raise CheckFailed(f"{result.failed} requests to {name} failed: {result.messages}", "read the errors")
    return {
        "requests": result.requests,
        "failed": result.failed,
        "throughput": result.throughput,
        "p50_ms": result.latency.p50,
        "p99_ms": result.latency.p99,
        "average_batch": round(result.server.average_batch, 2),
        "server_ms": round(result.server.request_ms, 3),  # of which in the queue, and in the model with its batch
        "queue_ms": round(result.server.queue_ms, 3),
        "compute_ms": round(result.server.compute_ms, 3),
    }


def _environment() -> Summary:
    here = environment.machine()
    return {
        "cpu": here["cpu"],
        "cores": int(here["cores"]),
        "gpu": here["gpu"] != "none",
        "python": here["python"],
        "triton": runtime.WHEEL,
        "onnxruntime": here["onnxruntime"],
        "torch": metadata.version("torch"),
    }


def _print(summary: Summary, page: Path) -> None:
    """The result as a person wants it: what the models said, and how fast."""
    console = Console(highlight=False)
    photograph, sentence = summary["photographs"][0], summary["sentences"][0]
    top = photograph["top"][0]
    console.print(f"{IMAGE_MODEL}: {photograph['file']} is {top['label']} ({top['probability']:.0%})", markup=False)
    console.print(
        f"{TEXT_MODEL}: nearest to “{sentence['text']}”\n  is “{sentence['nearest']}” ({sentence['similarity']:.2f})",
        markup=False,
    )
    table = Table("model", "users", "requests/s", "p50 ms", "p99 ms", "average batch", box=None, pad_edge=False)
    for column in table.columns[1:]:
        column.justify = "right"
    for name, model in summary["models"].items():
        for step in model["curve"]:
            table.add_row(
                name, str(step["users"]), f"{step['throughput']:.1f}", f"{step['p50_ms']:.1f}",
                f"{step['p99_ms']:.1f}", f"{step['average_batch']:.1f}",
            )  # fmt: skip
    console.print(table)
    for name, model in summary["models"].items():
        console.print(f"{name} is served in {_chosen(model['export'])}", markup=False, soft_wrap=True)
    seconds = summary["seconds"]
    console.print(
        f"gRPC and HTTP agreed bit for bit; the exported graphs agree with PyTorch to "
        f"{max(model['export']['worst_parity']['relative'] for model in summary['models'].values()):.0e}.\n"
        f"Build {seconds['build']:.0f} s, server start {seconds['server_start']:.1f} s, all {seconds['total']:.0f} s. "
        f"Report: {page}",
        soft_wrap=True,
    )


def _chosen(export: Summary) -> str:
    """The precision that ships, and what the gate found: its speed over the next simpler, and its accuracy."""
    row = next((row for row in export["gate"] if row["precision"] == export["precision"]), None)
    if row is None or row["faster"] is None:
        return str(export["precision"])
    measured = ", ".join(f"{name.replace('_', ' ')} {value:.3g}" for name, value in row["accuracy"].items())
    return f"{row['precision']}, {row['faster'][0]:.1f} times as fast in process; {measured}"


if __name__ == "__main__":
    sys.exit(main())
