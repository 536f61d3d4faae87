"""The embedded prior's words and its text encoder: a small T5 (Raffel et al. 2020, arXiv 1910.10683), encoder only.

The same files are opened by transformers' `PreTrainedTokenizerFast` and `T5EncoderModel`, with equal results; importing
those takes seconds, which everybody would wait who makes an object with the embedded prior.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional as F

from dreamfusion.embedded.storage import StoredModule

BUCKETS, FURTHEST = 32, 128
"""T5's classes of distances between tokens, and the distance from which all are one class"""


@dataclass(frozen=True, eq=False)
class WordTokenizer:
    """Captions to the numbers of their words."""

    words: Tokenizer
    pad: int
    model_max_length: int

    @classmethod
    def from_pretrained(cls, path: str, subfolder: str = "", **_: Any) -> "WordTokenizer":
        """Read `tokenizer.json` and `tokenizer_config.json`. Raises OSError, ValueError or KeyError."""
        folder = Path(path) / subfolder
        try:
            words = Tokenizer.from_file(str(folder / "tokenizer.json"))
        except Exception as error:  # the library raises nothing more special
            raise ValueError(f"tokenizer.json: {error}") from error
        config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
        words.no_padding()
        words.no_truncation()
        pad = words.token_to_id(config["pad_token"])
        if pad is None:
            raise ValueError(f"tokenizer.json has no token {config['pad_token']}")
        return cls(words, pad, int(config["model_max_length"]))

    def __call__(self, captions: Sequence[str], max_length: int = 0, **_: Any) -> dict[str, list[list[int]]]:
        """`input_ids` and `attention_mask`, filled up to `max_length` tokens; longer captions are left as they are."""
        ids = [encoding.ids for encoding in self.words.encode_batch(list(captions))]
        gaps = [max(0, max_length - len(row)) for row in ids]
        return {
            "input_ids": [row + [self.pad] * gap for row, gap in zip(ids, gaps, strict=True)],
            "attention_mask": [[1] * len(row) + [0] * gap for row, gap in zip(ids, gaps, strict=True)],
        }


@dataclass(frozen=True, eq=False)
class Encoded:
    """What the encoder makes of captions, under transformers' names."""

    last_hidden_state: Float[Tensor, "b l d"]
    hidden_states: tuple[Float[Tensor, "b l d"], ...]
    """embeddings, then the output of each block; the last one is normalised"""


class WordEncoder(StoredModule):
    """T5's encoder; its modules are named as there, so that its weights are read as they are."""

    weights_name = "model.safetensors"

    def __init__(self, vocab_size: int, d_model: int, d_kv: int, d_ff: int, num_layers: int, num_heads: int):
        super().__init__({name: value for name, value in locals().items() if name not in ("self", "__class__")})
        self.shared = nn.Embedding(vocab_size, d_model)
        self.encoder = Encoder([Block(d_model, d_kv, d_ff, num_heads) for _ in range(num_layers)], d_model)

    def forward(self, input_ids: Int[Tensor, "b l"], attention_mask: Tensor | None = None, **_: Any) -> Encoded:
        """States of each token; masked ones (0) are seen by no other."""
        return self.encoder(self.shared(input_ids), attention_mask)


class Encoder(nn.Module):
    """Blocks one after the other, the last output normalised."""

    def __init__(self, blocks: Sequence["Block"], width: int):
        super().__init__()
        if not blocks:
            raise ValueError("a text encoder needs at least one layer")
        self.block, self.final_layer_norm = nn.ModuleList(blocks), _norm(width)
        first = blocks[0].attention  # its table of distances serves all blocks
        first.relative_attention_bias = nn.Embedding(BUCKETS, first.heads)

    def forward(self, x: Float[Tensor, "b l d"], mask: Tensor | None) -> Encoded:
        places = torch.arange(x.shape[1], device=x.device)
        table = self.get_parameter("block.0.layer.0.SelfAttention.relative_attention_bias.weight")
        bias = table[distance_buckets(places[None, :] - places[:, None])].permute(2, 0, 1)[None]
        if mask is not None:
            bias = bias.masked_fill(mask[:, None, None, :] == 0, torch.finfo(bias.dtype).min)
        states = [x]
        for block in self.block:
            states.append(block(states[-1], bias))
        states[-1] = self.final_layer_norm(states[-1])
        return Encoded(states[-1], tuple(states))


class Block(nn.Module):
    """Attention, then a perceptron of two layers, each normalised before and added to what came in."""

    def __init__(self, width: int, size: int, inner: int, heads: int):
        super().__init__()
        attention = {"SelfAttention": Attention(width, size, heads), "layer_norm": _norm(width)}
        layers = {"wi": nn.Linear(width, inner, bias=False), "wo": nn.Linear(inner, width, bias=False)}
        dense = {"DenseReluDense": nn.ModuleDict(layers), "layer_norm": _norm(width)}
        self.layer = nn.ModuleList([nn.ModuleDict(attention), nn.ModuleDict(dense)])

    @property
    def attention(self) -> "Attention":
        attention = self.get_submodule("layer.0.SelfAttention")
        assert isinstance(attention, Attention)
        return attention

    def forward(self, x: Float[Tensor, "b l d"], bias: Float[Tensor, "#b h l l"]) -> Float[Tensor, "b l d"]:
        part = self.get_submodule
        x = x + self.attention(part("layer.0.layer_norm")(x), bias)
        inner = part("layer.1.DenseReluDense.wi")(part("layer.1.layer_norm")(x))
        return x + part("layer.1.DenseReluDense.wo")(F.relu(inner))


class Attention(nn.Module):
    """Multi-head attention without scaling and without offsets, as T5 has it."""

    def __init__(self, width: int, size: int, heads: int):
        super().__init__()
        self.heads = heads
        self.q, self.k, self.v = (nn.Linear(width, heads * size, bias=False) for _ in range(3))
        self.o = nn.Linear(heads * size, width, bias=False)

    def forward(self, x: Float[Tensor, "b l d"], bias: Float[Tensor, "#b h l l"]) -> Float[Tensor, "b l d"]:
        q, k, v = (layer(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for layer in (self.q, self.k, self.v))
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=1.0)
        return self.o(mixed.transpose(1, 2).flatten(2))


def distance_buckets(distance: Int[Tensor, "l l"]) -> Int[Tensor, "l l"]:
    """T5's classes of distances: half of `BUCKETS` for each sign; the nearest half of these exact, then logarithmic."""
    half, exact = BUCKETS // 2, BUCKETS // 4
    size = distance.abs()
    share = torch.log(size.clamp(min=1).float() / exact) / math.log(FURTHEST / exact)
    coarse = (exact + (share * (half - exact)).long()).clamp(max=half - 1)
    return half * (distance > 0) + torch.where(size < exact, size, coarse)


def _norm(width: int) -> nn.RMSNorm:
    return nn.RMSNorm(width, eps=1e-6)
