"""Writes the tables of docs/reference/performance.md from the JSON files in benchmarks/results.

    python benchmarks/report.py

A table stands between the lines `<!-- table: NAME -->` and `<!-- end -->`; what was there is replaced.
"""

import json
import re
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
PAGE, RESULTS = HERE.parent / "docs" / "reference" / "performance.md", HERE / "results"
EVALUATE = HERE.parent / "src" / "dreamfusion" / "evaluate"
TRUTH = EVALUATE / "truth" / "ceiling.json"
SUITES = {path.stem: path.read_text(encoding="utf-8").splitlines() for path in (EVALUATE / "suites").glob("*.txt")}
FAST = "24 bins, seen 0.01, coloured 0.03"
"""The line of the accuracy table that is the fast preset"""

Row = tuple[object, ...]


def main() -> None:
    text = PAGE.read_text(encoding="utf-8")
    for name, make in TABLES.items():
        text = replaced(text, name, make())
    PAGE.write_text(text, encoding="utf-8")


def replaced(text: str, name: str, table: str) -> str:
    """The page with the named table in its place. Raises ValueError if it has none."""
    between = re.compile(rf"(<!-- table: {name} -->\n).*?(<!-- end -->)", re.DOTALL)
    if not between.search(text):
        raise ValueError(f"the page has no table {name!r}")
    return between.sub(lambda found: found[1] + table + found[2], text)


def markdown(head: Row, rows: list[Row]) -> str:
    """A table in Markdown."""
    lines = [head, ("---",) * len(head), *rows]
    return "".join("| " + " | ".join(map(str, line)) + " |\n" for line in lines)


def result(name: str) -> Any:
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


def standing() -> str:
    step, command, others, busy = result("step"), result("command"), result("reference_path"), result("busy")
    beside = busy["ways"]["default"]["ratio"]
    hashed, grid = (others[kind]["ratio_to_ours"]["mix"] for kind in ("hash", "grid"))
    return markdown(
        ("measure", "now", "target", "file"),
        [
            ("step, median", f"{step['step_ms']} ms", "", "step"),
            ("prior's two evaluations, in the same run", f"{step['prior_two_evaluations_ms']} ms", "", "step"),
            ("whole step / prior's two evaluations", f"**{step['ratio']:.2f}**", "<= 1.7", "step"),
            (
                "plain reference path / ours: hashed grid; our own grid on the dense path",
                f"{hashed:.0f}; {grid:.1f}",
                ">= 10",
                "reference_path",
            ),
            ('`dreamfusion "a hamburger"`, command to last file', f"{command['whole_s']:.0f} s", "<= 120 s", "command"),
            ("peak memory of that", f"{command['peak_mb'] / 1e3:.2f} GB", "<= 1.5 GB", "command"),
            ("command to first step", f"{busy['first_step_s']:.1f} s", "<= 4 s", "busy"),
            ("`dreamfusion --help`", f"{busy['help_s']:.2f} s", "<= 0.3 s", "busy"),
            (
                "step beside one busy process / on a quiet machine",
                f"**{beside:.2f}**",
                "<= 1.5",
                "busy",
            ),
        ],
    )


def busy() -> str:
    return markdown(
        ("use of the cores", "quiet", "beside one busy process", "ratio"),
        [
            (_WAYS[name], f"{way['quiet_ms']} ms", f"{way['busy_ms']} ms", f"{way['ratio']:.2f}")
            for name, way in result("busy")["ways"].items()
        ],
    )


_WAYS = {
    "default": "one thread for each operator, the prior's two evaluations side by side (**default**)",
    "one": "one thread (`--threads 1`)",
    "shared": "each operator shared by two threads, as torch does by itself (the default until now)",
}


def functions() -> str:
    longest = result("step")["profile"]["functions"][:8]
    return markdown(
        ("function", "own time a step", "share"),
        [(f"`{row['function']}`", f"{row['self_ms']} ms", f"{100 * row['share']:.0f} %") for row in longest],
    )


def accuracy() -> str:
    plain, lit = (result("accuracy")[view] for view in ("plain", "lit"))
    return markdown(
        ("setting", "coloured samples", "plain view: PSNR, cosine of density / colour", "lit view: the same"),
        [
            (_setting(name), plain[name].get("coloured", ""), _agreement(plain[name]), _agreement(lit[name]))
            for name in plain
        ],
    )


def _setting(name: str) -> str:
    return f"{name} (**fast preset**)" if name == FAST else name


def _agreement(row: dict[str, float]) -> str:
    decibels = f"{row['psnr_db']} dB, " if "psnr_db" in row else ""
    return f"{decibels}{row['density_cosine']} / {row['colour_cosine']}"


def laws() -> str:
    rows = []
    for name, law in result("laws")["laws"].items():
        fit = law["fit"]
        deviation = "two points, no test" if fit["deviation"] is None else f"{100 * fit['deviation']:.0f} %"
        rows.append((name, f"{fit['a']:.1f} + {fit['b']:.1f} {law['work']}", deviation))
    return markdown(("law, without the prior", "fit, ms", "largest deviation"), rows)


def ceiling() -> str:
    found = result("ceiling")
    ends = {name: points[-1] for name, points in found["things"].items()} | {"**mean**": found["mean"]}
    return markdown(
        ("thing", "object PSNR", "silhouette IoU", "normals off by", "processor time"),
        [
            (
                name,
                f"{end['object_psnr_db']:.1f} dB",
                f"{end['silhouette_iou']:.3f}",
                f"{end['normal_error_deg']:.1f}°",
                f"{end['processor_seconds']:.0f} s",
            )
            for name, end in ends.items()
        ],
    )


def ceiling_suites() -> str:
    """Per suite, what the perfect prior reaches, and what the judge makes of it."""
    ends = {prompt: points[-1] for prompt, points in json.loads(TRUTH.read_text(encoding="utf-8"))["things"].items()}
    judged = result("ceiling_judged")["figures"]
    rows = []
    for name, found in judged.items():
        suite = [end for prompt, end in ends.items() if name == "all" or prompt in SUITES[name]]
        psnr, iou, normals = (
            statistics.mean(end[key] for end in suite)
            for key in ("object_psnr_db", "silhouette_iou", "normal_error_deg")
        )
        colour, geometry = (100 * found["precision"][kind]["value"] for kind in ("shaded", "textureless"))
        measured = (f"{psnr:.1f} dB", f"{iou:.3f}", f"{normals:.1f}°", f"{colour:.1f} %", f"{geometry:.1f} %")
        rows.append((f"{name} ({len(suite)})", *measured))
    head = ("prompts", "object PSNR", "silhouette IoU", "normals off by", "R-Precision, colour", "geometry")
    return markdown(head, rows)


def detail() -> str:
    """What fields reach, by the size of the views."""
    files = [json.loads(path.read_text(encoding="utf-8")) for path in RESULTS.glob("detail/*.json")]
    found = [
        (thing, file["config"]["size"], file["config"]["steps"], _field(file["config"]["scene"]["field"]), points[-1])
        for file in files
        for thing, points in file["things"].items()
    ]
    rows: list[Row] = [
        (
            size,
            thing,
            steps,
            field,
            f"{end['object_psnr_db']:.1f} dB",
            f"{end['silhouette_iou']:.3f}",
            f"{end['normal_error_deg']:.1f}°",
            f"{end['processor_seconds']:.0f} s",
            f"{end['megabytes']:.0f} MB",
            f"{end['numbers'] / 1e6:.1f}",
        )
        for thing, size, steps, field, end in sorted(found, key=lambda row: (row[1], row[0], row[2], len(row[3])))
    ]
    head = ("pixels", "thing", "steps", "field", "object PSNR", "silhouette IoU", "normals off by")
    return markdown((*head, "processor time", "peak memory", "10^6 numbers"), rows)


def detail_stages() -> str:
    """What a step of the preset `sd` costs beside its prior, by stage."""
    (points,) = result("detail_stages")["things"].values()
    rows, before = [], {"step": 0, "processor_seconds": 0.0}
    for (pixels, cells), end in zip(((64, 64), (128, 128), (256, 256)), points, strict=True):
        steps, seconds = (end[key] - before[key] for key in ("step", "processor_seconds"))
        numbers, memory = f"{end['numbers'] / 1e6:.1f}", f"{end['megabytes']:.0f} MB"
        rows.append((pixels, cells, f"{1e3 * seconds / steps:.0f} ms", memory, numbers))
        before = end
    return markdown(("pixels", "cells", "a step, one core", "peak memory", "10^6 numbers"), rows)


def _field(field: dict[str, Any]) -> str:
    if field["kind"] == "MlpFieldConfig":
        return "the paper's MLP"
    first = field["cells"][-1]
    return "grid " + ", ".join(str(first << level) for level in range(1 + len(field["grow"])))


TABLES: dict[str, Callable[[], str]] = {
    "standing": standing,
    "busy": busy,
    "functions": functions,
    "accuracy": accuracy,
    "laws": laws,
    "ceiling": ceiling,
    "ceiling_suites": ceiling_suites,
    "detail": detail,
    "detail_stages": detail_stages,
}

if __name__ == "__main__":
    main()
