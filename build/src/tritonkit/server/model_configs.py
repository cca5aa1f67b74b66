"""The configurations in a repository, as far as they can be read: what is wrong with the others, Triton says."""

from __future__ import annotations

from pathlib import Path

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

CONFIG = "config.pbtxt"


def read(folder: Path) -> pb.ModelConfig | None:
    """A model's configuration; None where it has none, or one that cannot be read."""
    try:
        return text_format.Parse((folder / CONFIG).read_text(encoding="utf-8"), pb.ModelConfig())
    except (OSError, ValueError, text_format.ParseError):
        return None
