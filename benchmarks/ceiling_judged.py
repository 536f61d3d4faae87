"""What the judge makes of the perfect prior's objects: R-Precision, Janus rate and colour words of the suites.

    PYTHONPATH=. python benchmarks/ceiling_judged.py [FOLDER]

`ceiling.py` wrote FOLDER; without, it is the one that comes with the package. `dreamfusion evaluate` says the same
beside its results; this is for whoever has another judge. Captions compete as there, with the 80 of the suites.
"""

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Any

from dreamfusion.evaluate.judge.judge import open_judge
from dreamfusion.evaluate.measure import Result, captions_of, verdicts
from dreamfusion.evaluate.report import Report, without_nan
from dreamfusion.evaluate.suites import SUITES, pool, suite
from dreamfusion.evaluate.truth import Truths, open_truths
from dreamfusion.files import write_json


def main() -> None:
    """Judge, write and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/ceiling_judged.json"))
    arguments = parser.parse_args()
    found = judged(open_truths(arguments.folder))
    write_json(arguments.out, found)
    for name, figures in found["figures"].items():
        print(name, {kind: round(100 * share["value"], 1) for kind, share in figures["precision"].items()})


def judged(truths: Truths) -> dict[str, Any]:
    """The figures of each suite, and of every prompt."""
    judge, captions = open_judge(), captions_of(pool(), bare=True)
    results = [
        Result(prompt, name, Path(prompt), pictures=truths.made(prompt))
        for name in SUITES
        for prompt in suite(name)
        if prompt in truths.reached
    ]
    report = Report({}, verdicts(results, captions, judge, judge))
    groups = {name: asdict(figures) for name, figures in report.groups.items()}
    prompts = {v.prompt: {**v.precision, "taken for": v.taken_for} for v in report.worst_first}
    return {"judge": {"name": judge.name}, "figures": without_nan(groups), "prompts": prompts}


if __name__ == "__main__":
    main()
