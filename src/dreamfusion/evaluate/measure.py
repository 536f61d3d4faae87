"""From evaluation pictures to verdicts about runs, and from verdicts to the figures of a suite."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dreamfusion.embedded.world import COLOURS
from dreamfusion.evaluate.captions import meaning, without_colour
from dreamfusion.evaluate.evaluation_views import KINDS
from dreamfusion.evaluate.fidelity import Likeness
from dreamfusion.evaluate.janus import fronts
from dreamfusion.evaluate.judge.judge import Judge
from dreamfusion.evaluate.judge.network import OWN
from dreamfusion.evaluate.r_precision import Share, retrieved, wilson
from dreamfusion.evaluate.scorer import Scorer


@dataclass(frozen=True)
class Result:
    """A run to judge."""

    prompt: str
    """as the prior understood it"""
    suite: str
    """"" if it belongs to none"""
    folder: Path
    problem: str = ""
    """what went wrong while it was made"""
    pictures: Float[Tensor, "3 8 h w 3"] | None = None
    """None if the run left no scene"""
    likeness: Likeness | None = None
    """None where it is not known what the prompt means"""


@dataclass(frozen=True)
class Captions:
    """Among which captions the right one has to be found, by kind of picture."""

    coloured: tuple[str, ...]
    bare: tuple[str, ...]
    """for textureless pictures"""
    bare_of: dict[str, str]
    """the caption that stands for a coloured one there"""

    def own(self, kind: str, prompt: str) -> int:
        """The place of a prompt's caption."""
        return self.bare.index(self.bare_of[prompt]) if kind == "textureless" else self.coloured.index(prompt)

    def of(self, kind: str) -> tuple[str, ...]:
        return self.bare if kind == "textureless" else self.coloured


@dataclass(frozen=True)
class Verdict:
    """Measures of one run; fractions of its eight views, in [0, 1]."""

    prompt: str
    suite: str
    run: str
    problem: str
    precision: dict[str, float]
    """by kind of picture: views whose own caption fits best"""
    taken_for: str
    """the caption that fits most of the shaded views best"""
    fronts: float | None
    """views from the sides and the back that show a front; None where there is no front to see"""
    real_fronts: float | None
    """the same of real meshes"""
    colour_word: float | None
    """shaded views in which the prompt's colour word beats the other ten; None without a colour word"""
    likeness: Likeness | None = None
    """None where it is not known what the prompt means"""


def captions_of(prompts: Sequence[str], bare: bool) -> Captions:
    """The distinct prompts. With `bare`, textureless pictures are held against captions without their colour words,
    which cannot be seen in them; captions that are then equal count once.
    """
    distinct = tuple(dict.fromkeys(prompts))
    bare_of = {prompt: without_colour(prompt) if bare else prompt for prompt in distinct}
    return Captions(distinct, tuple(dict.fromkeys(bare_of.values())), bare_of)


def verdicts(results: Sequence[Result], captions: Captions, scorer: Scorer, judge: Judge) -> list[Verdict]:
    """One per run, in their order. Runs that left no pictures have failed in everything."""
    seen = [result for result in results if result.pictures is not None]
    hits, best = _retrieval(seen, captions, scorer) if seen else ({}, torch.zeros(0, dtype=torch.long))
    found = {}
    for index, result in enumerate(seen):
        assert result.pictures is not None
        found[result.folder] = Verdict(
            prompt=result.prompt,
            suite=result.suite,
            run=str(result.folder),
            problem=result.problem,
            precision={kind: hits[kind][index].float().mean().item() for kind in KINDS},
            taken_for=captions.coloured[int(best[index])],
            **_looks(result, result.pictures[KINDS.index("shaded")], judge),
            likeness=result.likeness,
        )
    return [found.get(result.folder) or _nothing(result) for result in results]


def _nothing(result: Result) -> Verdict:
    none = dict.fromkeys([*KINDS], 0.0)
    at = result.prompt, result.suite, str(result.folder), result.problem
    return Verdict(*at, none, "", None, None, None, result.likeness)


def _retrieval(
    results: Sequence[Result], captions: Captions, scorer: Scorer
) -> tuple[dict[str, Bool[Tensor, "p v"]], Int[Tensor, " p"]]:
    """Hits by kind of picture, and the caption that fits the shaded views best on the whole."""
    hits, best = {}, torch.zeros(0, dtype=torch.long)
    for place, kind in enumerate(KINDS):
        images = torch.stack([r.pictures[place] for r in results if r.pictures is not None])
        scores = scorer.score(images.flatten(0, 1), captions.of(kind)).unflatten(0, images.shape[:2])
        hits[kind] = retrieved(scores, torch.tensor([captions.own(kind, r.prompt) for r in results]))
        if kind == "shaded":
            best = scores.argmax(-1).mode(dim=1).values
    return hits, best


def _looks(result: Result, shaded: Float[Tensor, "8 h w 3"], judge: Judge) -> dict[str, float | None]:
    """What only the judge can say: fronts and colours."""
    said, looks = meaning(result.prompt, judge.nouns), dict[str, float | None]()
    sided = said is not None and said.noun in judge.with_front
    looks["fronts"] = fronts(judge, shaded[None]).float().mean().item() if sided else None
    looks["real_fronts"] = judge.card["real meshes"]["fronts"][said.noun] if said is not None and sided else None
    looks["colour_word"] = None
    if said is not None and said.colour is not None:
        named = judge.opinion(shaded).colour[:, :OWN].argmax(1) == list(COLOURS).index(said.colour)
        looks["colour_word"] = named.float().mean().item()
    return looks


@dataclass(frozen=True)
class Figures:
    """The figures of a group of runs."""

    precision: dict[str, Share]
    """R-Precision by kind of picture: "shaded" is the paper's colour, "textureless" its geometry"""
    janus: Share
    janus_real: float
    colour_word: Share


def figures(group: Sequence[Verdict]) -> Figures:
    """Means over runs; the intervals count runs, as views of one run are not independent."""
    sided = [v for v in group if v.fronts is not None]
    return Figures(
        precision={kind: _mean([v.precision[kind] for v in group]) for kind in KINDS},
        janus=_mean([v.fronts for v in sided]),
        janus_real=_mean([v.real_fronts for v in sided]).value,
        colour_word=_mean([v.colour_word for v in group]),
    )


def _mean(values: Sequence[float | None]) -> Share:
    known = [value for value in values if value is not None]
    return wilson(sum(known) / len(known) if known else math.nan, len(known))
