"""The paper's ablation (DreamFusion, figure 6): its ingredients one by one, each on top of those before it.

View words alone tell the prior from where it sees the object, as in the paper; the last row tells it the camera.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import torch

from dreamfusion.config import Config
from dreamfusion.evaluate.judge.judge import open_judge
from dreamfusion.evaluate.measure import Figures, Result, captions_of, figures, verdicts
from dreamfusion.evaluate.report import UNITS, share_text, table, without_nan
from dreamfusion.evaluate.session import Say, Session, Stopped, made
from dreamfusion.evaluate.suites import pool, suite
from dreamfusion.evaluate.views import KINDS, save_views
from dreamfusion.runs import write_json, write_text

NARROW_AZIMUTH_DEG, NARROW_ELEVATION_DEG = (-45.0, 45.0), (0.0, 30.0)


def variants(config: Config) -> dict[str, Config]:
    """What is compared, cumulative: narrow views of the plain colour, then all that makes `config`."""
    camera, light = config.camera, config.light
    narrow = replace(camera, azimuth_deg=NARROW_AZIMUTH_DEG, elevation_deg=NARROW_ELEVATION_DEG)
    base = replace(config, camera=narrow, view_words=False, conditions="no-camera", light=replace(light, shaded=0.0))
    all_views = replace(base, camera=camera)
    view_words = replace(all_views, view_words=True)
    lighting = replace(view_words, light=replace(light, textureless=0.0))
    textureless = replace(lighting, light=light)
    return {
        "narrow views": base,
        "all views": all_views,
        "view words": view_words,
        "lighting": lighting,
        "textureless": textureless,
        "camera": replace(textureless, conditions="all"),
    }


def run_ablation(session: Session, say: Say, stopped: Stopped) -> list[Path]:
    """Make and judge every variant on the ten prompts; returns the files written, or none if it was stopped."""
    judge, found = open_judge(), dict[str, Figures]()
    captions = captions_of([*pool(), *suite("ablation")], bare=True)
    for name, config in variants(session.config).items():
        say(f"variant: {name}")
        runs = session.out / name.replace(" ", "-")
        results = made(replace(session, config=config), dict.fromkeys(suite("ablation"), ""), runs, say, stopped)
        if results is None:
            return []
        found[name] = figures(verdicts(results, captions, session.scorer, judge))
        _save_row(results, session.out / f"{name.replace(' ', '-')}.png")
    return _written(session, found, len(captions.coloured))


def _save_row(results: Sequence[Result], path: Path) -> None:
    """Front and back of every run that left pictures, in all kinds of light."""
    if shown := [result.pictures[:, [0, 4]] for result in results if result.pictures is not None]:
        save_views(torch.cat(shown, dim=1), path)


def _written(session: Session, found: Mapping[str, Figures], captions: int) -> list[Path]:
    facts = {"scorer": session.scorer.name, "prior": session.config.prior, "steps": session.config.steps}
    facts |= {"seed": session.config.seed, "captions": captions}
    paths = [session.out / name for name in ("ablation.json", "ablation.md")]
    rows = {name: {k: asdict(v.precision[k]) for k in KINDS} | {"janus": asdict(v.janus)} for name, v in found.items()}
    write_json(paths[0], {"facts": facts, "variants": without_nan(rows)})
    shown = [
        ("each on top of those above", *KINDS, "Janus"),
        *((name, *(share_text(v.precision[kind]) for kind in KINDS), share_text(v.janus)) for name, v in found.items()),
    ]
    told = [f"- {name}: {value}" for name, value in facts.items()]
    write_text(paths[1], "\n".join(["# Ablation", "", *told, "", UNITS, "", *table(shown), ""]))
    return paths
