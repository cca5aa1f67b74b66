"""Real images: the photographs that scikit-image and scikit-learn ship in their wheels, and crops of them."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.resources import as_file, files

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIZE = 224
# Most of them show something that is one of ImageNet's classes.
PHOTOGRAPHS = (
    ("skimage.data", "coffee.png"),
    ("skimage.data", "chelsea.png"),
    ("skimage.data", "motorcycle_left.png"),
    ("skimage.data", "camera.png"),
    ("sklearn.datasets.images", "flower.jpg"),
    ("sklearn.datasets.images", "china.jpg"),
    ("skimage.data", "rocket.jpg"),
    ("skimage.data", "astronaut.png"),
)


def photograph(package: str, name: str) -> Image.Image:
    """One of :data:`PHOTOGRAPHS`, as an RGB image of its own size."""
    with as_file(files(package) / name) as path:
        return Image.open(path).convert("RGB")


def prepare(image: Image.Image) -> NDArray[np.uint8]:
    """The middle square of a photograph as an image model's input: uint8 (224, 224, 3)."""
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
