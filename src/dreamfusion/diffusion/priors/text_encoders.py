"""Captions to embeddings, as each kind of pipeline makes them.

An embedding is one table per caption: a row per token, then whatever else the network takes from the text (a pooled
vector, a mask) in rows of the same width. So whoever blends, stacks or saves embeddings need not know what is in them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from dreamfusion.diffusion.priors.folder import PipelineFolder, load_component, load_network
from dreamfusion.errors import UserError
from dreamfusion.files import read_json
from dreamfusion.quiet import quiet

# T5 reads any length; these are the lengths with which the models were trained, and diffusers' defaults.
IF_LENGTH, PIXART_ALPHA_LENGTH, PIXART_SIGMA_LENGTH, SD3_LENGTH = 77, 120, 300, 256
FLUX_LENGTH, FLUX_SCHNELL_LENGTH = 512, 256
CLIP_LENGTH = 77
"""What CLIP's tokenizers allow"""
LONGEST = 4096
"""tokens of a caption, more than any encoder here reads"""


@dataclass(frozen=True, eq=False)
class States:
    """Output of a text encoder for captions."""

    last: Float[Tensor, "p l d"]
    penultimate: Float[Tensor, "p l d"]
    pooled: Float[Tensor, "p e"] | None
    """one vector per caption, from encoders that make one"""
    mask: Int[Tensor, "p l"]
    """1 for tokens, 0 for padding"""


@dataclass(frozen=True)
class TextEncoders:
    """The text encoders of a folder. Each is in memory only while it reads: they can be larger than the denoiser.

    With `kept`, a dictionary that is empty at first, they stay there.
    """

    folder: PipelineFolder
    device: torch.device
    dtype: torch.dtype
    kept: dict[str, Any] | None = None

    @torch.no_grad()
    def read(self, prompts: Sequence[str], number: int = 1, length: int | None = None, masked: bool = False) -> States:
        """The states of encoder `number` for captions padded to `length` tokens (None: what its tokenizer allows).

        `masked`: whether the encoder is told which tokens are padding. Raises UserError for a prompt that is too long.
        """
        suffix = "" if number == 1 else f"_{number}"
        tokenizer = self.part(f"tokenizer{suffix}")
        longest = length or tokenizer.model_max_length
        if not isinstance(longest, int) or not 0 < longest <= LONGEST:
            where = self.folder.path / f"tokenizer{suffix}"
            raise UserError(f"{where} allows {longest} tokens (model_max_length), which no encoder reads: restore it")
        ids, mask = _tokens(tokenizer, prompts, longest, self.device)
        model = self.part(f"text_encoder{suffix}")
        masked = masked or bool(getattr(model.config, "use_attention_mask", False))
        said = model(input_ids=ids, attention_mask=mask if masked else None, output_hidden_states=True)
        pooled = getattr(said, "text_embeds", getattr(said, "pooler_output", None))
        return States(said.last_hidden_state, said.hidden_states[-2], pooled, mask)

    def part(self, name: str) -> Any:
        """A tokenizer or a text encoder, by its name in the folder."""
        if self.kept is not None and name in self.kept:
            return self.kept[name]
        if name.startswith("tokenizer"):
            loaded = load_component(self.folder, name)
        else:
            loaded = load_network(self.folder, name, self.device, self.dtype)
        if self.kept is not None:
            self.kept[name] = loaded
        return loaded


Embed = Callable[[TextEncoders, Sequence[str]], Tensor]
"""Captions to embeddings "p l d", the way of one kind of pipeline"""


def sd_text(encoders: TextEncoders, prompts: Sequence[str]) -> Float[Tensor, "p l d"]:
    """One CLIP, padding included (Stable Diffusion 1 and 2)."""
    return encoders.read(prompts).last


def if_text(encoders: TextEncoders, prompts: Sequence[str]) -> Float[Tensor, "p l d"]:
    """T5 with an attention mask for padding; outputs at padding are kept (DeepFloyd IF)."""
    return _t5(encoders, prompts, IF_LENGTH).last


def zero_padded_text(encoders: TextEncoders, prompts: Sequence[str]) -> Float[Tensor, "p l d"]:
    """The same with zeros where a caption has no token (the embedded prior)."""
    said = _t5(encoders, prompts, IF_LENGTH)
    # A selection, not a product: an encoder may leave anything at positions that nobody should read.
    return torch.where(said.mask[..., None] == 0, 0.0, said.last)


def sdxl_text(encoders: TextEncoders, prompts: Sequence[str]) -> Float[Tensor, "p l d"]:
    """Two CLIPs side by side, the second one's pooled vector; all zeros for the empty caption if the folder says so."""
    one, two = encoders.read(prompts, 1), encoders.read(prompts, 2)
    text = packed(torch.cat([one.penultimate, two.penultimate], dim=-1), _pooled(encoders, two))
    if read_json(encoders.folder.path / "model_index.json").get("force_zeros_for_empty_prompt", True):
        text[[not prompt for prompt in prompts]] = 0.0
    return text


def sd3_text(encoders: TextEncoders, prompts: Sequence[str]) -> Float[Tensor, "p l d"]:
    """Two CLIPs side by side, as wide as T5; then T5, or zeros where the folder does without; both pooled vectors."""
    one, two = encoders.read(prompts, 1), encoders.read(prompts, 2)
    clip = torch.cat([one.penultimate, two.penultimate], dim=-1)
    width = read_json(encoders.folder.path / "transformer" / "config.json")["joint_attention_dim"]
    if "text_encoder_3" in encoders.folder.classes:
        long = encoders.read(prompts, 3, SD3_LENGTH).last
    else:
        long = clip.new_zeros(len(prompts), SD3_LENGTH, width)
    tokens = torch.cat([F.pad(clip, (0, width - clip.shape[-1])), long], dim=1)
    return packed(tokens, torch.cat([_pooled(encoders, one), _pooled(encoders, two)], dim=-1))


def flux_text(encoders: TextEncoders, prompts: Sequence[str]) -> Float[Tensor, "p l d"]:
    """T5 without an attention mask, and the pooled vector of CLIP."""
    guided = read_json(encoders.folder.path / "transformer" / "config.json").get("guidance_embeds", False)
    tokens = encoders.read(prompts, 2, FLUX_LENGTH if guided else FLUX_SCHNELL_LENGTH).last
    return packed(tokens, _pooled(encoders, encoders.read(prompts, 1)))


def pixart_alpha_text(encoders: TextEncoders, prompts: Sequence[str]) -> Float[Tensor, "p l d"]:
    """T5 and its mask (PixArt-alpha)."""
    return _with_mask(_t5(encoders, prompts, PIXART_ALPHA_LENGTH))


def pixart_sigma_text(encoders: TextEncoders, prompts: Sequence[str]) -> Float[Tensor, "p l d"]:
    """T5 and its mask (PixArt-sigma)."""
    return _with_mask(_t5(encoders, prompts, PIXART_SIGMA_LENGTH))


def packed(tokens: Float[Tensor, "p l d"], vector: Float[Tensor, "p e"]) -> Float[Tensor, "p m d"]:
    """Tokens, and after them a vector, cut into rows; the last one is filled up with zeros."""
    width = tokens.shape[-1]
    rows = F.pad(vector, (0, -vector.shape[1] % width)).view(len(vector), -1, width)
    return torch.cat([tokens, rows.to(tokens)], dim=1)


def unpacked(text: Float[Tensor, "p m d"], size: int) -> tuple[Float[Tensor, "p l d"], Float[Tensor, "p e"]]:
    """What `packed` put together; `size` is the length of the vector."""
    rows = -(-size // text.shape[-1])
    return text[:, :-rows], text[:, -rows:].flatten(1)[:, :size]


def packed_shape(length: int, width: int, size: int) -> tuple[int, int]:
    """Rows and width of what `packed` makes of so many tokens and a vector of so many numbers."""
    return length + -(-size // width), width


def _t5(encoders: TextEncoders, prompts: Sequence[str], length: int) -> States:
    # Lower case, as in diffusers' pipelines of these models.
    limit = encoders.part("tokenizer").model_max_length
    return encoders.read([prompt.lower().strip() for prompt in prompts], 1, min(length, limit), masked=True)


def _with_mask(said: States) -> Float[Tensor, "p l d"]:
    return packed(said.last, said.mask.to(said.last))


def _pooled(encoders: TextEncoders, said: States) -> Float[Tensor, "p e"]:
    if said.pooled is None:
        raise UserError(f"a text encoder of {encoders.folder.path} makes no pooled vector: restore the folder")
    return said.pooled


def _tokens(tokenizer: Any, prompts: Sequence[str], length: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Token ids and mask; captions are padded to `length` tokens and never cut silently."""
    with quiet():  # it would warn of prompts that are refused here
        tokens = tokenizer(list(prompts), padding="max_length", max_length=length, return_tensors=None)
    for prompt, ids in zip(prompts, tokens["input_ids"], strict=True):
        if len(ids) > length:
            raise UserError(f"shorten the prompt {_short(prompt)}: it has {len(ids)} tokens, the prior reads {length}")
    ids, mask = (torch.tensor(tokens[key], device=device) for key in ("input_ids", "attention_mask"))
    return ids, mask


def _short(prompt: str) -> str:
    return repr(prompt if len(prompt) <= 60 else prompt[:57] + "...")
