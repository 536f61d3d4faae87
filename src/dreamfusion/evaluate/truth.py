"""The things that prompts mean to the embedded prior, as pictures, and what a perfect prior makes of the prompts.

The pictures of the 80 prompts of the suites come with the package; `benchmarks/ceiling.py` rendered them from the
meshes that the prior learned from, recoloured where a prompt names a colour, as in the prior's training. The perfect
prior answers with the true rendering of the thing, in place of the prior, in a run that is otherwise the fast preset's:
what it misses is the 3D half's doing. It is not in the package.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from jaxtyping import Float
from torch import Tensor

from dreamfusion.config import Config
from dreamfusion.errors import UserError
from dreamfusion.evaluate.evaluation_views import KINDS, Views, read_sheet, read_views, save_views, sheet
from dreamfusion.evaluate.fidelity import Fidelity
from dreamfusion.files import read_json, replacing
from dreamfusion.runs import folder_name

SHIPPED = Path(__file__).with_suffix("")
FIGURES = "ceiling.json"
ADVICE = "benchmarks/ceiling.py --folder writes such folders"


@dataclass(frozen=True)
class Truths:
    """What some prompts mean."""

    folder: Path
    seed: int
    """chooses among the things that a noun means"""
    reached: Mapping[str, Fidelity]
    """by prompt, as the prior understands it: the perfect prior's"""
    prior: str | None
    """to which the prompts mean that; None for any"""

    def knows(self, config: Config) -> bool:
        """Whether they say what a run should have shown. If its prior is not told which of the things, nobody can."""
        named = config.caption(config.prompt) in self.reached and config.seed == self.seed
        return named and config.conditions in ("all", "no-camera") and self.prior in (None, config.prior)

    def true(self, prompt: str) -> Views:
        """The thing itself, unlit."""
        return read_views(_true(self.folder, prompt, self.seed), 1, ADVICE)

    def made(self, prompt: str) -> Float[Tensor, "3 8 h w 3"]:
        """What the perfect prior made of it, in all kinds of light; not exact, but for the eye and the judge."""
        return read_sheet(_made(self.folder, prompt, self.seed), len(KINDS), "RGB", ADVICE)


def open_truths(folder: Path | None = None) -> Truths:
    """Those of a folder, or those of the suites to the embedded prior. Raises UserError for a folder that has none."""
    place = folder or SHIPPED
    found = read_json(place / FIGURES, ADVICE)
    try:
        ends = {prompt: points[-1] for prompt, points in found["things"].items()}
        names = [field.name for field in fields(Fidelity)]
        reached = {prompt: Fidelity(*(_finite(end[name]) for name in names)) for prompt, end in ends.items()}
        return Truths(place, int(found["config"]["seed"]), reached, None if folder else Config.prior)
    except (AttributeError, IndexError, KeyError, OverflowError, TypeError, ValueError) as error:
        raise UserError(f"{place / FIGURES} is not of the format: {ADVICE}") from error


def _finite(value: Any) -> float:
    """A figure from a file. Raises ValueError, TypeError or OverflowError for what is none."""
    if not math.isfinite(figure := float(value)):
        raise ValueError(f"{figure} is no figure")
    return figure


def save_thing(folder: Path, config: Config, true: Views, made: Views) -> None:
    """Keep what a run's prompt means, exactly, and pictures of what the perfect prior made of it."""
    save_views(true, _true(folder, config.prompt, config.seed))
    with replacing(_made(folder, config.prompt, config.seed)) as part:
        sheet(made.pictures).save(part, quality=80, method=6)


def _true(folder: Path, prompt: str, seed: int) -> Path:
    return folder / f"{folder_name(prompt, seed)}.true.webp"


def _made(folder: Path, prompt: str, seed: int) -> Path:
    return folder / f"{folder_name(prompt, seed)}.made.webp"
