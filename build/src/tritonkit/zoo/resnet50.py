"""ResNet-50 with random weights: uint8 images in, logits of 1000 classes out. Only its shape matters, to benchmarks."""

from __future__ import annotations

from collections.abc import Sequence

import torch

DEPTHS = (3, 4, 6, 3)  # blocks of each stage (He et al. 2015, table 1)
# Mean and standard deviation of ImageNet's pixels, as torchvision's classifiers take them.
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Uint8Classifier(torch.nn.Module):
    """A classifier that takes the bytes of an image and normalises them itself."""

    mean: torch.Tensor
    deviation: torch.Tensor

    def __init__(self, body: torch.nn.Module) -> None:
        super().__init__()
        self.body = body
        self.register_buffer("mean", 255 * torch.tensor(MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("deviation", 255 * torch.tensor(DEVIATION).view(1, 3, 1, 1), persistent=False)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Classify: uint8 (batch, height, width, 3) RGB to fp32 (batch, classes) logits."""
        x = image.permute(0, 3, 1, 2).to(torch.float32)
        logits: torch.Tensor = self.body(pixel_values=(x - self.mean) / self.deviation).logits
        return logits


def load(depths: Sequence[int] = DEPTHS) -> torch.nn.Module:
    """The module, ready for export; its weights are random, and the same at every call.

    Args:
        depths: Blocks of each stage; fewer make a smaller network of the same kind.
    """
    from transformers import ResNetConfig, ResNetForImageClassification

    torch.manual_seed(0)
    config = ResNetConfig(depths=list(depths), layer_type="bottleneck", num_labels=1000)
    return Uint8Classifier(ResNetForImageClassification(config)).eval()
