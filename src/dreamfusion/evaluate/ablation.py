"""The paper's ablation (DreamFusion, figure 6): its ingredients one by one, each on top of those before it.

View words alone tell the prior from where it sees the object, as in the paper; the last row tells it the camera.
"""

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path

from dreamfusion.config import Config
from dreamfusion.evaluate.evaluation_views import KINDS
from dreamfusion.evaluate.judge.judge import open_judge
from dreamfusion.evaluate.measure import Verdict, captions_of, figures, verdicts
from dreamfusion.evaluate.page import grid, titled
from dreamfusion.evaluate.report import UNITS, listed_facts, share_text, table, without_nan
from dreamfusion.evaluate.session import Session, Stopped, facts_of, made
from dreamfusion.evaluate.suites import pool, suite
from dreamfusion.files import replacing, write_json, write_text
from dreamfusion.progress import ProgressCallback

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


def run_ablation(session: Session, say: ProgressCallback, stopped: Stopped) -> list[Path]:
    """Make and judge every variant on the ten prompts; returns the files written, or none if it was stopped."""
    judge, found = open_judge(), dict[str, list[Verdict]]()
    captions = captions_of([*pool(), *suite("ablation")], bare=True)
    for name, config in variants(session.config).items():
        say(f"variant: {name}")
        runs = session.out / name.replace(" ", "-")
        results = made(replace(session, config=config), dict.fromkeys(suite("ablation"), ""), runs, say, stopped)
        if results is None:
            return []
        found[name] = verdicts(results, captions, session.scorer, judge)
    runs = [Path(verdict.run) for judged in found.values() for verdict in judged]
    return _written(facts_of(session, runs) | {"captions": len(captions.coloured)}, found, session.out)


def _written(facts: Mapping[str, object], found: Mapping[str, list[Verdict]], out: Path) -> list[Path]:
    paths = [out / name for name in ("ablation.json", "ablation.md", "ablation.jpg")]
    figures_of = {name: figures(judged) for name, judged in found.items()}
    numbers = {
        name: {kind: asdict(figure.precision[kind]) for kind in KINDS} | {"janus": asdict(figure.janus)}
        for name, figure in figures_of.items()
    }
    write_json(paths[0], {"facts": dict(facts), "variants": without_nan(numbers)})
    rows = [
        (name, *(share_text(figure.precision[kind]) for kind in KINDS), share_text(figure.janus))
        for name, figure in figures_of.items()
    ]
    head = ("each on top of those above", *KINDS, "Janus")
    write_text(paths[1], "\n".join(["# Ablation", "", *listed_facts(facts), "", UNITS, "", *table([head, *rows]), ""]))
    with replacing(paths[2]) as part:
        titled({name: grid(judged, len(judged), views=2) for name, judged in found.items()}).save(part, quality=85)
    return paths
