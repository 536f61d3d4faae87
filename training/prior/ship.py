"""The prior's folder, in diffusers' layout, from the tables of a training."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast

from dreamfusion.embedded.denoiser import VIEWS, TablesDenoiser, grid
from dreamfusion.embedded.tables import Shape
from dreamfusion.embedded.text import WordEncoder
from dreamfusion.embedded.world import COLOURS
from training.nouns import Noun
from training.prior.data import VIEW_WORDS, vocabulary
from training.prior.error import unseen
from training.prior.views import MeshViews

ADJECTIVE = 0.3
"""how much better a caption with its adjective fits a thing"""
PAD, END, UNKNOWN = NO_WORDS = ("<pad>", "</s>", "<unk>")
MEASURED = 8
"""unseen views of each thing"""


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
    corrections: Float[Tensor, "t c"],
    decode: nn.Module,
) -> TablesDenoiser:
    """The network that ships, but for what is measured of it; the last rows are those of nothing named."""
    words = [*NO_WORDS, *vocabulary(table)]
    sizes = asdict(shape)
    network = TablesDenoiser(len(table), len(words), sizes.pop("size"), sizes)
    network.things.store(things)
    network.corrections.store(corrections)
    network.decode.load_state_dict(decode.state_dict())
    for name, value in word_tables(table, words).items():
        network.get_buffer(name).copy_(value)
    return network


@torch.no_grad()
def measured(network: TablesDenoiser, table: Sequence[Noun], data: Sequence[MeshViews]) -> None:
    """Set the brightness of each thing's paint, and how far its pictures are from views that nothing learned from.

    Of nothing named, the mean of all, both are means over the things; its distance is that to the things.
    """
    luma, spread = torch.zeros(len(table) + 1), torch.zeros(len(table) + 1, 2)
    nothing, around = torch.tensor([len(table)]), grid()
    for mesh, (row, views) in enumerate(zip(table, data, strict=True)):
        test = unseen(mesh, row, views, MEASURED)
        near = (test.pose[:, None, :3, 3] - around[:, :3, 3]).norm(dim=-1).argmin(1)
        asked = [(torch.tensor([mesh]), test.pose), (torch.tensor([mesh]), around[near]), (nothing, test.pose)]
        told, guessed, unnamed = (test.errors(network.drawn(thing, pose[None])[0])[1] for thing, pose in asked)
        luma[mesh], spread[mesh] = test.luma, torch.tensor([told, guessed])
        spread[-1] += unnamed / len(table)
    luma[-1] = luma[:-1].mean()
    network.luma.copy_(luma)
    network.spread.copy_(spread.sqrt())


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


def word_tokenizer(words: list[str]) -> PreTrainedTokenizerFast:
    """Lower-case words without punctuation, one token each, closed by the end token."""
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token=UNKNOWN))
    strip = normalizers.Replace(Regex("[^a-z0-9 ]"), " ")
    tokenizer.normalizer = normalizers.Sequence([normalizers.Lowercase(), strip])
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    end = [(END, words.index(END))]
    tokenizer.post_processor = processors.TemplateProcessing(single=f"$A {END}", special_tokens=end)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=PAD, eos_token=END, unk_token=UNKNOWN, model_max_length=24
    )
