"""From meshes to a judge in a folder: the whole of `python -m training judge`."""

from collections.abc import Callable
from pathlib import Path

from safetensors.torch import save_file

from dreamfusion.evaluate.judge.judge import WEIGHTS, Judge, open_judge
from dreamfusion.evaluate.judge.network import JudgeNet
from training.judge.accuracy import accuracies
from training.judge.card import make_card, write_card
from training.judge.real import real_looks
from training.judge.train import Training, TrainOptions, new_training, train
from training.judge.views import Split, open_views, render_all
from training.loop import Watch
from training.nouns import Assets, names


def write(network: JudgeNet, folder: Path) -> None:
    """The weights, in half precision."""
    folder.mkdir(parents=True, exist_ok=True)
    state = {name: t.half() if t.is_floating_point() else t for name, t in network.state_dict().items()}
    save_file({name: t.contiguous() for name, t in state.items()}, folder / WEIGHTS)


def measured(training: Training, split: Split, options: TrainOptions, assets: Assets, out: Path) -> Judge:
    """Write the judge with its card into `out`, after measuring the weights as they ship."""
    write(training.pupil.judge, out)
    step = training.state.step
    told = {
        "steps": step,
        "pictures": step * options.batch,
        "views": len(split.learn.noun),
        "meshes": len(split.learn.mesh.unique()),
        "hours": round(training.state.seconds / 3600, 2),
        "seed": options.seed,
    }
    write_card(make_card(assets, told, {}), out)
    judge = open_judge(folder=out)
    card = make_card(assets, told, accuracies(judge.network, split))
    write_card(card | {"real meshes": real_looks(judge, assets)}, out)
    return open_judge(folder=out)


def prepare(assets: Assets, work: Path, options: TrainOptions, report: Callable[[str], None]) -> None:
    """Render the views to learn from into the folder `work`, if they are not there."""
    render_all(assets, _rendered(work, options), options.views, options.seed, report)


def main(assets: Assets, work: Path, out: Path, options: TrainOptions, watch: Watch) -> bool:
    """Train, or go on training, in the prepared folder `work`, then measure, and write the judge to `out`.

    Returns False if it was stopped before the last step; the same call then goes on.
    """
    split = open_views(_rendered(work, options), assets.table, options.views, options.seed, options.fold)
    training = new_training(len(names(assets.table)), len(assets.table), options)
    if not train(work, split, training, options, watch):
        return False
    judge = measured(training, split, options, assets, out)
    for kind, found in judge.card["accuracy"].items():
        shares = (f"{name} {found[name]:.3f}" for name in ("noun", "side") if found[name] is not None)
        watch.report(f"{kind}: {', '.join(shares)}")
    watch.report(f"wrote {out}")
    return True


def _rendered(work: Path, options: TrainOptions) -> Path:
    return work / f"views-{options.seed}"
