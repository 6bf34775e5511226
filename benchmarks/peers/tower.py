"""The vision tower and projector of a LLaVA checkpoint as a torch module, for the peers that
convert one.

pixels [views, 3, side, side] -> features [views, patches, hidden]: the hidden state before the
tower's last layer, without the class token, through the projector, as LLaVA has it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import CLIPVisionConfig, CLIPVisionModel

from benchmarks.peers import checkpoint as source

TOWER, PROJECTOR = "model.vision_tower.vision_tower.", "model.mm_projector."
# what a checkpoint without vision_config.json has: openai/clip-vit-large-patch14-336
CLIP_L_336 = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "image_size": 336,
    "patch_size": 14,
    "hidden_act": "quick_gelu",
    "layer_norm_eps": 1e-5,
}


def sizes(checkpoint: Path) -> dict[str, Any]:
    """Of the tower, by the names of transformers' CLIPVisionConfig."""
    own = checkpoint / "vision_config.json"
    return CLIP_L_336 | (json.loads(own.read_text()) if own.exists() else {})


class Tower(nn.Module):
    def __init__(self, checkpoint: Path) -> None:
        super().__init__()
        options = sizes(checkpoint) | {"attn_implementation": "sdpa"}
        options["num_hidden_layers"] -= 1  # the last one is never run
        self.tower = CLIPVisionModel(CLIPVisionConfig(**options))
        hidden = json.loads((checkpoint / "config.json").read_text())["hidden_size"]
        width = options["hidden_size"]
        self.projector = nn.Sequential(
            nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, hidden)
        )
        self._fill(checkpoint)
        self.eval()

    def _fill(self, checkpoint: Path) -> None:
        """Transformers has dropped the prefix `vision_model` in some versions: names are matched
        from their ends.
        """
        wanted = {
            name.removeprefix("vision_model."): p for name, p in self.tower.state_dict().items()
        }
        wanted |= {PROJECTOR + name: p for name, p in self.projector.state_dict().items()}
        for name, entry, data in source.tensors(checkpoint, (TOWER, PROJECTOR)):
            target = wanted.pop(name.removeprefix(TOWER).removeprefix("vision_model."), None)
            if target is not None:
                kind = torch.bfloat16 if entry["dtype"] == "BF16" else torch.float16
                target.copy_(torch.frombuffer(bytearray(data), dtype=kind).reshape(entry["shape"]))
        left = [
            name for name in wanted if "position_ids" not in name and "post_layernorm" not in name
        ]
        if left:
            raise ValueError(f"the checkpoint has no {left[0]}")

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        # The tower's post-LayerNorm is applied to its pooled output only.
        features = self.tower(pixels).last_hidden_state[:, 1:]
        projected: torch.Tensor = self.projector(features)
        return projected


def pixels(side: int, views: int) -> torch.Tensor:
    return torch.randn(views, 3, side, side, generator=torch.Generator().manual_seed(0))
