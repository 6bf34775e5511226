"""pulse-nano in torch: CLIP vision tower, LLaVA's projector, Llama decoder, and training-only heads
beside them.

Parameter names end as the published checkpoint's do (`checkpoint.py` only adds prefixes). Attention
is written as matmul, softmax, matmul: on a CPU at these sizes that is faster than the fused kernel.
The tower keeps one layer more than it uses, because LLaVA reads hidden state -2.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pulse_edge.simulation.ecg import AXES, CONDUCTION, ECTOPY, RHYTHMS, ST_CHANGES


@dataclass(frozen=True)
class Size:
    """Shapes. Widths are multiples of 128, for block-quantized weights."""

    image: int = 336
    patch: int = 28
    vision_width: int = 128
    vision_layers: int = 6  # the last one is never used, see `mm_vision_select_layer`
    vision_heads: int = 2
    vision_mlp: int = 512
    width: int = 128
    layers: int = 5
    heads: int = 4  # of 32: what is read off a page is many small things
    ffn: int = 384
    vocab: int = 1024
    positions: int = 2048

    @property
    def grid(self) -> int:
        return self.image // self.patch

    def asdict(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def of_tower(self) -> dict[str, Any]:
        return {"patch": self.patch} | {
            k: v for k, v in asdict(self).items() if k.startswith("vision_")
        }


VIEWS = 5  # of a page: the base view, then its tiles
SHEET = (1.86, 1.65, 1.75)  # normalised colour of a printed sheet, averaged over paper and grid

# x-bins per patch of the event heat maps
BINS = {"qrs": 14, "p": 14, "pvc": 4, "pac": 4, "spike": 4, "lone": 4}
# Intervals are told as classes, where a QRS complex lies (PR: or its P wave): the mean over patches
# is a histogram.
CLASSES = {"pr": 17, "rr": 30, "turn": 15}  # what they mean: `targets.class_at`
LOCAL = ("st_mm", "qrs_s")  # regressed where a QRS complex lies
DENSE = sum(BINS.values()) + sum(CLASSES.values()) + len(LOCAL)
HEADS = {
    "rhythm": len(RHYTHMS),
    "conduction": len(CONDUCTION),
    "ectopy": len(ECTOPY),
    "st": len(ST_CHANGES),
    "lvh": 1,
    "axis": len(AXES),
    "rate": 1,
    "pr": 1,
    "qrs": 1,
    "readable": 1,
}


class Seen(NamedTuple):
    """What the heads say: dense (pages, VIEWS * patches, DENSE), answers and glances by name of the
    attribute, (pages, classes) and (pages, VIEWS, classes).
    """

    dense: Tensor
    answers: dict[str, Tensor]
    glances: dict[str, Tensor]


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """(batch, heads, n, d) x (batch, heads, m, d) -> (batch, heads, n, d); `mask` is added to the
    scores.
    """
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
    if mask is not None:  # in the scores' type: bfloat16 takes half of the time
        scores = scores + mask.to(scores.dtype)
    weights: Tensor = torch.softmax(scores, dim=-1)
    return weights @ v


def attend_causal(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, rows: int = 128) -> Tensor:
    """`attend` where `mask` hides everything after a query's own position: in strips, so that half
    is never computed.

    The last query is at the last key, as with a cache.
    """
    n, before = q.shape[2], k.shape[2] - q.shape[2]
    strips = []
    for first in range(0, n, rows):
        seen = before + min(n, first + rows)
        part = slice(first, first + rows)
        strips.append(attend(q[:, :, part], k[:, :, :seen], v[:, :, :seen], mask[..., part, :seen]))
    return torch.cat(strips, dim=2)


class VisionLayer(nn.Module):
    """CLIPEncoderLayer: pre-LayerNorm, quick GELU."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        w = size.vision_width
        self.heads = size.vision_heads
        self.layer_norm1, self.layer_norm2 = nn.LayerNorm(w), nn.LayerNorm(w)
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = (nn.Linear(w, w) for _ in range(4))
        self.fc1, self.fc2 = nn.Linear(w, size.vision_mlp), nn.Linear(size.vision_mlp, w)

    def forward(self, x: Tensor) -> Tensor:
        b, n, w = x.shape
        y = self.layer_norm1(x)
        weight = torch.cat([self.q_proj.weight, self.k_proj.weight, self.v_proj.weight])
        bias = torch.cat([self.q_proj.bias, self.k_proj.bias, self.v_proj.bias])
        q, k, v = (
            F.linear(y, weight, bias)
            .view(b, n, 3, self.heads, w // self.heads)
            .permute(2, 0, 3, 1, 4)
        )
        x = x + self.out_proj(attend(q, k, v).transpose(1, 2).reshape(b, n, w))
        y = self.fc1(self.layer_norm2(x))
        out: Tensor = x + self.fc2(y * torch.sigmoid(1.702 * y))
        return out


class Tower(nn.Module):
    """CLIP ViT up to hidden state -2, class token dropped: (views, 3, 336, 336) -> (views, patches,
    width).

    In training the patch filters see pixels less the colour of a sheet. Otherwise their thousands
    of weights all meet the same bright constant, and one Adam step moves their output by more than
    the ink does. CLIP's embedding has no bias, but its position embedding can take the constant:
    `folded_positions`.
    """

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.size = size
        w, p = size.vision_width, size.patch
        self.patch_embedding = nn.Linear(3 * p * p, w, bias=False)
        self.class_embedding = nn.Parameter(torch.randn(w) * 0.5)
        self.position_embedding = nn.Parameter(torch.randn(size.grid**2 + 1, w) * 0.5)
        self.pre_layrnorm = nn.LayerNorm(w)  # sic: CLIP's spelling
        self.layers = nn.ModuleList(VisionLayer(size) for _ in range(size.vision_layers))
        for layer in self.layers:
            for name in ("out_proj", "fc2"):
                nn.init.normal_(getattr(layer, name).weight, std=0.02)
        sheet = torch.tensor(SHEET).view(1, 1, 3, 1).expand(1, 1, 3, p * p).reshape(1, 1, -1)
        self.sheet: Tensor
        self.register_buffer("sheet", sheet, persistent=False)
        self._init_filters()

    @torch.no_grad()
    def folded_positions(self) -> Tensor:
        """(patches + 1, width) position embedding for a tower that does not subtract the sheet."""
        out = self.position_embedding.clone()
        out[1:] -= self.patch_embedding(self.sheet)[0]
        return out

    @torch.no_grad()
    def _init_filters(self) -> None:
        """Smooth random filters without a constant part: paper and grid cancel, thin lines
        do not.
        """
        w, p = self.size.vision_width, self.size.patch
        reach = torch.arange(-4, 5, dtype=torch.float32)
        bell = torch.exp(-0.5 * (reach / 1.5) ** 2)
        bell = bell / bell.sum()
        noise = torch.randn(w, 1, p + 8, p + 8)
        smooth = F.conv2d(F.conv2d(noise, bell.view(1, 1, 1, -1)), bell.view(1, 1, -1, 1))
        smooth = smooth - smooth.mean((2, 3), keepdim=True)
        smooth = smooth / smooth.std((2, 3), keepdim=True)
        colour = torch.tensor([1.0, 0.6, 0.6]).view(1, 3, 1, 1) * (0.5 + torch.rand(w, 3, 1, 1))
        self.patch_embedding.weight.copy_((smooth * colour * 0.02).reshape(w, -1))

    def forward(self, pixels: Tensor) -> Tensor:
        views, g, p = pixels.shape[0], self.size.grid, self.size.patch
        patches = (
            pixels.view(views, 3, g, p, g, p)
            .permute(0, 2, 4, 1, 3, 5)
            .reshape(views, g * g, 3 * p * p)
        )
        x = self.patch_embedding(patches - self.sheet)
        x = (
            torch.cat([self.class_embedding.expand(views, 1, -1), x], dim=1)
            + self.position_embedding
        )
        x = self.pre_layrnorm(x)
        for layer in list(self.layers)[:-1]:
            x = layer(x)
        out: Tensor = x[:, 1:]
        return out


class Heads(nn.Module):
    """Training only: event maps from each patch, attributes from learned queries over all of them,
    and from each view.

    The decoder has to find in the features what the queries find. What a view knows as a whole is
    easiest to find where the plain mean of its patches tells it: the glances.
    """

    def __init__(self, size: Size) -> None:
        super().__init__()
        w = size.vision_width
        self.norm = nn.LayerNorm(w)
        self.dense = nn.Linear(w, DENSE)
        self.place = nn.Parameter(torch.randn(VIEWS * size.grid**2, w) * 0.3)
        self.query = nn.Parameter(torch.randn(len(HEADS) * 2, w) * 0.5)
        self.kv = nn.Linear(w, 4 * w)
        self.asks = nn.ModuleList(nn.Linear(w, w) for _ in range(2))
        self.outs = nn.ModuleList(nn.Linear(w, w) for _ in range(2))
        self.mlps = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(w), nn.Linear(w, 2 * w), nn.GELU(), nn.Linear(2 * w, w))
            for _ in range(2)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(w) for _ in range(3))
        self.answers = nn.ModuleDict({name: nn.Linear(2 * w, n) for name, n in HEADS.items()})
        self.glance = nn.Linear(w, sum(HEADS.values()))

    def forward(self, features: Tensor) -> Seen:
        """Features (pages, VIEWS * patches, width), of the base view first."""
        b, n, w = features.shape
        x = self.norm(features)
        heads = w // 32
        k1, v1, k2, v2 = (
            self.kv(x + self.place).view(b, n, 4, heads, w // heads).permute(2, 0, 3, 1, 4)
        )
        q = self.query.expand(b, -1, -1)
        for ask, out, mlp, norm, k, v in zip(
            self.asks, self.outs, self.mlps, self.norms, (k1, k2), (v1, v2), strict=False
        ):
            heads_q = ask(norm(q)).view(b, -1, heads, w // heads).transpose(1, 2)
            q = q + out(attend(heads_q, k, v).transpose(1, 2).reshape(b, -1, w))
            q = q + mlp(q)
        q = self.norms[2](q).view(b, len(HEADS), 2 * w)
        answers = {name: head(q[:, i]) for i, (name, head) in enumerate(self.answers.items())}
        glances = self.glance(x.view(b, VIEWS, -1, w).mean(2)).split(list(HEADS.values()), dim=-1)
        return Seen(self.dense(x), answers, dict(zip(HEADS, glances, strict=True)))


class RMSNorm(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5) * self.weight
        return out


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """RoPE in Llama's half-split order; cos, sin (batch, 1, n, d)."""
    half = x.shape[-1] // 2
    return x * cos + torch.cat([-x[..., half:], x[..., :half]], dim=-1) * sin


class DecoderLayer(nn.Module):
    def __init__(self, size: Size) -> None:
        super().__init__()
        w = size.width
        self.heads = size.heads
        self.input_layernorm, self.post_attention_layernorm = RMSNorm(w), RMSNorm(w)
        self.q_proj, self.k_proj, self.v_proj, self.o_proj = (
            nn.Linear(w, w, bias=False) for _ in range(4)
        )
        self.gate_proj, self.up_proj = (nn.Linear(w, size.ffn, bias=False) for _ in range(2))
        self.down_proj = nn.Linear(size.ffn, w, bias=False)

    def forward(
        self,
        x: Tensor,
        cos: Tensor,
        sin: Tensor,
        mask: Tensor | None,
        cache: list[Tensor] | None,
        first: int = 0,
    ) -> Tensor:
        """The positions before `first` are attended to, but have no output."""
        b, n, w = x.shape
        y = self.input_layernorm(x)
        weight = torch.cat([self.q_proj.weight, self.k_proj.weight, self.v_proj.weight])
        q, k, v = (
            F.linear(y, weight).view(b, n, 3, self.heads, w // self.heads).permute(2, 0, 3, 1, 4)
        )
        # One type for all: autocast would convert the keys again for each strip of queries.
        q, k = rotate(q, cos, sin).to(v.dtype), rotate(k, cos, sin).to(v.dtype)
        if cache is not None:
            if cache:
                k, v = torch.cat([cache[0], k], dim=2), torch.cat([cache[1], v], dim=2)
            cache[:] = [k, v]
        if first:
            x, q, mask = (
                x[:, first:],
                q[:, :, first:],
                None if mask is None else mask[..., first:, :],
            )
        if mask is None:
            y = F.scaled_dot_product_attention(q, k, v, is_causal=n > 1)
        else:
            y = attend_causal(q, k, v, mask)
        x = x + self.o_proj(y.transpose(1, 2).reshape(b, n - first, w))
        y = self.post_attention_layernorm(x)
        out: Tensor = x + self.down_proj(F.silu(self.gate_proj(y)) * self.up_proj(y))
        return out


class Decoder(nn.Module):
    """Llama: embeddings in, hidden states after the last norm out."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.size = size
        self.embed_tokens = nn.Embedding(size.vocab, size.width)
        self.layers = nn.ModuleList(DecoderLayer(size) for _ in range(size.layers))
        self.norm = RMSNorm(size.width)
        self.lm_head = nn.Linear(size.width, size.vocab, bias=False)
        for parameter in self.parameters():
            if parameter.dim() == 2:
                nn.init.normal_(parameter, std=0.04)
        nn.init.normal_(self.embed_tokens.weight, std=0.5)
        d = size.width // size.heads
        angle = torch.arange(size.positions)[:, None] * 10000.0 ** (-torch.arange(0, d, 2) / d)
        self.angle: Tensor
        self.register_buffer("angle", torch.cat([angle, angle], dim=1).float(), persistent=False)

    def forward(
        self,
        x: Tensor,
        positions: Tensor,
        mask: Tensor | None,
        caches: list[list[Tensor]] | None = None,
        first: int = 0,
    ) -> Tensor:
        """x (b, n, width), positions (b or 1, n) int64, mask broadcast to (b, heads, n, m), added
        to the scores; None: causal, for the first n positions or for a single later one.

        Hidden states (b, n - first, width) of the positions from `first` on.
        """
        angle = self.angle[positions][:, None]
        cos, sin = angle.cos(), angle.sin()
        for number, layer in enumerate(self.layers):
            last = number == len(self.layers) - 1
            x = layer(
                x, cos, sin, mask, None if caches is None else caches[number], first if last else 0
            )
        out: Tensor = self.norm(x)
        return out


class Projector(nn.Sequential):
    """`mlp2x_gelu`: parameters 0.* and 2.*."""

    def __init__(self, size: Size) -> None:
        super().__init__(
            nn.Linear(size.vision_width, size.width), nn.GELU(), nn.Linear(size.width, size.width)
        )


class Nano(nn.Module):
    """Everything that is trained."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.size = size
        self.tower, self.heads = Tower(size), Heads(size)
        self.projector, self.decoder = Projector(size), Decoder(size)

    def see(self, views: Tensor) -> Tensor:
        """Views (pages, VIEWS, 3, 336, 336) -> features (pages, VIEWS * patches, vision width),
        merged `flat`.
        """
        features: Tensor = self.tower(views.flatten(0, 1))
        return features.reshape(views.shape[0], -1, self.size.vision_width)
