"""Evaluation of the prior's own pictures, without 3D: noun, side and colour of the caption."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from dreamfusion.cameras import orbit
from dreamfusion.config.presets import FAST
from dreamfusion.diffusion.ddim import caption_conditioning, clean_estimates
from dreamfusion.diffusion.priors import ConditionSet, ViewCondition, allowed_conditions, require_known
from dreamfusion.diffusion.priors.pipeline import PipelinePrior
from dreamfusion.embedded.sheet import save_sheet
from dreamfusion.embedded.world import COLOURS, DISTANCE, FOV_DEG, SIZE
from dreamfusion.evaluate.captions import require_meaning
from dreamfusion.evaluate.judge.judge import Judge
from dreamfusion.evaluate.judge.network import OWN
from dreamfusion.evaluate.judge.sides import SIDES
from dreamfusion.evaluate.page import percent
from dreamfusion.evaluate.r_precision import Share, wilson
from dreamfusion.evaluate.report import listed_facts, share_text, table, without_nan
from dreamfusion.files import replacing, write_json, write_text
from dreamfusion.lights import albedo_only

VIEWS = {
    "front": (0.0, 20.0),
    "left": (90.0, 20.0),
    "back": (180.0, 20.0),
    "right": (270.0, 20.0),
    "overhead": (0.0, 70.0),
}
"""azimuth and elevation in degrees"""
BACKGROUND, STEPS, SEED = 0.8, 50, 0
GUIDANCE = FAST.distill.guidance_scale
AT_ONCE = 60
"""pictures; bounds memory"""


@dataclass(frozen=True)
class Sampling:
    """What was found, by view word."""

    noun: dict[str, Share]
    """captions whose noun the judge names first among all its nouns"""
    side: dict[str, Share]
    """of nouns with a front: pictures in which it sees the side of the view word"""
    colour: dict[str, Share]
    """of captions with a colour word: pictures in which it sees that colour"""


def draw(
    prior: PipelinePrior, captions: Sequence[str], conditions: ConditionSet, seed: int
) -> Float[Tensor, "2 c v h w 3"]:
    """Pictures in [0, 1] of every caption with each view word: the prior's estimates half way, as score distillation is
    told them, and the samples. `conditions`: its inputs besides the caption.

    Raises UserError for words that the prior does not know.
    """
    for caption in captions:
        require_known(prior, caption)
    words, generator = prior.view_words, Generator().manual_seed(seed)
    texts = [f"{caption}, {getattr(words, view)}" for caption in captions for view in VIEWS]
    angle = torch.tensor(list(VIEWS.values())).deg2rad().repeat(len(captions), 1)
    parts = [
        _drawn(prior, texts[i : i + AT_ONCE], angle[i : i + AT_ONCE], conditions, generator)
        for i in range(0, len(texts), AT_ONCE)
    ]
    return torch.cat(parts, dim=1).unflatten(1, (len(captions), len(VIEWS)))


def _drawn(
    prior: PipelinePrior, texts: list[str], angle: Float[Tensor, "b 2"], conditions: ConditionSet, generator: Generator
) -> Float[Tensor, "2 b h w 3"]:
    full, device = torch.ones(len(texts)), prior.schedule.alphas.device
    ring = orbit(angle[:, 0], angle[:, 1], full * DISTANCE, full * math.radians(FOV_DEG), SIZE).to(device)
    behind = torch.full((len(texts), 3), BACKGROUND, device=device)
    variety = torch.zeros(len(texts), dtype=torch.long, device=device)
    known = ViewCondition(ring.pose, behind, albedo_only(len(texts), device), variety)
    given = caption_conditioning(prior, texts, known.only(allowed_conditions(prior.conditions, conditions)))
    estimates = list(clean_estimates(prior, given, STEPS, GUIDANCE, generator, prior.space.limit))
    half_way = estimates[STEPS // 2 - 1]  # the last that is not below t = 0.5, from where upwards the fast preset asks
    return torch.stack([prior.decode(clean).cpu() for clean in (half_way, estimates[-1])])


def judged(judge: Judge, captions: Sequence[str], pictures: Float[Tensor, "c v h w 3"]) -> Sampling:
    """What the judge sees in the pictures of `draw`."""
    said = [require_meaning(caption, judge.nouns) for caption in captions]
    opinion = judge.opinion(pictures.flatten(0, 1))
    noun, side, colour = (
        logits.argmax(1).view(len(captions), len(VIEWS))
        for logits in (opinion.noun, opinion.side, opinion.colour[:, :OWN])
    )
    own = torch.tensor([judge.nouns.index(one.noun) for one in said])
    sided = torch.tensor([one.noun in judge.with_front for one in said])
    painted = torch.tensor([one.colour is not None for one in said])
    named = torch.tensor([list(COLOURS).index(one.colour) if one.colour else 0 for one in said])
    seen = torch.tensor([SIDES.index(view) if view in SIDES else SIDES.index("none") for view in VIEWS])
    return Sampling(
        noun=_by_view(noun == own[:, None]),
        side=_by_view((side == seen)[sided]),
        colour=_by_view((colour == named[:, None])[painted]),
    )


def _by_view(right: Tensor) -> dict[str, Share]:
    """Of "c v" marks, by view and of all; the interval of all counts captions."""
    columns = {**{view: right[:, i] for i, view in enumerate(VIEWS)}, "all": right}
    return {
        view: wilson(marks.float().mean().item() if len(marks) else math.nan, len(marks))
        for view, marks in columns.items()
    }


def report_samples(
    prior: PipelinePrior, judge: Judge, captions: Sequence[str], conditions: ConditionSet, out: Path
) -> list[Path]:
    """Draw, judge, and write the sheet and the figures into the folder `out`; returns the files."""
    pictures = draw(prior, captions, conditions, SEED)
    half_way, found = (judged(judge, captions, some) for some in pictures)
    out.mkdir(parents=True, exist_ok=True)
    paths = [out / name for name in ("samples.png", "samples.json", "samples.md")]
    with replacing(paths[0]) as part:
        save_sheet(_three_columns(pictures[1]), part, zoom=1)
    facts = {"prior": prior.name, "judge": judge.name, "conditions": conditions, "seed": SEED}
    real = judge.names_real([require_meaning(caption, judge.nouns).noun for caption in captions], "albedo")
    facts["real meshes of these nouns that the judge names"] = f"{percent(real)} %"
    numbers = {"facts": facts, "captions": list(captions), "found": asdict(found), "half way": asdict(half_way)}
    write_json(paths[1], {name: without_nan(value) for name, value in numbers.items()})
    write_text(paths[2], _markdown(facts, {"Samples": found, "Estimates half way (t = 0.5)": half_way}))
    return paths


def _three_columns(pictures: Float[Tensor, "c v h w 3"]) -> Float[Tensor, "r w2 h w 3"]:
    """Captions from top to bottom, in three columns of all views."""
    rows = -(-len(pictures) // 3)
    missing = pictures.new_ones(3 * rows - len(pictures), *pictures.shape[1:])
    return torch.cat(torch.cat([pictures, missing]).chunk(3), dim=1)


def _markdown(facts: dict[str, object], found: dict[str, Sampling]) -> str:
    text = "Top-1 of the judge among all its words, in %, 95 % intervals in brackets."
    lines = ["# Samples", "", *listed_facts(facts), "", text, ""]
    for name, one in found.items():
        rows = [
            (what, *(share_text(shares[view]) for view in [*VIEWS, "all"]))
            for what, shares in (("noun", one.noun), ("side", one.side), ("colour", one.colour))
        ]
        lines += [f"{name}:", "", *table([("right about", *VIEWS, "all"), *rows]), ""]
    return "\n".join(lines)
