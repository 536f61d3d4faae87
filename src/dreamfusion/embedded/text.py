"""The embedded prior's words: captions as the words that they hold, in no order.

Nouns, colours and view words are all that a caption of its world can say, and none depends on another's place. The
tokenizer's files are also opened by transformers' `PreTrainedTokenizerFast`, with equal results; importing that takes
seconds, which everybody would wait who makes an object with the embedded prior.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from tokenizers import Tokenizer
from torch import Tensor, nn

from dreamfusion.embedded.storage import StoredModule


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

    last_hidden_state: Float[Tensor, "b l w"]
    hidden_states: tuple[Float[Tensor, "b l w"], ...]


class WordEncoder(StoredModule):
    """A row for each token, one-hot; zero for those that are no words: the padding, the end, an unknown word."""

    weights_name = "model.safetensors"

    def __init__(self, vocab_size: int, no_words: int = 3):
        """The first `no_words` tokens are no words."""
        super().__init__({"vocab_size": vocab_size, "no_words": no_words})
        self.rows = nn.Embedding.from_pretrained(
            torch.eye(vocab_size) * (torch.arange(vocab_size) >= no_words)[:, None]
        )

    def forward(self, input_ids: Int[Tensor, "b l"], **_: Any) -> Encoded:
        """The row of each token."""
        rows = self.rows(input_ids)
        return Encoded(rows, (rows, rows))
