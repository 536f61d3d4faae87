"""The estimate of what the 3D half holds, against what runs held (benchmarks/results), and what it grows with."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from dreamfusion import build
from dreamfusion.config import Config, GridFieldConfig, MlpFieldConfig
from dreamfusion.config.presets import preset
from dreamfusion.config.serialise import from_json
from dreamfusion.nerf.fields import Gaussians, surface
from dreamfusion.nerf.memory_plan import BRICKS, NUMBER, per_sample, plan, stage
from dreamfusion.schedules import Constant

RESULTS = Path(__file__).parents[1] / "benchmarks" / "results"
LIBRARIES = 428e6
"""bytes that `benchmarks/ceiling.py` held before the first step of a run: libraries and the thing's mesh"""
SD = preset("sd")


def read(path: Path) -> tuple[Config, list[dict[str, float]]]:
    found = json.loads(path.read_text(encoding="utf-8"))
    (points,) = found["things"].values()
    return from_json(Config, found["config"]), points


def test_it_is_what_a_run_of_the_preset_sd_held_at_each_of_its_stages():
    config, points = read(RESULTS / "detail_stages.json")
    for point, size in zip(points, (64, 128, 256), strict=True):
        progress = point["step"] / config.steps - 1e-6
        assert config.size_at(progress) == size
        assert LIBRARIES + stage(config, progress).peak == pytest.approx(1e6 * point["megabytes"], rel=0.2)


@pytest.mark.parametrize("path", sorted((RESULTS / "detail").glob("*.json")), ids=lambda path: path.stem)
def test_no_measured_run_held_much_more(path):
    """Grown levels are reckoned as those of fog: of thin and sharp things they are smaller."""
    config, points = read(path)
    if not isinstance(config.scene.field, GridFieldConfig) or config.custom:
        pytest.skip("another field")
    ratio = 1e6 * points[-1]["megabytes"] / (LIBRARIES + plan(config).peak)
    assert (0.4 if config.scene.field.grow else 0.8) < ratio < 1.2


def test_numbers_that_are_there_all_the_time_are_those_of_the_scene():
    scene = build.scene(SD.scene, torch.Generator().manual_seed(0))
    numbers = sum(parameter.numel() for parameter in scene.parameters())
    merged = 10 * 65**3
    assert stage(SD, 0.0).state == pytest.approx(NUMBER * (4 * numbers + merged), rel=0.01)
    grown = stage(SD, 0.4).state - stage(SD, 0.0).state
    assert grown == pytest.approx(NUMBER * 4 * BRICKS * 129**3 * 5)


def test_samples_grow_with_the_area_and_the_number_of_views():
    still = replace(SD, size_schedule=Constant(1.0))
    assert stage(replace(still, size=512), 1.0).step == pytest.approx(4 * stage(still, 1.0).step)
    assert stage(replace(still, views=3), 1.0).step == pytest.approx(3 * stage(still, 1.0).step)


def test_pieces_that_are_computed_again_bound_the_samples():
    """The paper's preset: 256 rays of 32 samples at a time, whatever the size."""
    paper = preset("paper")
    assert plan(replace(paper, size=256)).peak == plan(paper).peak
    whole = replace(paper, render=replace(paper.render, checkpoint_rays=0))
    assert plan(whole).step == pytest.approx(4 * 64**2 / 256 * plan(paper).step)


def kept(tensors: torch.Tensor) -> int:
    """Bytes that the graph behind a tensor keeps, once for each storage."""
    seen: dict[int, int] = {}
    done: set[object] = set()
    queue: list[Any] = [tensors.grad_fn]
    while queue:
        node = queue.pop()
        if node is None or node in done:
            continue
        done.add(node)
        for name in dir(node):
            value = getattr(node, name, None) if name.startswith("_saved") else None
            if isinstance(value, torch.Tensor):
                seen[value.untyped_storage().data_ptr()] = value.untyped_storage().nbytes()
        queue += [other for other, _ in node.next_functions]
    return sum(seen.values())


@pytest.mark.parametrize("field", [MlpFieldConfig(width=32, blocks=3), MlpFieldConfig(width=64, blocks=2)])
def test_the_way_back_of_a_network_is_four_layers_a_block(field):
    count = 4000
    scene = build.scene(replace(preset("paper").scene, field=field), torch.Generator().manual_seed(0))
    place = torch.rand(count, 3, generator=torch.Generator().manual_seed(0)) - 0.5
    at = Gaussians(mean=place, var=torch.zeros_like(place))
    found = kept(scene.field.density(at)) / count
    assert found == pytest.approx(per_sample(field, 0).seen, rel=0.15)
    assert kept(surface(scene.field, at, create_graph=True).density) / count < per_sample(field, 0).coloured
