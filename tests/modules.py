"""Modules of many kinds, small and with random weights: what people bring, to be built for every target and precision.

A test's recipe names a function here, and ``NAME_samples`` beside it. Accuracy says nothing, as nothing was trained.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from modulekinds import IMAGE, SERIES, TOKENS, VECTOR, kind
from torch import nn
from torch.nn import functional


class Function(nn.Module):
    """A function of tensors between two linear layers, where it has no weights of its own."""

    def __init__(self, body: Callable[..., Any], width: int = 16, out: int = 16) -> None:
        super().__init__()
        self.first, self.last, self.body = nn.Linear(width, 16), nn.Linear(out, 8), body

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.body(self.first(x)))  # type: ignore[no-any-return]


# Recurrent


class Lengths(nn.Module):
    """A bidirectional LSTM whose states are averaged over a text's own length."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.lstm = nn.Embedding(50, 16), nn.LSTM(16, 24, batch_first=True, bidirectional=True)
        self.head = nn.Linear(48, 5)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> dict[str, torch.Tensor]:
        states, _ = self.lstm(self.embed(input_ids))
        mask = attention_mask.float()
        mean = (states * mask.unsqueeze(-1)).sum(1) / torch.clamp(mask.sum(1, keepdim=True), min=1)
        return {"probabilities": self.head(mean).softmax(-1), "vector": mean}


@kind(TOKENS)
def lstm_clamped_lengths() -> nn.Module:
    return Lengths()


class Recurrent(nn.Module):
    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer, self.head = layer, nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.layer(x)[0][:, -1])  # type: ignore[no-any-return]


@kind(SERIES)
def lstm_two_layers() -> nn.Module:
    return Recurrent(nn.LSTM(16, 16, num_layers=2, batch_first=True))


@kind(SERIES)
def gru() -> nn.Module:
    return Recurrent(nn.GRU(16, 16, batch_first=True))


class Tagger(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer, self.head = nn.LSTM(16, 16, batch_first=True, bidirectional=True), nn.Linear(32, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.layer(x)[0])  # type: ignore[no-any-return]


@kind(SERIES)
def lstm_tagger() -> nn.Module:
    return Tagger()


@kind(SERIES, refused="several of one layer in a row")
def rnn_tanh() -> nn.Module:
    return Recurrent(nn.RNN(16, 16, batch_first=True))


class Cells(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell, self.head = nn.GRUCell(16, 16), nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        state = torch.zeros(x.shape[0], 16)
        for step in range(4):
            state = self.cell(x[:, step], state)
        return self.head(state)  # type: ignore[no-any-return]


@kind({"x": "fp32:4,16"})
def cells_in_a_loop() -> nn.Module:
    return Cells()


# Integers, booleans and moving things about


class Integers(nn.Module):
    """Buckets of integers: floor division, modulo, clamping, comparison and selection."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Embedding(16, 16), nn.Linear(16, 4)

    def forward(self, ids: torch.Tensor) -> dict[str, torch.Tensor]:
        bucket = torch.where(ids % 2 == 0, torch.clamp(ids // 3, max=15), (ids * 5 + 1) % 16).clamp(min=0)
        score = self.head(self.embed(bucket).mean(1))
        return {"score": score, "best": score.argmax(-1), "sure": score.amax(-1) > 0.1}


@kind({"ids": "int32:length"})
def integer_buckets() -> nn.Module:
    return Integers()


class Masked(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(16, 16)

    def forward(self, x: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
        scores = self.linear(x).masked_fill(~keep, torch.finfo(torch.float32).min)
        weights: torch.Tensor = scores.softmax(-1) * keep.logical_or(x > 0)
        return weights


@kind({"x": "fp32:16", "keep": "bool:16"})
def boolean_mask() -> nn.Module:
    return Masked()


@kind(VECTOR)
def clamp_integer_bounds() -> nn.Module:
    return Function(lambda x: torch.clamp(x, min=-1, max=1) + torch.clamp(x.abs(), min=1))


@kind(VECTOR)
def where_and_scalars() -> nn.Module:
    return Function(lambda x: torch.where(x > 0, x, 0) + torch.maximum(x, torch.tensor(1)) ** 2)


@kind(VECTOR)
def scatter_add() -> nn.Module:
    return Function(lambda x: torch.zeros_like(x).scatter_add(1, (x * 3).long().remainder(16), x))


@kind(VECTOR)
def topk_gather_sort() -> nn.Module:
    return Function(lambda x: x.gather(1, x.topk(8).indices) + x.sort(1, descending=True).values[:, :8], out=8)


@kind(VECTOR)
def cumulative_sums() -> nn.Module:
    return Function(lambda x: x.cumsum(1) / torch.arange(1, 17) + functional.one_hot(x.argmax(1), 16))


@kind(VECTOR)
def double_precision_inside() -> nn.Module:
    return Function(lambda x: (x.double().exp().sum(1, keepdim=True).log() + x.double()).float())


@kind(VECTOR)
def variance_and_norms() -> nn.Module:
    return Function(lambda x: functional.normalize(x) * x.var(1, keepdim=True) + x.norm(dim=1, keepdim=True))


class Branch(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(16, 8), nn.Linear(16, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cond(x.sum() > 0, self.left, self.right, (x,))  # type: ignore[no-any-return]


@kind({"x": "fp32:4,16"}, batched=False)
def branch() -> nn.Module:
    return Branch()


class Bags(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Embedding(50, 16, padding_idx=0), nn.Linear(16, 4)

    def forward(self, ids: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        present = (ids != 0).unsqueeze(-1)
        pooled = (self.embed(ids) * present).sum(1) / present.sum(1).clamp(min=1)
        return torch.sigmoid(self.head(pooled + x))


@kind({"ids": "int64:length", "x": "fp32:16"})
def recommender_embeddings() -> nn.Module:
    return Bags()


# Attention and normalisation


class Einsum(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.project, self.norm, self.head = nn.Linear(16, 48), nn.LayerNorm(16), nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = self.project(self.norm(x)).chunk(3, -1)
        weights = torch.einsum("bid,bjd->bij", q, k).div(4).tril().softmax(-1)
        return self.head(torch.einsum("bij,bjd->bid", weights, v).mean(1))  # type: ignore[no-any-return]


@kind(SERIES)
def einsum_attention() -> nn.Module:
    return Einsum()


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, activation="gelu")
        self.encoder, self.head = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.encoder(x).mean(1))  # type: ignore[no-any-return]


@kind(SERIES)
def transformer_encoder() -> nn.Module:
    return Encoder()


# Pictures and sound


class UNet(nn.Module):
    """Down, up by transposed convolution and by interpolation, group and instance normalisation."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1), nn.GroupNorm(4, 16), nn.SiLU())
        self.deep = nn.Sequential(nn.Conv2d(16, 32, 3, 2, 1), nn.InstanceNorm2d(32, affine=True), nn.ReLU())
        self.up, self.head = nn.ConvTranspose2d(32, 16, 2, 2), nn.Conv2d(16, 12, 1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        first = self.down(image)
        merged = functional.pixel_shuffle(self.head(self.up(self.deep(first)) + first), 2)
        return functional.interpolate(merged, scale_factor=2, mode="bilinear").sigmoid()


@kind(IMAGE)
def unet() -> nn.Module:
    return UNet()


class Bytes(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU6(), nn.MaxPool2d(2), nn.Flatten())
        self.head = nn.Linear(16 * 15 * 15, 4)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.head(self.net(image.permute(0, 3, 1, 2) / 255))  # type: ignore[no-any-return]


@kind({"image": "uint8:32,32,3"}, below=256)
def bytes_of_a_picture() -> nn.Module:
    return Bytes()


@kind({"x": "fp32:4,64"})
def sound_convolutions() -> nn.Module:
    return nn.Sequential(nn.Conv1d(4, 16, 5, 2), nn.PReLU(), nn.AvgPool1d(2), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(16, 4))  # fmt: skip


class Warp(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.locate, self.head = nn.Linear(3 * 32 * 32, 6), nn.Conv2d(3, 16, 3)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        matrix = self.locate(image.flatten(1)).view(-1, 2, 3)
        grid = torch.einsum("bij,nj->bni", matrix, torch.ones(64, 3)).view(-1, 8, 8, 2).tanh()
        return self.head(functional.grid_sample(image, grid, align_corners=False)).mean((2, 3))  # type: ignore[no-any-return]


@kind(IMAGE)
def spatial_transformer() -> nn.Module:
    return Warp()


class Anchors(nn.Module):
    """A detection head: boxes from anchors, scores, and the best of both."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(
            nn.Conv2d(3, 32, 3, 4, 1), nn.LeakyReLU(0.1), nn.Conv2d(32, 32, 3, 2, 1), nn.Hardswish()
        )
        self.score, self.box = nn.Conv2d(32, 5, 1), nn.Conv2d(32, 4, 1)
        side = torch.arange(4) + 0.5
        self.register_buffer("anchors", torch.stack(torch.meshgrid(side, side, indexing="ij"), -1).view(1, 16, 2) * 8)

    def forward(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
        seen = self.trunk(image)
        scores = self.score(seen).flatten(2).transpose(1, 2).sigmoid()
        middle, size = self.box(seen).flatten(2).transpose(1, 2).chunk(2, -1)
        middle, size = middle * 8 + self.anchors, torch.exp(size.clamp(max=4)) * 8
        boxes = torch.cat([middle - size / 2, middle + size / 2], -1).clamp(0, 32)
        best, label = scores.max(-1)
        top = best.topk(5).indices
        return {
            "boxes": boxes.gather(1, top.unsqueeze(-1).expand(-1, -1, 4)),
            "scores": best.gather(1, top), "labels": label.gather(1, top),
        }  # fmt: skip


@kind(IMAGE)
def detection_anchors() -> nn.Module:
    return Anchors()
