"""The command ``tritonkit-client``: health, what models are, inference. Exits 0, 1 (a "no") or 2 (an error)."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from ._client import Client
from ._errors import InvalidInput, TritonkitClientError
from ._metadata import ModelMetadata, TensorSpec
from ._security import TLS
from ._tensors import BYTES, DTYPES, Array

# Longer outputs are shown by their beginning and end.
_SHOWN = 20
_IMAGES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; its exit status."""
    options = _options(arguments)
    try:
        tls = TLS(options.ca, options.cert, options.key) if options.ca or options.cert or options.key else None
        token = os.environ.get("TRITONKIT_CLIENT_TOKEN")
        headers = dict(_pair(text, ":") for text in options.header)
        with Client(options.endpoint, timeout=options.timeout, tls=tls, token=token, headers=headers) as client:
            return _VERBS[options.verb](client, options)
    except TritonkitClientError as error:
        _say(f"error: {type(error).__name__}: {error}", sys.stderr)
    except BrokenPipeError:  # `| head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:  # a file that cannot be read or written
        _say(f"error: {error}", sys.stderr)
    except KeyboardInterrupt:
        return 130  # what a shell expects of a command that was interrupted: 128 + SIGINT
    return 2


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = _parser()
    options, rest = parser.parse_known_args(arguments)
    # argparse takes all inputs where it meets the model: those behind a further option are left over.
    if rest and (options.verb != "infer" or any(text.startswith("-") for text in rest)):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if rest:
        options.inputs += rest
    return options


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "tritonkit-client",
        description="Ask a Triton server, or any other that speaks KServe v2.",
        epilog="A bearer token is taken from the environment: TRITONKIT_CLIENT_TOKEN.",
    )
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("endpoint", help="grpc://host[:port], http://host[:port], grpcs://, https://, ...")
    common.add_argument("--timeout", type=float, default=30.0, metavar="SECONDS", help="for each call (default 30)")
    common.add_argument("--header", action="append", default=[], metavar="NAME:VALUE", help="to send along")
    common.add_argument("--ca", metavar="FILE", help="authorities to trust (PEM)")
    common.add_argument("--cert", metavar="FILE", help="this client's certificate (PEM)")
    common.add_argument("--key", metavar="FILE", help="its key (PEM)")
    common.add_argument("--json", action="store_true", help="machine-readable output")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    add = verbs.add_parser("health", parents=[common], help="whether the server (or a model) is ready; exits 1 if not")
    add.add_argument("model", nargs="?")
    verbs.add_parser("models", parents=[common], help="what the server's repository holds")
    for verb, text in (("metadata", "a model's inputs and outputs"), ("config", "its whole configuration"),
                       ("stats", "what the server counted for it")):  # fmt: skip
        verbs.add_parser(verb, parents=[common], help=text).add_argument("model")
    add = verbs.add_parser(
        "infer", parents=[common], help="run a model",
        description="An input is NAME=VALUE, where VALUE is JSON or text, or NAME=@FILE: .npy, .json, .txt, or an image"
        " (needs Pillow), which is resized to what the model wants. A missing batch dimension is added.",
    )  # fmt: skip
    add.add_argument("model")
    add.add_argument("inputs", nargs="*", metavar="NAME=VALUE")
    add.add_argument("--output", action="append", metavar="NAME", help="which outputs (default: all)")
    add.add_argument("--save", metavar="FOLDER", help="write each output to FOLDER/NAME.npy")
    add.add_argument("--stream", action="store_true", help="print every response of a decoupled model")
    return parser


def _health(client: Client, options: argparse.Namespace) -> int:
    if options.model:
        found = {"ready": client.model_ready(options.model)}
    else:
        found = {"live": client.live(), "ready": client.ready()}
    _show(found, options, "\n".join(f"{name}: {'yes' if yes else 'no'}" for name, yes in found.items()))
    return 0 if all(found.values()) else 1


def _models(client: Client, options: argparse.Namespace) -> int:
    entries = client.repository()
    lines = [f"{entry.name}\t{entry.version or '-'}\t{entry.state or 'never loaded'}\t{entry.reason}".rstrip()
             for entry in entries]  # fmt: skip
    _show([asdict(entry) for entry in entries], options, "\n".join(lines))
    return 0


def _metadata(client: Client, options: argparse.Namespace) -> int:
    model = client.metadata(options.model)
    lines = [f"{model.name}, versions {', '.join(model.versions)}, {model.platform}"]
    lines.append(f"max_batch_size {model.max_batch_size}" + (", decoupled" if model.decoupled else ""))
    for kind, specs in (("input", model.inputs), ("output", model.outputs)):
        lines += [f"{kind} {spec.name}: {spec}{', optional' if spec.optional else ''}" for spec in specs]
    _show(asdict(model), options, "\n".join(lines))
    return 0


def _config(client: Client, options: argparse.Namespace) -> int:
    _say(json.dumps(client.config(options.model), indent=2))
    return 0


def _stats(client: Client, options: argparse.Namespace) -> int:
    entries = client.statistics(options.model)
    lines = []
    for one in entries:
        mean = {name: duration.total_ns / duration.count / 1e6 for name in ("success", "queue", "compute_infer")
                if (duration := getattr(one, name)).count}  # fmt: skip
        times = ", ".join(f"{name} {value:.3f} ms" for name, value in mean.items())
        lines.append(
            f"version {one.version}: {one.inference_count} samples in {one.execution_count} runs"
            f" (average batch {one.average_batch_size:.2f}), {one.fail.count} failed; {times or 'no request yet'}"
        )
    _show([asdict(one) for one in entries], options, "\n".join(lines))
    return 0


def _infer(client: Client, options: argparse.Namespace) -> int:
    metadata = client.metadata(options.model)
    values = {name: _value(metadata, name, text) for name, text in (_pair(text, "=") for text in options.inputs)}
    if options.stream:
        for outputs in client.stream(options.model, values, outputs=options.output):
            _print_outputs(outputs, options)
        return 0
    outputs = client.infer(options.model, values, outputs=options.output)
    if options.save:
        folder = Path(options.save)
        folder.mkdir(parents=True, exist_ok=True)
        for name, array in outputs.items():
            if Path(name).name != name:  # a server's word is no reason to write elsewhere
                raise InvalidInput(f"output {name!r} cannot be the name of a file", "leave --save out")
            # Strings as text: an object array would be a pickle, which nobody should have to load.
            np.save(folder / f"{name}.npy", array if array.dtype != object else np.char.decode(array.astype("S")))
    _print_outputs(outputs, options)
    return 0


def _print_outputs(outputs: Mapping[str, Array], options: argparse.Namespace) -> None:
    plain = {name: _plain(array) for name, array in outputs.items()}
    lines = []
    for name, array in outputs.items():
        flat = _plain(array.reshape(-1)[:_SHOWN])
        lines.append(
            f"{name} {list(array.shape)} {array.dtype}: {json.dumps(flat)}{' …' if array.size > _SHOWN else ''}"
        )
    _show(plain, options, "\n".join(lines))


def _plain(array: Array) -> Any:
    """An array as JSON has it; bytes as text."""
    if array.dtype == object:
        text = np.array([item.decode(errors="replace") for item in array.reshape(-1)], dtype=object)
        return text.reshape(array.shape).tolist()
    return array.astype(np.float64).tolist() if array.dtype.kind in "fV" else array.tolist()


def _value(metadata: ModelMetadata, name: str, text: str) -> Any:
    """What an argument says, as the input wants it."""
    spec = next((spec for spec in metadata.inputs if spec.name == name), None)
    if spec is None:
        known = ", ".join(spec.name for spec in metadata.inputs)
        raise InvalidInput(f"model {metadata.name} has no input {name!r}", f"it has {known}")
    if text.startswith("@"):
        value = _from_file(Path(text[1:]), spec)
    elif spec.datatype == BYTES:
        value = np.array(_texts(text), dtype=object)
    else:
        # As plain numbers, which the client takes only where the input's type holds them.
        value = _json(text, f"input {name!r}")
    return _fitted(value, spec, bool(metadata.max_batch_size))


def _texts(text: str) -> list[Any]:
    """A JSON list of texts, or one text: many begin with a bracket."""
    if text.startswith("["):
        with contextlib.suppress(ValueError):
            found: list[Any] = json.loads(text)
            return found
    return [text]


def _from_file(path: Path, spec: TensorSpec) -> Any:
    if not path.is_file():
        raise InvalidInput(f"{path} is not a file", f"give an existing file for input {spec.name!r}")
    kind = path.suffix.lower()
    if kind == ".npy":
        try:
            return np.load(path, allow_pickle=False)
        except (EOFError, ValueError) as error:
            raise InvalidInput(
                f"{path} is not an array: {error}", "save it with numpy.save, of plain numbers"
            ) from error
    if kind == ".json":
        return _json(path.read_bytes(), str(path))
    if kind in _IMAGES and spec.datatype != BYTES:
        return _image(path, spec)
    if spec.datatype == BYTES:
        text = path.read_bytes()
        return np.array([text.strip() if kind == ".txt" else text], dtype=object)
    raise InvalidInput(f"{path}: files of kind {kind or 'nothing'} are not known here", "use .npy, .json or an image")


def _image(path: Path, spec: TensorSpec) -> Array:
    """An image as [height, width, 3] or [3, height, width], whichever the input is; floats are 0 to 1."""
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError:
        raise InvalidInput(f"{path} needs Pillow to be read", "pip install pillow, or give a .npy file") from None
    dims = spec.shape[-3:]
    first = len(dims) == 3 and dims[0] in (1, 3) and dims[-1] not in (1, 3)
    height, width = (dims[1:] if first else dims[:2]) if len(dims) == 3 else (-1, -1)
    try:
        with Image.open(path) as opened:
            picture = opened.convert("L" if (dims[0] if first else dims[-1]) == 1 else "RGB")
    except (UnidentifiedImageError, OSError) as error:
        raise InvalidInput(f"{path} is not an image: {error}", "give one that Pillow reads, or a .npy file") from error
    if height > 0 and width > 0:
        picture = picture.resize((width, height), Image.Resampling.BILINEAR)
    array = np.asarray(picture)
    array = array[..., None] if array.ndim == 2 else array
    array = np.moveaxis(array, -1, 0) if first else array
    return array if spec.datatype == "UINT8" else (array / 255).astype(DTYPES[spec.datatype])


def _fitted(value: Any, spec: TensorSpec, batched: bool) -> Any:
    """The value with the batch dimension, if only that is missing, or those that can only be 1."""
    missing = len(spec.shape) - np.ndim(value)
    if (batched and missing == 1) or (missing > 0 and set(spec.shape[:missing]) <= {-1, 1}):
        for _ in range(missing):
            value = value[np.newaxis] if isinstance(value, np.ndarray) else [value]
    return value


def _json(text: str | bytes, what: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise InvalidInput(f"{what} is not JSON: {error}", "write numbers like [[1, 2.5]], or @FILE") from error


def _pair(text: str, sign: str) -> tuple[str, str]:
    name, found, value = text.partition(sign)
    if not found or not name:
        raise InvalidInput(f"{text.partition(sign)[0]!r} has no {sign!r}", f"write NAME{sign}VALUE")
    return name.strip(), value.strip() if sign == ":" else value


def _show(data: Any, options: argparse.Namespace, text: str) -> None:
    _say(json.dumps(data) if options.json else text)


def _say(text: str, where: Any = None) -> None:
    # At once: a stream is read as it comes, and a pipe that is closed is found out here and not at the exit.
    print(text, file=where or sys.stdout, flush=True)


_VERBS: dict[str, Callable[[Client, argparse.Namespace], int]] = {
    "health": _health,
    "models": _models,
    "metadata": _metadata,
    "config": _config,
    "stats": _stats,
    "infer": _infer,
}
