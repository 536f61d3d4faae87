"""The judge, opened: it implements `Scorer`, and classifies the visible side of an object."""

from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F

from dreamfusion.embedded.world import COLOURS
from dreamfusion.errors import UserError, damage_explained
from dreamfusion.evaluate.captions import require_meaning
from dreamfusion.evaluate.judge.network import SIZE, JudgeNet, Opinion, cut_out
from dreamfusion.evaluate.judge.sides import MIRRORED
from dreamfusion.files import read_json

WEIGHTS, CARD = "judge.safetensors", "card.json"
CHUNK = 256
"""pictures at a time; bounds memory"""


def considered(network: JudgeNet, cut: Float[Tensor, "b 4 96 96"]) -> Opinion:
    """Mean of the log-probabilities for a cut-out and for its mirror image, in which left is right."""
    plain, mirrored = ({k: v.log_softmax(1) for k, v in vars(network(x)).items()} for x in (cut, cut.flip(-1)))
    mirrored["side"] = mirrored["side"][:, MIRRORED.to(cut.device)]
    return Opinion(**{name: (plain[name] + mirrored[name]) / 2 for name in plain})


class Judge:
    """Scores pictures against captions of its vocabulary."""

    def __init__(self, network: JudgeNet, card: dict[str, Any], device: torch.device | str = "cpu"):
        self.network, self.card, self.device = network.eval().to(device), card, device
        self.name: str = card["name"]
        self.nouns: list[str] = card["nouns"]
        self.with_front: list[str] = card["with front"]
        """the nouns whose front, sides and back differ"""

    @torch.no_grad()
    def opinion(self, images: Float[Tensor, "b h w 3"]) -> Opinion:
        """Logarithms of probabilities, on the CPU, about pictures in [0, 1] of any size of at least 64 pixels."""
        sized = F.interpolate(images.permute(0, 3, 1, 2).float(), (SIZE, SIZE), mode="bilinear", antialias=True)
        parts = [considered(self.network, cut_out(chunk.to(self.device))) for chunk in sized.split(CHUNK)]
        logits = {name: torch.cat([getattr(part, name) for part in parts]).cpu() for name in vars(parts[0])}
        return Opinion(**{name: value.log_softmax(dim=1) for name, value in logits.items()})

    def score(self, images: Float[Tensor, "b h w 3"], captions: Sequence[str]) -> Float[Tensor, "b c"]:
        """Log-probability of the caption's noun, plus that of its colour word, or of the thing's own colours if it has
        none: neither form wins by itself, as own colours are one answer among twelve that are equally likely before
        anything is seen.

        Other words do not count. Raises UserError for a caption without a noun that it knows.
        """
        said = [require_meaning(caption, self.nouns) for caption in captions]
        opinion, colours = self.opinion(images), [*COLOURS, None]
        noun = opinion.noun[:, [self.nouns.index(one.noun) for one in said]]
        return noun + opinion.colour[:, [colours.index(one.colour) for one in said]]

    def names_real(self, nouns: Sequence[str], kind: str) -> float:
        """Share of evaluation views of real meshes of these nouns, in a `kind` of light, whose noun it named first."""
        return sum(self.card["real meshes"][kind][noun] for noun in nouns) / len(nouns)


def open_judge(device: torch.device | str = "cpu", folder: Path | None = None) -> Judge:
    """The judge that comes with the package, or the one that `python -m training judge` wrote into `folder`.

    Raises UserError if there is none, or a damaged one.
    """
    folder = folder or Path(str(resources.files("dreamfusion.evaluate.judge"))) / "weights"
    if not (folder / WEIGHTS).is_file() or not (folder / CARD).is_file():
        raise UserError(f"there is no judge in {folder}: train one with `python -m training judge`")
    with damage_explained(folder / CARD, "restore it"):
        card = _card(read_json(folder / CARD))
    with damage_explained(folder / WEIGHTS, "restore it"):
        network = JudgeNet(len(card["nouns"]))
        network.load_state_dict(
            {name: t.float() if t.is_floating_point() else t for name, t in load_file(folder / WEIGHTS).items()}
        )
    return Judge(network, card, device)


def _card(card: Any) -> dict[str, Any]:
    """The same, if it names the judge and its nouns. Raises LookupError, TypeError or ValueError for anything else."""
    nouns = card["nouns"]
    if not all(isinstance(noun, str) for noun in (card["name"], *nouns)) or not 0 < len(set(nouns)) == len(nouns):
        raise ValueError("it needs a name and nouns")
    if not set(card["with front"]) <= set(nouns):
        raise ValueError("it has fronts of other nouns")
    return card
