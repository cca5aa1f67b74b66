"""Measures seconds a batch on a GPU: an encoder of BERT-large's shape, 384 tokens, fp16, random weights.

It runs as a CUDA graph, and needs PyTorch with CUDA and nothing else, so that this file can be copied to a GPU machine
alone; it prints JSON. Timed are the input's copy, the graph and the output's copy; Triton's own part is not in it.
"""

from __future__ import annotations

import json
import statistics
import sys
import time

import torch
from torch import nn
from torch.nn import functional

WIDTH, HEADS, LAYERS, TOKENS, INNER, WORDS = 1024, 16, 24, 384, 4096, 30522  # bert-large-uncased's config.json
BATCHES = (1, 2, 4, 8, 16, 32, 64)
WARM_UP, ROUNDS = 20, 60


class Layer(nn.Module):
    """One encoder layer."""

    def __init__(self) -> None:
        super().__init__()
        self.projected = nn.Linear(WIDTH, 3 * WIDTH)
        self.mixed = nn.Linear(WIDTH, WIDTH)
        self.up, self.down = nn.Linear(WIDTH, INNER), nn.Linear(INNER, WIDTH)
        self.first, self.second = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(batch, tokens, width), the same out."""
        shape = (len(x), TOKENS, 3, HEADS, WIDTH // HEADS)
        query, key, value = self.projected(x).view(shape).permute(2, 0, 3, 1, 4)
        seen = functional.scaled_dot_product_attention(query, key, value).transpose(1, 2).reshape(x.shape)
        x = self.first(x + self.mixed(seen))
        found: torch.Tensor = self.second(x + self.down(functional.gelu(self.up(x))))
        return found


def main() -> int:
    """Print the table."""
    if not torch.cuda.is_available():
        print("error: no GPU that PyTorch can use\n  fix: run this on a GPU node", file=sys.stderr)
        return 3
    with torch.inference_mode():
        layers = [Layer() for _ in range(LAYERS)]
        model = nn.Sequential(nn.Embedding(WORDS, WIDTH), *layers, nn.Linear(WIDTH, 2)).half().cuda().eval()
        rows = [{"batch": batch} | _timed(model, batch) for batch in BATCHES]
    print(json.dumps({"gpu": torch.cuda.get_device_name(), "torch": torch.__version__, "rows": rows}, indent=2))
    return 0


def _timed(model: nn.Module, batch: int) -> dict[str, float]:
    words = torch.randint(0, WORDS, (batch, TOKENS)).pin_memory()
    given = words.cuda()
    for _ in range(3):
        model(given)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        answer = model(given)
    received = torch.empty(answer.shape, dtype=answer.dtype).pin_memory()
    times = []
    for _ in range(WARM_UP + ROUNDS):
        began = time.perf_counter()
        given.copy_(words, non_blocking=True)
        graph.replay()
        received.copy_(answer, non_blocking=True)
        torch.cuda.synchronize()
        times.append(time.perf_counter() - began)
    times = times[WARM_UP:]
    return {"seconds": round(statistics.median(times), 6),
            "cv": round(statistics.pstdev(times) / statistics.mean(times), 4)}  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
