"""What pictures are called, in numbers: captions of the embedded world, and which of them are true of which picture."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor

from dreamfusion.embedded.world import COLOURS
from dreamfusion.words import words_of
from training.clip.views import SIDES
from training.nouns import Noun, names
from training.prior.data import COLOURED, VIEW_WORDS

NONE = -1
"""number of a word that is not said, or not known of a picture"""
SAY_COLOUR, SAY_ADJECTIVE, SAY_SIDE, SAY_UNTEXTURED = 0.85, 0.5, 0.25, 0.3
"""how likely each is said of a picture of which it is true"""


@dataclass(frozen=True, eq=False)
class Facts:
    """What captions say, or what is known of pictures: numbers in the lists of `Words`, or `NONE`."""

    noun: Int[Tensor, " n"]
    colour: Int[Tensor, " n"]
    """of pictures: the word that they were painted with; what colour other ones have is not known"""
    adjective: Int[Tensor, " n"]
    side: Int[Tensor, " n"]
    untextured: Int[Tensor, " n"]
    """1, or 0"""

    def __len__(self) -> int:
        return len(self.noun)

    def table(self) -> Int[Tensor, "n 5"]:
        return torch.stack([self.noun, self.colour, self.adjective, self.side, self.untextured], dim=1)

    def rows(self, own: Tensor | slice) -> "Facts":
        return Facts(*self.table()[own].unbind(1))

    def joined(self, *others: "Facts") -> "Facts":
        return Facts(*torch.cat([one.table() for one in (self, *others)]).unbind(1))


class Words:
    """The words of a manifest, and captions as the words that stand in them."""

    def __init__(self, table: Sequence[Noun]):
        self.nouns, self.colours = names(table), list(COLOURS)
        self.adjectives = sorted({row.adjective for row in table if row.adjective})
        phrases = [self.nouns, self.colours, self.adjectives, [VIEW_WORDS[side] for side in SIDES]]
        phrases.append([VIEW_WORDS["textureless"]])
        self.words = sorted({word for part in phrases for phrase in part for word in words_of(phrase)})
        """all of them, in the order of the network's inputs"""
        self._said = [torch.stack([self.of(phrase) for phrase in part or [""]]) for part in phrases]
        self.adjective_of = torch.tensor(
            [self.adjectives.index(row.adjective) if row.adjective else NONE for row in table]
        )
        """by mesh"""
        self._of_colour = torch.tensor([one in COLOURED for one in self.adjectives] or [False])

    def of(self, caption: str) -> Float[Tensor, " words"]:
        """1 for each word that stands in a caption."""
        said = set(words_of(caption))
        return torch.tensor([float(word in said) for word in self.words])

    def read(self, captions: Facts) -> Float[Tensor, "n words"]:
        """The same for captions in numbers."""
        numbers = (captions.noun, captions.colour, captions.adjective, captions.side, captions.untextured - 1)
        parts = [
            said[number.clamp(min=0)] * (number >= 0)[:, None] for said, number in zip(self._said, numbers, strict=True)
        ]
        return torch.stack(parts).sum(0).clamp(max=1)

    def caption(self, pictures: Facts, generator: Generator) -> Facts:
        """A caption of each picture: the noun, and of the other facts each one or not."""
        colour, adjective, side, untextured = torch.rand(4, len(pictures), generator=generator)
        coloured = torch.where(colour < SAY_COLOUR, pictures.colour, NONE)
        clash = self._of_colour[pictures.adjective.clamp(min=0)] & (coloured != NONE)
        return Facts(
            noun=pictures.noun,
            colour=coloured,
            adjective=torch.where((adjective < SAY_ADJECTIVE) & ~clash, pictures.adjective, NONE),
            side=torch.where(side < SAY_SIDE, pictures.side, NONE),
            untextured=torch.where(untextured < SAY_UNTEXTURED, pictures.untextured, 0),
        )

    def contrary(self, pictures: Facts, generator: Generator) -> Facts:
        """A caption of each picture that is wrong in one word, where one can be: the colour, or else the side."""
        nothing = torch.full_like(pictures.noun, NONE)
        return Facts(
            noun=pictures.noun,
            colour=_another(pictures.colour, len(self.colours), generator),
            adjective=nothing,
            side=torch.where(pictures.colour == NONE, _another(pictures.side, len(SIDES), generator), NONE),
            untextured=torch.zeros_like(pictures.noun),
        )

    def plain(self) -> Facts:
        """Every noun, and nothing else."""
        noun = torch.arange(len(self.nouns))
        nothing = torch.full_like(noun, NONE)
        return Facts(noun, nothing, nothing, nothing, torch.zeros_like(noun))


def wrong(pictures: Facts, captions: Facts) -> Bool[Tensor, "b n"]:
    """Which captions are known to be wrong about which pictures.

    Another noun, another colour than it was painted with, another adjective or side than its own, or "untextured" of
    one with texture. What is not known of a picture is not held against a caption.
    """
    seen, said = pictures.table()[:, None], captions.table()[None]
    differs = (seen != said) & (seen != NONE) & (said != NONE)
    differs[..., 4] = (said[..., 4] == 1) & (seen[..., 4] == 0)
    return differs.any(-1)


def _another(number: Int[Tensor, " n"], count: int, generator: Generator) -> Int[Tensor, " n"]:
    """Any other number below `count`; `NONE` stays."""
    step = torch.randint(1, count, number.shape, generator=generator)
    return torch.where(number == NONE, NONE, (number + step) % count)
