"""The comparison of DreamFusion's table 1: DreamFusion, Dream Fields, CLIP-Mesh and the real meshes, by one judge.

All make the same prompts with the same seed, each with its preset for two cores, and are seen from the same sides.
"""

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from dreamfusion.build import device_of
from dreamfusion.config import ClipMeshObjective, Config, DreamFieldsObjective
from dreamfusion.config.presets import CLIP_MESH_FAST, DREAM_FIELDS_FAST, FAST
from dreamfusion.diffusion.priors.locate import EMBEDDED
from dreamfusion.evaluate.evaluation_views import BACKDROP, KINDS, SIZE, cameras, save_views
from dreamfusion.evaluate.fidelity import mean_likeness
from dreamfusion.evaluate.judge.judge import open_judge
from dreamfusion.evaluate.making import cost_of, pictures_of
from dreamfusion.evaluate.measure import Result, Verdict, captions_of, figures, verdicts
from dreamfusion.evaluate.page import grid, percent, titled
from dreamfusion.evaluate.report import listed_facts, share_text, table, without_nan
from dreamfusion.evaluate.scorer import open_scorer
from dreamfusion.evaluate.session import Session, Stopped, facts_of, made
from dreamfusion.evaluate.suites import pool
from dreamfusion.evaluate.truth import Truths
from dreamfusion.files import replacing, write_json, write_text
from dreamfusion.geometry import normalise
from dreamfusion.lights import key_light
from dreamfusion.progress import ProgressCallback
from dreamfusion.runs import folder_name, plain_name

REAL = "real meshes"
CAPTION_ALONE = "DreamFusion, caption alone"
PAPER: Sequence[Sequence[str]] = (
    ("R-Precision, %", "B/32 colour", "geometry", "B/16 colour", "geometry", "L/14 colour", "geometry"),
    ("real images", "77.1", "-", "79.1", "-", "-", "-"),
    ("Dream Fields", "68.3", "-", "74.2", "-", "-", "-"),
    ("the same, reimplemented", "78.6", "1.3", "(99.9)", "(0.8)", "82.9", "1.4"),
    ("CLIP-Mesh", "67.8", "-", "75.8", "-", "74.5", "-"),
    ("DreamFusion", "75.1", "42.5", "77.5", "46.6", "79.7", "58.5"),
)
"""DreamFusion's table 1; brackets: judged by the CLIP that it was trained with"""
UNITS = (
    "R-Precision in %, 95 % intervals in square brackets; in round ones by the contrastive model that the baselines"
    " were optimised with. Janus rate in %. PSNR of the unlit object and IoU of its silhouette against the thing that"
    " is meant. Seconds: median over the runs. Memory: the largest process."
)
NOTE = (
    "The two tables are not comparable. The paper's has 153 captions of COCO, large models, full runs and CLIP as the"
    " judge; this one has a few captions of a small world, a prior and a contrastive model made for it, reduced runs"
    " and the judge of this package. DreamFusion's prior is told the camera and which of the things that a noun means"
    ' is wanted, unless the row says "caption alone" (with view words, as in the paper). The contrastive model is told'
    " the caption alone: fidelity asks for what the baselines cannot know."
)
HEAD = ("method", "colour", "geometry", "Janus", "PSNR, dB", "IoU", "seconds", "memory, MB")


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    judged: Sequence[Verdict]
    by_own: Sequence[Verdict]
    """by the contrastive model that the baselines were optimised with"""
    seconds: float | None = None
    """median over the runs; None where nothing was made"""
    memory_mb: float | None = None
    """of the largest process that made them"""

    @property
    def texts(self) -> tuple[str, ...]:
        """The cells after the name."""
        found, own = figures(self.judged), figures(self.by_own)
        precision = [
            f"{share_text(found.precision[kind])} ({percent(own.precision[kind].value)})"
            for kind in ("shaded", "textureless")
        ]
        known = [verdict.likeness for verdict in self.judged if verdict.likeness]
        near = mean_likeness(known).own if known else None
        fidelity = ("-", "-") if near is None else (f"{near.object_psnr_db:.1f}", f"{near.silhouette_iou:.3f}")
        cost = ("-" if value is None else f"{value:.0f}" for value in (self.seconds, self.memory_mb))
        return (*precision, share_text(found.janus), *fidelity, *cost)

    @property
    def numbers(self) -> dict[str, object]:
        """For JSON."""
        found, own = figures(self.judged), figures(self.by_own)
        known = [verdict.likeness for verdict in self.judged if verdict.likeness]
        return {
            "precision": {kind: asdict(found.precision[kind]) for kind in KINDS},
            "precision by the contrastive model": {kind: asdict(own.precision[kind]) for kind in KINDS},
            "janus": asdict(found.janus),
            "fidelity": asdict(mean_likeness(known).own) if known else None,
            "seconds": self.seconds,
            "memory_mb": self.memory_mb,
            "runs": [asdict(verdict) for verdict in self.judged],
        }


def methods(config: Config, model: str) -> dict[str, Config]:
    """What is compared: `config`, and the baselines with its seed, machine, share of the steps, and `model`.

    Baselines know the caption alone. So that this can be told from the method, an embedded prior that is told more is
    compared once more without: the paper's own case.
    """
    kept = {name: getattr(config, name) for name in ("seed", "device", "threads", "preview_seconds", "output")}

    def reduced(base: Config) -> Config:
        return replace(base, steps=max(1, round(base.steps * config.steps / FAST.steps)), **kept)

    fields, mesh = DREAM_FIELDS_FAST.objective, CLIP_MESH_FAST.objective
    assert isinstance(fields, DreamFieldsObjective)
    assert isinstance(mesh, ClipMeshObjective)
    told_more = config.prior == EMBEDDED and config.conditions != "none"
    return {
        "DreamFusion": config,
        **({CAPTION_ALONE: replace(config, conditions="none")} if told_more else {}),
        "Dream Fields": replace(reduced(DREAM_FIELDS_FAST), objective=replace(fields, model=model)),
        "CLIP-Mesh": replace(reduced(CLIP_MESH_FAST), objective=replace(mesh, model=model)),
    }


def ten_prompts() -> list[str]:
    """Every eighth of the suites' prompts: nouns alone, seen pairs and unseen ones; what they mean is known."""
    return pool()[::8]


def run_comparison(
    session: Session, model: str, prompts: Sequence[str], say: ProgressCallback, stopped: Stopped
) -> list[Path]:
    """Make and judge all methods on the prompts, `ten_prompts` if none are given.

    Returns the files written, or none if it was stopped. Raises UserError for a contrastive `model` that is none.
    """
    prompts = prompts or ten_prompts()
    judge, own = open_judge(), open_scorer(model, device_of(session.config.device))
    captions = captions_of([*pool(), *prompts], bare=True)
    rows = dict[str, Row]()
    for name, config in methods(session.config, model).items():
        say(f"method: {name}")
        there = session.out / plain_name(name)
        results = made(replace(session, config=config), dict.fromkeys(prompts, ""), there, say, stopped)
        if results is None:
            return []
        judged, by_own = (verdicts(results, captions, scorer, judge) for scorer in (session.scorer, own))
        rows[name] = Row(judged, by_own, *_cost(results))
    if real := _real(session, prompts):
        judged, by_own = (verdicts(real, captions, scorer, judge) for scorer in (session.scorer, own))
        rows[REAL] = Row(judged, by_own)
    made_runs = [Path(verdict.run) for name, row in rows.items() if name != REAL for verdict in row.judged]
    facts = facts_of(session, made_runs) | {"contrastive model": own.name, "captions": len(captions.coloured)}
    return _written(facts, rows, session.out)


def real_pictures(truths: Truths, prompt: str) -> Float[Tensor, "3 8 h w 3"]:
    """The thing that a prompt means in all kinds of light, from its unlit views and normals; the lamp is far away."""
    true, ring = truths.true(prompt), cameras(1.0, SIZE)
    light = key_light(ring, textureless=False)
    facing = (true.normal * normalise(light.position)[:, None, None]).sum(-1).clamp(min=0)
    bright = (light.ambient[:, None, None] + light.diffuse[:, None, None] * facing)[..., None]
    opacity = true.opacity[..., None]
    behind = (1 - opacity) * BACKDROP
    (unlit,) = true.pictures
    textureless = (opacity * bright + behind).expand_as(unlit)
    return torch.stack([unlit, (unlit - behind) * bright + behind, textureless]).clamp(0, 1)


def _real(session: Session, prompts: Sequence[str]) -> list[Result]:
    """What the prompts mean, where that is known, with pictures as runs have them."""
    truths = session.truths
    found = list[Result]()
    for prompt in prompts:
        if truths.knows(replace(session.config, prompt=prompt)):
            folder = session.out / plain_name(REAL) / folder_name(prompt, session.config.seed)
            seen = replace(truths.true(prompt), pictures=real_pictures(truths, prompt))
            save_views(seen, pictures_of(folder))
            found.append(Result(prompt, "", folder, pictures=seen.pictures))
    return found


def _cost(results: Sequence[Result]) -> tuple[float | None, float | None]:
    """Median seconds and largest memory in MB of the runs that were made to their end."""
    costs = [cost for result in results if (cost := cost_of(result.folder)) is not None]
    if not costs:
        return None, None
    held = [cost.memory_mb for cost in costs if cost.memory_mb is not None]
    return statistics.median(cost.seconds for cost in costs), max(held, default=None)


def _written(facts: dict[str, object], rows: dict[str, Row], out: Path) -> list[Path]:
    paths = [out / name for name in ("comparison.json", "comparison.md", "comparison.jpg")]
    numbers = {name: row.numbers for name, row in rows.items()}
    write_json(paths[0], {"facts": facts, "note": NOTE, "methods": without_nan(numbers)})
    lines = [
        *("# Comparison", "", *listed_facts(facts), "", UNITS, ""),
        *table([HEAD, *((name, *row.texts) for name, row in rows.items())]),
        *("", "The paper's table 1:", "", *table(PAPER), "", NOTE, ""),
    ]
    write_text(paths[1], "\n".join(lines))
    pictures = {name: grid(row.judged, len(row.judged), views=2) for name, row in rows.items()}
    with replacing(paths[2]) as part:
        titled(pictures).save(part, quality=85)
    return paths
