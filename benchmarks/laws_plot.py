"""The picture of the cost laws: small multiples, measured points and the expected line through them."""

from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cost_law import LAWS

matplotlib.use("agg")

OWN, WHOLE = "#1b5e9e", "#9a9a9a"


def draw(result: dict[str, Any], path: Path) -> None:
    """Write the picture of what `laws.py` measured."""
    figure = Figure(figsize=(9.6, 5.8), layout="constrained")
    panels = figure.subplots(2, 3).flatten()
    for axes, (name, law) in zip(panels, result["laws"].items(), strict=False):
        _panel(axes, name, law)
    rest = panels[len(result["laws"]) :]
    for axes in rest:
        axes.axis("off")
    legend = panels[0].get_legend_handles_labels()
    place = rest[0] if len(rest) else figure
    place.legend(*legend, loc="center left" if len(rest) else "outside lower center", frameon=False, fontsize=10)
    if len(rest):
        rest[0].text(0.02, 0.12, _where(result), fontsize=8, color="#555555", transform=rest[0].transAxes)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def _panel(axes: Axes, name: str, measured: dict[str, Any]) -> None:
    law, points, fit = LAWS[name], measured["points"], measured["fit"]
    x = np.array([point["x"] for point in points])
    fine = np.linspace(x.min(), x.max(), 200)
    line = [fit["a"] + fit["b"] * law.f(value) for value in fine]
    axes.plot(x, [point["whole_ms"] for point in points], "o", mfc="none", color=WHOLE, label="whole step, measured")
    axes.plot(fine, line, "-", color=OWN, lw=1.3, label="expected: a + b x work")
    axes.plot(x, [point["own_ms"] for point in points], "o", color=OWN, label="without the prior, measured")
    axes.set_title(law.title, fontsize=11)
    axes.set_xlabel(law.unit, fontsize=9)
    axes.set_ylabel("ms per step", fontsize=9)
    axes.set_ylim(0, 1.3 * max(point["whole_ms"] for point in points))  # room for the formula
    if name in ("size", "threads", "views"):
        axes.set_xticks(x, [f"{value:g}" for value in x])
    axes.tick_params(labelsize=8)
    axes.grid(alpha=0.25)
    says = f"{fit['a']:.3g} + {fit['b']:.3g} · {law.work}\n{_deviation(fit)}"
    axes.text(0.04, 0.95, says, fontsize=8, va="top", color=OWN, transform=axes.transAxes)


def _deviation(fit: dict[str, Any]) -> str:
    return "two points: no test" if fit["deviation"] is None else f"within {100 * fit['deviation']:.1f} %"


def _where(result: dict[str, Any]) -> str:
    machine, at = result["machine"], result["at"]
    device = machine["processor"] if machine["device"] == "cpu" else machine["device"]
    scene = f"{at['prompt']}, step {at['step']}, lit views\ncommit {machine['commit']}"
    return f"{device}, {machine['threads']} threads, torch {machine['torch']}\n{scene}"
