"""From meshes to a judge in a folder: the whole of `python -m training judge`."""

from pathlib import Path

from safetensors.torch import save_file

from dreamfusion.errors import UserError
from dreamfusion.evaluate.judge.judge import WEIGHTS, Judge, open_judge
from dreamfusion.evaluate.judge.network import JudgeNet
from training.judge_accuracy import accuracies
from training.judge_card import make_card, write_card
from training.judge_real import real_looks
from training.judge_train import Report, Stop, Training, TrainOptions, train
from training.judge_views import Split, open_views, render_all
from training.nouns import names, nouns


def write(network: JudgeNet, folder: Path) -> None:
    """The weights, in half precision."""
    folder.mkdir(parents=True, exist_ok=True)
    state = {name: t.half() if t.is_floating_point() else t for name, t in network.state_dict().items()}
    save_file({name: t.contiguous() for name, t in state.items()}, folder / WEIGHTS)


def measured(training: Training, split: Split, options: TrainOptions, assets: Path, out: Path) -> Judge:
    """Write the judge with its card into `out`, after measuring the weights as they ship."""
    table = nouns()
    write(training.network, out)
    told = {"steps": training.step, "pictures": training.step * options.batch}
    if options.start is not None:
        before = open_judge(folder=options.start).card["training"]
        told = {name: count + before[name] for name, count in told.items()}
    write_card(make_card(table, told, {}), out)
    judge = open_judge(folder=out)
    card = make_card(table, told, accuracies(judge.network, split))
    write_card(card | {"real meshes": real_looks(judge, assets, table)}, out)
    return open_judge(folder=out)


def main(folders: tuple[Path, Path, Path], options: TrainOptions, report: Report, stop: Stop) -> bool:
    """`folders`: the assets, the work folder that is gone on with, the folder of the finished judge.

    Returns False if it was stopped before the last step; the same call then goes on. Raises UserError, before
    anything is rendered, if there is no judge of these nouns to start from, or it would be overwritten.
    """
    assets, work, out = folders
    if options.start is not None and options.start.resolve() == out.resolve():
        raise UserError(f"--start and --out are both {out}: the judge that is started from must stay")
    if options.start is not None and open_judge(folder=options.start).nouns != names(nouns()):
        raise UserError(f"--start: the judge in {options.start} knows other nouns; train one from nothing")
    rendered = work / f"views-{options.seed}"
    render_all(assets, rendered, options.views, options.seed, report)
    split = open_views(rendered)
    training = train(work, split, options, report, stop)
    if training.step < options.steps:
        report(f"stopped after step {training.step}, which is saved; the same command goes on")
        return False
    judge = measured(training, split, options, assets, out)
    for kind, found in judge.card["accuracy"].items():
        report(f"{kind}: noun {found['noun']:.3f}, side {found['side']:.3f}")
    report(f"wrote {out}")
    return True
