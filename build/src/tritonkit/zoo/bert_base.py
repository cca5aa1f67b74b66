"""BERT-base with random weights: token ids in, one vector of 768 numbers a text out. Only its shape matters."""

from __future__ import annotations

import torch

LAYERS = 12  # of 768 numbers and 12 heads (Devlin et al. 2018, section 3)


class Embedder(torch.nn.Module):
    """An encoder, and the mean of its vectors over the mask."""

    def __init__(self, encoder: torch.nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Embed: int64 (batch, sequence) twice, the mask 1 for a token and 0 for padding, to fp32 (batch, 768)."""
        hidden = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        weights = attention_mask.unsqueeze(-1).to(hidden.dtype)
        mean: torch.Tensor = (hidden * weights).sum(1) / weights.sum(1).clamp(min=1.0)
        return mean


def load(layers: int = LAYERS) -> torch.nn.Module:
    """The module, ready for export; its weights are random, and the same at every call.

    Args:
        layers: Fewer make a smaller network of the same kind.
    """
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    config = BertConfig(num_hidden_layers=layers, attn_implementation="eager")
    return Embedder(BertModel(config, add_pooling_layer=False)).eval()
