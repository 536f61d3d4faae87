"""How often the judge is right about real meshes: views that it never saw, and meshes that it never saw."""

from dataclasses import asdict, dataclass, replace

import torch
from torch import Generator

from dreamfusion.evaluate.judge.judge import considered
from dreamfusion.evaluate.judge.network import OWN, JudgeNet, Opinion
from dreamfusion.evaluate.judge.sides import SIDES
from training.judge.pictures import CLEAN, Batch, draw
from training.judge.views import Split
from training.mesh_views import Views

CHUNK = 256


@dataclass(frozen=True)
class Accuracy:
    """Shares of right first answers, in [0, 1]."""

    pictures: int
    noun: float
    side: float | None
    """among pictures of objects with a front, not from above"""
    colour: float | None
    """among pictures painted with a colour word"""


@torch.no_grad()
def accuracy(network: JudgeNet, views: Views, textureless: float, seed: int) -> Accuracy:
    """Of one clean picture of each view, in colour (`textureless` 0) or without (1)."""
    before = network.training
    network.eval()
    generator, look = Generator().manual_seed(seed), replace(CLEAN, textureless=textureless)
    right: dict[str, list[torch.Tensor]] = {"noun": [], "side": [], "colour": []}
    for start in range(0, len(views.noun), CHUNK):
        truth = draw(views[start : start + CHUNK], look, generator)
        for name, marks in _marks(considered(network, truth.cut), truth).items():
            right[name].append(marks)
    network.train(before)
    share = {name: torch.cat(marks).float().mean().item() for name, marks in right.items() if torch.cat(marks).numel()}
    return Accuracy(len(views.noun), share["noun"], share.get("side"), share.get("colour"))


def accuracies(network: JudgeNet, split: Split, seed: int = 99) -> dict[str, dict[str, object]]:
    """New meshes and new views, each in colour and textureless."""
    kinds = {"new meshes": split.new_meshes, "new views": split.new_views}
    looks = {"colour": 0.0, "textureless": 1.0}
    return {
        f"{kind}, {look}": asdict(accuracy(network, views, textureless, seed))
        for kind, views in kinds.items()
        for look, textureless in looks.items()
        if len(views.noun)
    }


def _marks(opinion: Opinion, truth: Batch) -> dict[str, torch.Tensor]:
    sided, painted = truth.side != SIDES.index("none"), (truth.colour >= 0) & (truth.colour < OWN)
    return {
        "noun": opinion.noun.argmax(1) == truth.noun,
        "side": (opinion.side.argmax(1) == truth.side)[sided],
        "colour": (opinion.colour.argmax(1) == truth.colour)[painted],
    }
