"""Findings from what steps log."""

import json
from dataclasses import replace

import pytest
import torch

from dreamfusion import vitals
from dreamfusion.config import OccupancyConfig
from dreamfusion.health import RULES, WINDOW, Finding, Memory, found_in, in_words
from dreamfusion.lights import albedo_only
from dreamfusion.loop import advance, prompt_table, start
from dreamfusion.nerf.occupancy import Occupancy
from dreamfusion.nerf.render import Picture

CPU = torch.device("cpu")
WELL = {
    "soft": 0.01,
    "border": 0.0,
    "coloured": 0.18,
    "light": 0.09,
    "chroma": 0.04,
    "neon": 0.0,
    "pull": 0.05,
    "thickness": 0.8,
}


def line(step, opacity=0.2, **vitals):
    return {"step": step, "opacity": opacity, "vitals": {**WELL, **vitals}}


def judged(progress=1.0, opacity=0.2, before=WELL, preset="fast", **last):
    """Findings of a run that was well at first, and is so in its last window."""
    memory = Memory(preset, (line(step, **before) for step in range(1, WINDOW + 1)))
    for step in range(WINDOW + 1, 2 * WINDOW + 1):
        found = memory.judged(line(step, opacity, **last), progress)
    return [finding.name for finding in found]


BAD = {
    "empty": {"opacity": 0.001, "soft": 0.0},
    "too near": {"border": 0.3},
    "solid": {"opacity": 0.8},
    "fog": {"opacity": 0.1, "soft": 0.08},
    "dark": {"light": 0.001},
    "saturated": {"neon": 0.1},
    "grey": {"chroma": 0.001, "pull": 0.06},
    "flat": {"thickness": 0.05},
    "no answer": {"pull": 0.9, "before": {"pull": 0.9}},
    "no progress": {"pull": 0.09},
    "second front": {"front": 0.9},
}


def test_a_run_that_is_well_has_no_findings():
    assert judged() == []
    assert judged(progress=0.0) == []
    assert judged(chroma=0.001) == []  # grey things are grey


@pytest.mark.parametrize("name", [name for name in RULES if name != "not finite"])
def test_every_finding_is_found_and_no_other(name):
    assert judged(**BAD[name]) == [name]


def test_other_presets_are_judged_by_what_holds_for_them():
    told = [name for name, bad in BAD.items() if judged(preset="paper", **bad)]
    assert told == ["empty", "dark", "saturated", "flat"]


@pytest.mark.parametrize("name", [name for name, rule in RULES.items() if rule.since > 0])
def test_none_is_found_before_its_time(name):
    since = RULES[name].since
    assert judged(progress=since, **BAD[name]) == [name]
    assert judged(progress=since - 1e-6, **BAD[name]) == []


def test_progress_is_not_measured_by_steps_that_count_twice():
    memory = Memory("fast")
    steps = range(1, 2 * WINDOW + 1)
    found = [memory.judged(line(step, pull=0.01 * step), 1.0) for step in steps]
    assert [bool(one) for one in found] == [False] * (2 * WINDOW - 1) + [True]


def test_figures_are_means_over_a_full_window():
    memory = Memory("fast")
    found = [memory.judged(line(step, opacity=0.0), 1.0) for step in range(1, WINDOW + 1)]
    assert found[:-1] == [()] * (WINDOW - 1)
    assert [finding.name for finding in found[-1]] == ["empty"]
    one = Memory("fast", map(line, range(WINDOW)))
    assert one.judged(line(WINDOW, border=0.3), 1.0) == ()


def test_a_memory_from_the_log_is_that_of_the_run():
    lines = [line(step, opacity=0.2 / step, pull=0.01 * step) for step in range(1, 90)]
    whole, told = Memory("fast"), []
    for record in lines:
        told.append(whole.judged(record, 0.5))
    for cut in (0, 10, 30, 60):
        resumed = Memory("fast", json.loads(json.dumps(lines[:cut])))
        assert [resumed.judged(record, 0.5) for record in lines[cut:]] == told[cut:]


def test_a_healing_is_given_a_window_of_time():
    ill = [line(step, opacity=0.0) for step in range(WINDOW)]
    healed = [{**line(step, opacity=0.0), "healed": 1} for step in range(WINDOW)]
    memory = Memory("fast", ill)
    assert [bool(memory.judged(record, 1.0)) for record in healed] == [False] * (WINDOW - 1) + [True]


@pytest.mark.parametrize("other", [{}, {"vitals": 3}, {"vitals": {}}, {"opacity": "x"}, {"vitals": {"soft": 0.1}}])
def test_lines_of_other_versions_are_passed_over(other):
    foreign = [{**line(1), **other} if other else {"step": 1} for _ in range(99)]
    assert Memory("fast", foreign).judged(line(100, opacity=0.0), 1.0) == ()


def test_words_name_the_figure_the_threshold_and_what_helps():
    text = in_words([Finding("empty", 0.0012), Finding("too near", 0.5)])
    assert "empty: " in text
    assert "(0.0012, below 0.012)" in text
    assert "--regularise.opacity" in text
    assert "(0.5, above 0.02)" in text
    assert in_words([]) == ""


@pytest.mark.parametrize("damaged", [None, [], {"empty": "x"}, {"else": 0.1}, {"empty": None}])
def test_findings_are_read_from_a_line(damaged):
    assert found_in({"findings": {"empty": 0.001}}) == (Finding("empty", 0.001),)
    assert found_in({"findings": damaged}) == found_in({}) == ()


def test_vitals_of_a_picture():
    opacity = torch.zeros(2, 8, 8)
    opacity[:, 2:6, 2:6] = 1.0
    opacity[1, 0] = 0.5
    rgb = torch.full((2, 8, 8, 3), 0.5)
    rgb[0, 2:4, 2:6] = torch.tensor([1.0, 0.0, 0.3])
    picture = Picture(rgb, opacity, opacity, None)
    found = {name: value.item() for name, value in vitals.measured(picture, albedo_only(2), None).items()}
    assert found["soft"] == pytest.approx(8 * 0.25 / 128)
    assert found["border"] == pytest.approx((8 * 0.5 + 2 * 0.5) / 64)
    assert found["coloured"] == pytest.approx(32 / 128)
    assert found["light"] == pytest.approx((8 + 24 * 0.5) / 128)
    assert found["chroma"] == found["neon"] == pytest.approx(8 / 128)
    light = albedo_only(2)
    white = replace(light, textureless=torch.tensor([True, False]))
    hidden = vitals.measured(picture, white, None)
    assert (hidden["coloured"].item(), hidden["chroma"].item()) == (16 / 128, 0.0)


@pytest.mark.parametrize(
    ("wide", "thickness"), [((1.0, 1.0, 1.0), 1.0), ((1.0, 0.1, 1.0), 0.1), ((0.1, 1.0, 0.1), 1.0)]
)
@pytest.mark.parametrize("turn", [0.0, 0.6])
def test_thickness_is_that_of_cards_and_not_of_poles(wide, thickness, turn):
    occupancy = Occupancy(OccupancyConfig(cells=64), 1.0)
    at = (torch.arange(64) + 0.5) / 32 - 1
    z, y, x = torch.meshgrid(at, at, at, indexing="ij")
    cos, sin = torch.cos(torch.tensor(turn)), torch.sin(torch.tensor(turn))
    turned = torch.stack([cos * z + sin * y, cos * y - sin * z, x], dim=-1)
    inside = (turned.abs() < 0.6 * torch.tensor(wide)).all(-1)
    occupancy.density.copy_(torch.where(inside, 1e4, 0.0).flatten())
    picture = Picture(torch.zeros(1, 8, 8, 3), torch.zeros(1, 8, 8), torch.zeros(1, 8, 8), None)
    measured = vitals.measured(picture, albedo_only(1), occupancy)
    told = vitals.told({name: value.item() for name, value in measured.items()})
    assert told["thickness"] == pytest.approx(thickness, abs=0.03)
    assert "zz" not in told
    occupancy.density.zero_()
    nothing = vitals.measured(picture, albedo_only(1), occupancy)
    assert vitals.told({name: value.item() for name, value in nothing.items()})["thickness"] == 0.0


def test_steps_log_their_vitals(tiny_config, disc_prior):
    run, prompts = start(tiny_config, CPU), prompt_table(tiny_config, disc_prior)
    told = [advance(run, disc_prior, prompts) for _ in range(7)]
    assert ["thickness" in metrics.vitals for metrics in told] == [True, False, False] * 2 + [True]
    for metrics in told:
        assert {"soft", "border", "coloured", "light", "chroma", "neon", "pull"} <= metrics.vitals.keys()
        assert metrics.record()["vitals"] == metrics.vitals
        assert metrics.vitals["pull"] == pytest.approx(metrics.losses["distillation"] / (3 * 16 * 16) ** 0.5)


def test_no_finding_is_flat_where_space_is_not_searched():
    memory = Memory("fast", map(line, range(WINDOW)))
    record = line(WINDOW)
    del record["vitals"]["thickness"]
    assert memory.judged(record, 1.0) == ()
    bare = [{**record, "vitals": {name: v for name, v in WELL.items() if name != "thickness"}} for _ in range(WINDOW)]
    assert Memory("fast", bare).judged(bare[0], 1.0) == ()
