"""Captions to embeddings."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dreamfusion.errors import UserError


@dataclass(frozen=True, eq=False)
class TextEncoder:
    """A transformers tokenizer and text encoder. Captions are padded to `length` tokens, and never cut silently."""

    tokenizer: Any
    model: nn.Module
    length: int
    zero_padding: bool
    """whether embeddings are zero at padded positions, or what the model makes of padding (as IFPipeline uses them)"""

    @torch.no_grad()
    def __call__(self, prompts: Sequence[str]) -> Float[Tensor, "p l d"]:
        """Raises UserError if a prompt has more tokens than `length`."""
        tokens = self.tokenizer(list(prompts), padding="max_length", max_length=self.length, return_tensors=None)
        for prompt, ids in zip(prompts, tokens["input_ids"], strict=True):
            if len(ids) > self.length:
                raise UserError(
                    f"shorten the prompt {_short(prompt)}: it has {len(ids)} tokens, the prior reads {self.length}"
                )
        device = next(self.model.parameters()).device
        ids, mask = (torch.tensor(tokens[key], device=device) for key in ("input_ids", "attention_mask"))
        embedded = self.model(input_ids=ids, attention_mask=mask).last_hidden_state
        # A selection, not a product: an encoder may leave anything at positions that nobody should read.
        return torch.where(mask[..., None] == 0, 0.0, embedded) if self.zero_padding else embedded


def _short(prompt: str) -> str:
    return repr(prompt if len(prompt) <= 60 else prompt[:57] + "...")
