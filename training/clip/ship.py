"""From meshes to a contrastive model in a folder: the whole of `python -m training clip`."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from dreamfusion.contrastive.network import SIZE, ToyboxNet
from dreamfusion.contrastive.toybox import CARD, WEIGHTS, ToyboxClip, open_toybox
from training.clip.accuracy import accuracies, retrieval
from training.clip.captions import Words
from training.clip.train import Training, TrainOptions, new_training, train
from training.clip.views import open_views, render_all
from training.loop import Watch
from training.mesh_views import Views
from training.nouns import Assets

LIMITS = (
    "It knows no other things than these nouns, and of a caption only the words listed here, in no order. It looks at "
    f"{SIZE} x {SIZE} pixels. It learned from renderings of the meshes that the embedded prior and the judge learned "
    "from, though from others than they did; it is no CLIP, and figures measured with it are not comparable with those "
    "of one. Colours other than those of the colour words, and the colours that things have of their own, are not told "
    "apart by words. Without texture it is much less sure, before textured backgrounds too. Adjectives and sides are "
    "learned in passing, and not measured."
)


def prepare(assets: Assets, work: Path, options: TrainOptions, report: Callable[[str], None]) -> None:
    """Render the views into the folder `work`, if they are not there."""
    render_all(assets, _rendered(work, options), options.views, options.seed, report)


def main(assets: Assets, work: Path, out: Path, options: TrainOptions, watch: Watch) -> bool:
    """Train, or go on training, in the prepared folder `work`, then measure, and write the model to `out`.

    Returns False if it was stopped before the last step; the same call then goes on.
    """
    learned, unseen = open_views(_rendered(work, options), assets.table, options.views, options.seed)
    training = new_training(Words(assets.table), options)
    if not train(work, learned, training, options, watch):
        return False
    model = shipped(training, unseen, options, assets, out)
    for kind, found in model.card["accuracy"].items():
        watch.report(f"{kind}: noun {found['noun']:.3f}")
    watch.report(f"wrote {out}")
    return True


def shipped(training: Training, unseen: Views, options: TrainOptions, assets: Assets, out: Path) -> ToyboxClip:
    """Write the model with its card into `out`, after measuring the weights as they ship."""
    write(training.network, out)
    step = training.state.step
    told = {
        "steps": step,
        "pictures": step * options.batch,
        "views": options.views.learned * len(assets.table),
        "meshes": len(assets.table),
        "hours": round(training.state.seconds / 3600, 2),
        "seed": options.seed,
    }
    card = make_card(assets, training.words, told)
    _write_card(card, out)
    model = open_toybox(out)
    measured = {
        "accuracy": accuracies(model, training.words, unseen),
        "retrieval among the prompts of the suites": retrieval(model, training.words, unseen),
    }
    _write_card(card | measured, out)
    return open_toybox(out)


def write(network: ToyboxNet, folder: Path) -> None:
    """The weights; matrices and kernels in half precision."""
    folder.mkdir(parents=True, exist_ok=True)
    state = {name: t.half() if t.ndim > 1 else t for name, t in network.state_dict().items()}
    save_file({name: t.contiguous() for name, t in state.items()}, folder / WEIGHTS)


def make_card(assets: Assets, words: Words, training: Mapping[str, Any]) -> dict[str, Any]:
    """What the model is and knows."""
    return {
        "name": "toybox-clip-1",
        "words": words.words,
        "nouns": words.nouns,
        "colours": words.colours,
        "adjectives": words.adjectives,
        "training": dict(training),
        "licence": assets.licence,
        "limits": LIMITS,
    }


def _write_card(card: Mapping[str, Any], folder: Path) -> None:
    (folder / CARD).write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")


def _rendered(work: Path, options: TrainOptions) -> Path:
    return work / f"views-{options.seed}"
