"""A project of a user's own: a small module beside a recipe, a store of its own, and the command line on them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tritonkit import cli

NET = """
import torch

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.linear = torch.nn.Linear(4, 3)

    def forward(self, x):
        return self.linear(x)

def load():
    return Net()
"""


@dataclass
class Project:
    """A folder with ``net.py`` and ``net.yaml``, built into ``repository``."""

    directory: Path
    capture: pytest.CaptureFixture[str]
    home: Path

    @property
    def repository(self) -> Path:
        return self.directory / "model_repository"

    def write(self, code: str = NET, **changes: Any) -> Path:
        """The module's code and a recipe with some keys changed; None removes a key."""
        (self.directory / "net.py").write_text(code, encoding="utf-8")
        recipe: dict[str, Any] = {
            "name": "net",
            "source": "net.py:load",
            "inputs": {"x": {"dtype": "fp32", "dims": [4]}},
            "outputs": {"y": {"dtype": "fp32", "dims": [3]}},
        }
        recipe = {key: value for key, value in (recipe | changes).items() if value is not None}
        path = self.directory / "net.yaml"
        path.write_text(yaml.safe_dump(recipe, sort_keys=False), encoding="utf-8")
        return path

    def run(self, *arguments: str | Path) -> tuple[int, str, str]:
        """Exit code, standard output and standard error of one command."""
        self.capture.readouterr()
        try:
            code = cli.main([str(argument) for argument in arguments])
        except SystemExit as end:  # argparse
            code = int(end.code or 0)
        captured = self.capture.readouterr()
        return code, captured.out, captured.err

    def build(self, *arguments: str | Path) -> tuple[int, str, str]:
        return self.run("build", self.directory / "net.yaml", "--repository", self.repository, *arguments)

    def artifacts(self) -> list[Path]:
        return sorted(self.home.glob("artifacts/*/*/artifact.json"))

    def files(self) -> dict[str, bytes]:
        """Everything in the repository; empty if there is none."""
        paths = (path for path in self.repository.rglob("*") if path.is_file())
        return {path.relative_to(self.repository).as_posix(): path.read_bytes() for path in paths}
