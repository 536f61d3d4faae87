"""The prior's folder, in diffusers' layout, from the tables of a training."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dreamfusion.embedded.denoiser import VIEWS, TablesDenoiser
from dreamfusion.embedded.tables import Shape
from dreamfusion.embedded.text import WordEncoder
from dreamfusion.embedded.world import COLOURS
from training.nouns import Noun
from training.prior.data import VIEW_WORDS, vocabulary
from training.prior.parts import END, PAD, UNKNOWN, word_tokenizer

ADJECTIVE = 0.3
"""how much better a caption with its adjective fits a thing"""
NO_WORDS = (PAD, END, UNKNOWN)


def word_tables(table: Sequence[Noun], words: Sequence[str]) -> dict[str, Tensor]:
    """What each word says of the things, colours and views (see `TablesDenoiser`)."""
    at = {word: index for index, word in enumerate(words)}
    noun, length = torch.zeros(len(words), len(table)), torch.zeros(len(table))
    for index, row in enumerate(table):
        own = row.noun.split()
        noun[[at[word] for word in own], index] = 2.0
        length[index] = len(own)
        if row.adjective:
            noun[at[row.adjective], index] = ADJECTIVE
    colour = torch.zeros(len(words), len(COLOURS))
    view = torch.zeros(len(words), len(VIEWS.words))
    for index, word in enumerate(COLOURS):
        colour[at[word], index] = 1.0
    for index, word in enumerate(VIEWS.words):
        view[at[word], index] = 1.0
    textureless = torch.zeros(len(words))
    textureless[at[VIEW_WORDS["textureless"]]] = 1.0
    return {
        "noun_words": noun, "noun_length": length, "colour_words": colour, "view_words": view,
        "textureless_word": textureless,
    }  # fmt: skip


def denoiser(
    table: Sequence[Noun],
    shape: Shape,
    things: Float[Tensor, "t n"],
    decode: nn.Module,
    numbers: Mapping[str, Tensor],
) -> TablesDenoiser:
    """The network that ships; `numbers`: luma and spread of each thing, the last row of nothing in particular."""
    words = [*NO_WORDS, *vocabulary(table)]
    sizes = asdict(shape)
    network = TablesDenoiser(len(table), len(words), sizes.pop("size"), sizes)
    network.things.store(things)
    network.decode.load_state_dict(decode.state_dict())
    for name, value in {**word_tables(table, words), **numbers}.items():
        network.get_buffer(name).copy_(value)
    return network


def write(network: TablesDenoiser, table: Sequence[Noun], folder: Path, card: dict[str, Any]) -> None:
    """Write the whole prior: words, network, noise, card."""
    words = [*NO_WORDS, *vocabulary(table)]
    word_tokenizer(words).save_pretrained(folder / "tokenizer")
    WordEncoder(len(words), len(NO_WORDS)).half().save_pretrained(folder / "text_encoder")
    network.half().save_pretrained(folder / "unet")
    (folder / "scheduler").mkdir(exist_ok=True)
    scheduler = {"beta_schedule": "squaredcos_cap_v2", "num_train_timesteps": 1000, "prediction_type": "sample"}
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(scheduler, indent=2) + "\n")
    index = {
        "_class_name": "IFPipeline",
        "scheduler": ["dreamfusion.embedded.noise", "CosineScheduler"],
        "text_encoder": ["dreamfusion.embedded.text", "WordEncoder"],
        "tokenizer": ["dreamfusion.embedded.text", "WordTokenizer"],
        "unet": ["dreamfusion.embedded.denoiser", "TablesDenoiser"],
    }
    (folder / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")
    (folder / "card.json").write_text(json.dumps(card, indent=2) + "\n")
