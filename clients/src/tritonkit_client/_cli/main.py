"""The command ``tritonkit-client``: health, metadata, inference, language models.

Exits 0, 1 (not ready) or 2 (an error).
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from io import TextIOWrapper
from pathlib import Path
from typing import Any

import numpy as np

from .._client import Client
from .._protocol.calls import Outputs
from .._protocol.classes import has_classes
from .._protocol.errors import InvalidInput, TritonkitClientError
from .._protocol.tensors import Array
from .._transport.security import TLS
from .generate import add_arguments, generate
from .inputs import read_inputs
from .outputs import as_json, as_text, save, say
from .parser import Parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    options = _options(arguments)
    if options.verb == "completion":
        return _completion(options.shell)
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a server's text may not fit the terminal's encoding
    try:
        tls = TLS(options.ca, options.cert, options.key) if options.ca or options.cert or options.key else None
        token = os.environ.get("TRITONKIT_CLIENT_TOKEN")
        headers = dict(_pair(text, ":") for text in options.header)
        with Client(options.endpoint, timeout=options.timeout, tls=tls, token=token, headers=headers) as client:
            return _VERBS[options.verb](client, options)
    except TritonkitClientError as error:
        say(f"error: {type(error).__name__}: {error}", sys.stderr)
    except BrokenPipeError:  # `| head` has ended
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:  # a file that cannot be read or written
        say(f"error: {error}", sys.stderr)
    except KeyboardInterrupt:
        return 130  # what a shell expects of a command that was interrupted: 128 + SIGINT
    except Exception as error:
        if os.environ.get("TRITONKIT_DEBUG"):
            raise
        say(
            f"error: {type(error).__name__}: {error}\n  fix: this is a mistake of tritonkit-client's; "
            "TRITONKIT_DEBUG=1 before the command shows the traceback, for a report",
            sys.stderr,
        )
        return 70  # EX_SOFTWARE of sysexits.h
    return 2


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser, verbs = _parser()
    options, rest = parser.parse_known_args(arguments)
    # argparse takes all inputs where it meets the model: those behind a further option are left over.
    if rest and (options.verb != "infer" or any(text.startswith("-") for text in rest)):
        verbs[options.verb].refuse(rest)
    if rest:
        options.inputs += rest
    return options


def _parser() -> tuple[Parser, dict[str, Parser]]:
    """The whole command line, and the parser of each verb."""
    parser = Parser(
        "tritonkit-client",
        description="Ask a Triton server, or any other that speaks KServe v2.",
        epilog="A bearer token is taken from the environment: TRITONKIT_CLIENT_TOKEN.",
        examples=[_example("health"), _example("infer", "my_model features='[0.1, 0.2, 0.3]'")],
    )
    common = Parser(add_help=False)
    common.add_argument("endpoint", help="grpc://host[:port], http://host[:port], grpcs://, https://, ...")
    common.add_argument("--timeout", type=float, default=30.0, metavar="SECONDS", help="for each call (default 30)")
    common.add_argument("--header", action="append", default=[], metavar="NAME:VALUE", help="to send along")
    common.add_argument("--ca", metavar="FILE", help="authorities to trust (PEM)")
    common.add_argument("--cert", metavar="FILE", help="this client's certificate (PEM)")
    common.add_argument("--key", metavar="FILE", help="its key (PEM)")
    common.add_argument("--json", action="store_true", help="machine-readable output")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    add = verbs.add_parser(
        "health", parents=[common], help="whether the server (or a model) is ready; exits 1 if not",
        examples=[_example("health"), _example("health", "my_model")],
    )  # fmt: skip
    add.add_argument("model", nargs="?")
    verbs.add_parser(
        "models", parents=[common], help="what the server's repository holds", examples=[_example("models")]
    )
    for verb, text in (("metadata", "a model's inputs and outputs"), ("config", "its whole configuration"),
                       ("stats", "what the server counted for it")):  # fmt: skip
        add = verbs.add_parser(verb, parents=[common], help=text, examples=[_example(verb, "my_model")])
        add.add_argument("model")
    add = verbs.add_parser(
        "infer", parents=[common], help="run a model",
        description="An input is NAME=VALUE, where VALUE is JSON or text, or NAME=@FILE: .npy, .json, .txt, or an image"
        " (needs Pillow), which is turned upright and resized to what the model wants. A missing batch dimension is"
        " added. Several of them, or NAME=@'*.jpg', are one batch. Where the server does not say what its models take,"
        " it is NAME:DATATYPE=VALUE.",
        examples=[_example("infer", "my_model features='[0.1, 0.2, 0.3]'"),
                  _example("infer", "my_model picture=@cat.jpg --top 5")],
    )  # fmt: skip
    add.add_argument("model")
    add.add_argument("inputs", nargs="*", metavar="NAME=VALUE")
    add.add_argument("--output", action="append", metavar="NAME", help="which outputs (default: all)")
    add.add_argument("--top", type=_positive, metavar="K", help="the K best classes, with their labels (Triton only)")
    add.add_argument(
        "--save", metavar="FOLDER",
        help="write each output to FOLDER/NAME.npy (bytes that are no text: NAME.bin); with --stream to"
        " FOLDER/000000/NAME.npy and so on",
    )  # fmt: skip
    add.add_argument("--stream", action="store_true", help="print every response of a decoupled model")
    add = verbs.add_parser(
        "generate", parents=[common], help="let a language model answer",
        description="Of vLLM's backend, or of TensorRT-LLM's llmapi template. The answer goes to stdout; its tokens,"
        " and why it ends, to stderr. With --json all of it goes to stdout.",
        examples=[_example("generate", "my_model 'Once upon a time' --max-tokens 64 --stream"),
                  _example("generate", "my_model 'Who are you?' --system 'Answer in rhymes.' --stream")],
    )  # fmt: skip
    add_arguments(add)
    add = verbs.add_parser(
        "completion", help="print what a shell needs to complete verbs and options",
        examples=['eval "$(tritonkit-client completion bash)"'],
    )  # fmt: skip
    add.add_argument("shell", choices=["bash", "zsh", "fish"])
    return parser, dict(verbs.choices)


def _example(verb: str, rest: str = "") -> str:
    return f"tritonkit-client {verb} grpc://127.0.0.1:8001 {rest}".rstrip()


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return number


def _completion(shell: str) -> int:
    try:
        import shtab
    except ImportError:
        say("error: the package shtab is not installed\n  fix: pip install 'tritonkit-client[completion]'", sys.stderr)
        return 2
    say(shtab.complete(_parser()[0], shell))
    return 0


def _health(client: Client, options: argparse.Namespace) -> int:
    if options.model:
        health = {"ready": client.model_ready(options.model)}
    else:
        health = {"live": client.live(), "ready": client.ready()}
    _show(health, options, "\n".join(f"{name}: {'yes' if yes else 'no'}" for name, yes in health.items()))
    return 0 if all(health.values()) else 1


def _models(client: Client, options: argparse.Namespace) -> int:
    entries = client.repository()
    lines = []
    for entry in entries:
        reason = " ".join(entry.reason.split())  # a single line for each model
        lines.append(f"{entry.name}\t{entry.version or '-'}\t{entry.state or 'never loaded'}\t{reason}".rstrip())
    _show([asdict(entry) for entry in entries], options, "\n".join(lines))
    return 0


def _metadata(client: Client, options: argparse.Namespace) -> int:
    model = client.metadata(options.model)
    parts = [model.name, f"versions {', '.join(model.versions)}" if model.versions else "", model.platform]
    lines = [", ".join(filter(None, parts))]
    lines.append(f"max_batch_size {model.max_batch_size}" + (", decoupled" if model.decoupled else ""))
    for kind, specs in (("input", model.inputs), ("output", model.outputs)):
        lines += [f"{kind} {spec.name}: {spec}{', optional' if spec.optional else ''}" for spec in specs]
    _show(asdict(model), options, "\n".join(lines))
    return 0


def _config(client: Client, options: argparse.Namespace) -> int:
    say(json.dumps(client.config(options.model), indent=2))
    return 0


def _stats(client: Client, options: argparse.Namespace) -> int:
    entries = client.statistics(options.model)
    lines = []
    for entry in entries:
        mean = {name: duration.total_ns / duration.count / 1e6 for name in ("success", "queue", "compute_infer")
                if (duration := getattr(entry, name)).count}  # fmt: skip
        times = ", ".join(f"{name} {value:.3f} ms" for name, value in mean.items())
        lines.append(
            f"version {entry.version}: {entry.inference_count} samples in {entry.execution_count} runs"
            f" (average batch {entry.average_batch_size:.2f}), {entry.fail.count} failed; {times or 'no request yet'}"
        )
    _show([asdict(entry) for entry in entries], options, "\n".join(lines))
    return 0


def _infer(client: Client, options: argparse.Namespace) -> int:
    if options.top is not None and options.save:
        raise InvalidInput("--save writes tensors, and --top gets classes", "leave one of them out")
    metadata = client.metadata(options.model)
    values = read_inputs(metadata, [_pair(text, "=") for text in options.inputs])
    requested: Outputs | None = options.output
    if options.top is not None:
        outputs_with_classes = [spec.name for spec in metadata.outputs if has_classes(spec.datatype)]
        requested = dict.fromkeys(options.output or outputs_with_classes, options.top)
    folder = Path(options.save) if options.save else None
    if options.stream:
        for number, outputs in enumerate(client.stream(options.model, values, outputs=requested)):
            # Six digits, so that a list of the folders is in order.
            _show_outputs(outputs, options, folder / f"{number:06d}" if folder else None)
        return 0
    if 0 < metadata.max_batch_size < _rows(values):
        outputs = client.infer_many(options.model, values, outputs=requested)
    else:
        outputs = client.infer(options.model, values, outputs=requested)
    _show_outputs(outputs, options, folder)
    return 0


def _rows(values: Mapping[str, Any]) -> int:
    return max((len(value) for value in values.values() if isinstance(value, (list, np.ndarray))), default=0)


def _show_outputs(outputs: Mapping[str, Array], options: argparse.Namespace, folder: Path | None) -> None:
    """Save outputs to a folder, if there is one, and print them."""
    if folder is not None:
        for remark in save(outputs, folder):
            say(f"note: {remark}", sys.stderr)
    text = "\n".join(as_text(name, array) for name, array in outputs.items())
    _show({name: as_json(array) for name, array in outputs.items()} if options.json else None, options, text)


def _pair(text: str, sign: str) -> tuple[str, str]:
    name, separator, value = text.partition(sign)
    if not separator or not name:
        raise InvalidInput(f"{text.partition(sign)[0]!r} has no {sign!r}", f"write NAME{sign}VALUE")
    return name.strip(), value.strip() if sign == ":" else value


def _show(data: Any, options: argparse.Namespace, text: str) -> None:
    say(json.dumps(data, allow_nan=False) if options.json else text)


_VERBS: dict[str, Callable[[Client, argparse.Namespace], int]] = {
    "health": _health,
    "models": _models,
    "metadata": _metadata,
    "config": _config,
    "stats": _stats,
    "infer": _infer,
    "generate": generate,
}
