"""The embedded contrastive model, opened: it knows the nouns, colours and views of the embedded world."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F

from dreamfusion.contrastive.network import SIZE, ToyboxNet
from dreamfusion.errors import UserError, damage_explained
from dreamfusion.files import read_json
from dreamfusion.words import words_of

WEIGHTS, CARD = "toybox-clip.safetensors", "card.json"


class ToyboxClip:
    """A small network that reads captions as the words that stand in them; it implements `ContrastiveModel`."""

    def __init__(self, network: ToyboxNet, card: dict[str, Any], device: torch.device | str = "cpu"):
        """The card names the model, its words in the order of the network's inputs, and its nouns."""
        self.network, self.card, self.device = (
            network.eval().requires_grad_(False).to(device),
            card,
            torch.device(device),
        )
        self.name: str = card["name"]
        self.image_size = SIZE
        self.logit_scale = float(self.network.scale)
        self._numbers = {word: number for number, word in enumerate(card["words"])}

    def embed_text(self, captions: Sequence[str]) -> Float[Tensor, "n d"]:
        """Unit vectors of captions; words that it does not know do not count.

        Raises UserError for a caption that names no thing that it knows.
        """
        said = torch.zeros(len(captions), len(self._numbers))
        for row, caption in zip(said, captions, strict=True):
            words = words_of(caption)
            if not any(f" {noun} " in f" {' '.join(words)} " for noun in self.card["nouns"]):
                raise UserError(
                    f"{self.name} knows no thing in {caption!r} (`dreamfusion judge info` lists what the embedded"
                    " models know): name one of them, or give a CLIP or SigLIP folder"
                )
            row[[self._numbers[word] for word in words if word in self._numbers]] = 1
        with torch.no_grad():
            return self.network.embed_words(said.to(self.device))

    def embed_images(self, image: Float[Tensor, "b h w 3"]) -> Float[Tensor, "b d"]:
        """Unit vectors of pictures in [0, 1]; differentiable with respect to them."""
        sized = image.permute(0, 3, 1, 2).float()
        if sized.shape[2:] != (SIZE, SIZE):
            sized = F.interpolate(sized, (SIZE, SIZE), mode="bilinear", antialias=True)
        return self.network.embed_images(sized)


def open_toybox(folder: Path, device: torch.device | str = "cpu") -> ToyboxClip:
    """What `python -m training clip` wrote into a folder. Raises UserError if there is none, or a damaged one."""
    if not (folder / WEIGHTS).is_file() or not (folder / CARD).is_file():
        raise UserError(f"there is no {WEIGHTS} with its {CARD} in {folder}: train one with `python -m training clip`")
    with damage_explained(folder / CARD, "restore it"):
        card = _checked(read_json(folder / CARD))
    with damage_explained(folder / WEIGHTS, "restore it"):
        network = ToyboxNet(len(card["words"]))
        network.load_state_dict(
            {name: t.float() if t.is_floating_point() else t for name, t in load_file(folder / WEIGHTS).items()}
        )
    return ToyboxClip(network, card, device)


def _checked(card: Any) -> dict[str, Any]:
    """The same, if it names the model, its words and nouns. Raises LookupError, TypeError or ValueError otherwise."""
    words, nouns = card["words"], card["nouns"]
    if not all(isinstance(text, str) for text in (card["name"], *words, *nouns)) or len(set(words)) != len(words):
        raise ValueError("it needs a name, words and nouns")
    if not {word for noun in nouns for word in words_of(noun)} <= set(words):
        raise ValueError("it has nouns of other words")
    return card
