"""Configurations: complete as JSON, refused where they make no sense, light to import."""

import json
import subprocess
import sys
from dataclasses import fields, is_dataclass, replace
from typing import get_type_hints

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dreamfusion import build
from dreamfusion import config as c
from dreamfusion.cameras import OrbitSampler
from dreamfusion.config import Config, GridFieldConfig, LearnedBackground, MlpFieldConfig, SceneConfig, SolidBackground
from dreamfusion.config.check import validate
from dreamfusion.config.distill import DistillConfig, IsmLaw, NfsdLaw, VsdLaw
from dreamfusion.config.presets import PRESETS, preset
from dreamfusion.config.serialise import from_json, schedule_from_text, schedule_text, to_json
from dreamfusion.errors import UserError
from dreamfusion.schedules import Constant, Ramp, Steps, WarmupCosine

numbers = st.floats(allow_nan=False, allow_infinity=False)
fractions = st.lists(st.floats(0, 1), min_size=1, max_size=4).map(sorted)


@given(numbers, numbers, st.lists(st.floats(0, 1), min_size=2, max_size=2).map(sorted))
def test_ramps_read_back_exactly(start, end, place):
    for schedule in (Constant(start), Ramp(start, end), Ramp(start, end, *place)):
        assert schedule_from_text(schedule_text(schedule)) == schedule


@given(st.lists(numbers, min_size=5, max_size=5), fractions)
def test_steps_read_back_exactly(values, boundaries):
    schedule = Steps(tuple(values[: len(boundaries) + 1]), tuple(boundaries))
    assert schedule_from_text(schedule_text(schedule)) == schedule


@given(numbers, numbers, numbers, st.floats(0, 0.99))
def test_warm_ups_read_back_exactly(start, peak, end, until):
    schedule = WarmupCosine(start, peak, end, until)
    assert schedule_from_text(schedule_text(schedule)) == schedule


def test_short_forms_of_schedules():
    assert schedule_from_text("1e-5:1~0.01@0.2") == WarmupCosine(1e-5, 1.0, 0.01, 0.2)
    assert schedule_from_text("1e-3") == Constant(0.001)
    assert schedule_from_text("1:0") == Ramp(1.0, 0.0)
    assert schedule_from_text("1:0@0.2:0.6") == Ramp(1.0, 0.0, 0.2, 0.6)
    assert schedule_from_text("1,0.5@0.3") == Steps((1.0, 0.5), (0.3,))


NO_SCHEDULE = ["", "x", "1:2:3", "1@0.5", "1:0@0.5", "1,2", "1:0@0.9:0.1", "1,2,3@0.5", "1:2~3", "1~2@0.5", "1:2~3@1"]


@pytest.mark.parametrize("text", NO_SCHEDULE)
def test_what_is_no_schedule_is_refused(text):
    with pytest.raises(UserError, match=r"schedule|ramp|steps|warm-up"):
        schedule_from_text(text)


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("background", [SolidBackground((0.1, 0.2, 1 / 3)), LearnedBackground()])
def test_json_reads_back_exactly(name, background):
    config = replace(preset(name), prompt='a "red" chaïr', seed=2**62)
    config = replace(config, scene=replace(config.scene, background=background))
    text = json.dumps(to_json(config), allow_nan=False)
    assert from_json(Config, json.loads(text)) == config
    assert json.dumps(to_json(from_json(Config, json.loads(text)))) == text


def test_json_names_every_field():
    def paths(kind, values, where=""):
        assert set(values) - {"kind"} == {field.name for field in fields(kind)}, where
        for name, hint in get_type_hints(kind).items():
            if is_dataclass(hint):
                paths(hint, values[name], f"{where}.{name}")

    paths(Config, to_json(preset("fast")))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"stepps": 3}, "unknown setting stepps"),
        ({"scene": {"kind": "SceneConfig", "radios": 3}}, r"unknown setting scene\.radios"),
        ({"steps": "many"}, "steps must be int"),
        ({"steps": 1.5}, "steps must be int"),
        ({"view_words": 1}, "view_words must be bool"),
        ({"camera": {"kind": "CameraConfig", "distance": [1]}}, r"camera\.distance must be a list of 2"),
        (
            {"scene": {"kind": "SceneConfig", "field": {"kind": "Hash"}}},
            r"scene\.field must be .*GridFieldConfig or MlpFieldConfig",
        ),
        ({"scene": {"kind": "SceneConfig", "activation": "relu"}}, r"activation must be exp or softplus"),
        ({"distill": {"kind": "DistillConfig", "t_min": None}}, r"distill\.t_min must be a schedule"),
        ({"distill": 3}, "distill must be an object"),
    ],
)
def test_wrong_json_is_named(change, message):
    with pytest.raises(UserError, match=message):
        from_json(Config, change)


def test_whole_numbers_do_for_others():
    assert from_json(Config, {"preview_seconds": 3}) == Config(preview_seconds=3.0)


BAD = {
    "empty": ({"prompt": "  "}, "prompt is empty"),
    "long": ({"prompt": "a " * 200}, "prompt is longer"),
    "long negative": ({"negative": "a " * 200}, "negative is longer"),
    "steps": ({"steps": 0}, "--steps"),
    "size": ({"size": -1}, "--size"),
    "huge": ({"size": 100_000}, "--size"),
    "views": ({"views": 0}, "--views"),
    "seed": ({"seed": -1}, "--seed"),
    "threads": ({"threads": -1}, "--threads"),
    "device": ({"device": "tpu"}, "--device"),
    "checkpoints": ({"checkpoint_steps": 0}, "--checkpoint-steps"),
    "guidance": ({"distill": c.DistillConfig(guidance_scale=float("nan"))}, "--distill.guidance-scale"),
    "rate": ({"optimise": c.OptimiseConfig(grid=float("inf"))}, "--optimise.grid"),
    "radius": ({"scene": SceneConfig(radius=0.0)}, "--scene.radius"),
    "cells": ({"scene": SceneConfig(field=GridFieldConfig(cells=(16, 20)))}, "--scene.field.cells"),
    "no cells": ({"scene": SceneConfig(field=GridFieldConfig(colour_cells=()))}, "--scene.field.colour-cells"),
    "features": ({"scene": SceneConfig(field=GridFieldConfig(features=0))}, "--scene.field.features"),
    "noise": ({"distill": c.DistillConfig(t_max=Ramp(0.98, 0.01))}, "--distill.t-min"),
    "clean below": ({"distill": c.DistillConfig(NfsdLaw(1.5))}, "--distill.law.clean-below"),
    "inversions": ({"distill": c.DistillConfig(IsmLaw(inversions=0))}, "--distill.law.inversions"),
    "gap": ({"distill": c.DistillConfig(IsmLaw(gap=0.0))}, "--distill.law.gap"),
    "rank": ({"distill": c.DistillConfig(VsdLaw(rank=0))}, "--distill.law.rank"),
    "adapter": ({"distill": c.DistillConfig(VsdLaw(rate=-1.0))}, "--distill.law.rate"),
    "away from nothing": ({"perp_neg": 1.0, "view_words": False}, "--perp-neg"),
    "towards": ({"perp_neg": -1.0}, "--perp-neg"),
    "odd": ({"output": c.OutputConfig(frame_size=33)}, "--output.frame-size must be .* a multiple of 2"),
    "no letter": ({"prompt": "!!! _"}, "prompt is empty"),
    "infinite shift": ({"scene": SceneConfig(density_bias=float("inf"))}, "--scene.density-bias"),
    "infinite in a pair": ({"camera": c.CameraConfig(distance=(1.0, float("inf")))}, "--camera.distance"),
    "nan in a schedule": ({"regularise": c.RegulariseConfig(opacity=Constant(float("nan")))}, "--regularise.opacity"),
    "epsilon": ({"optimise": c.OptimiseConfig(epsilon=-1.0)}, "--optimise.epsilon"),
    "no epsilon": ({"optimise": c.OptimiseConfig(epsilon=0.0)}, "--optimise.epsilon"),
    "first beta": ({"optimise": c.OptimiseConfig(betas=(1.0, 0.9))}, "--optimise.betas"),
    "second beta": ({"optimise": c.OptimiseConfig(betas=(0.9, -0.1))}, "--optimise.betas"),
    "mlp": ({"scene": SceneConfig(field=MlpFieldConfig(width=0))}, "--scene.field.width"),
    "environment": ({"scene": SceneConfig(background=LearnedBackground(levels=0))}, "--scene.background.levels"),
    "colour": ({"scene": SceneConfig(background=SolidBackground((0.0, 2.0, 0.0)))}, "--scene.background.colour"),
    "low": ({"scene": SceneConfig(background=c.RandomBackground(low=(-1.0, 0.0, 0.0)))}, "--scene.background.low"),
    "proposals": ({"scene": SceneConfig(proposal=c.ProposalConfig(rounds=(64, 1)))}, "--scene.proposal.rounds"),
    "dilation": ({"scene": SceneConfig(proposal=c.ProposalConfig(dilation=(-1.0, 0.0)))}, "--scene.proposal.dilation"),
    "slope": ({"scene": SceneConfig(proposal=c.ProposalConfig(slope=0.0))}, "--scene.proposal.slope"),
    "variance": ({"scene": SceneConfig(variance=Ramp(0.1, 0.0))}, "--scene.variance"),
    "blob of a grid": ({"scene": SceneConfig(blob=c.BlobConfig(on="density"))}, "--scene.blob.on must be logit"),
    "jitter": ({"camera": c.CameraConfig(look_at_jitter=-0.1)}, "--camera.look-at-jitter"),
    "recompute": ({"render": c.RenderConfig(checkpoint_rays=-1)}, "--render.checkpoint-rays"),
    "exponent": ({"optimise": c.OptimiseConfig(shampoo=c.ShampooConfig(exponent=0.0))}, "--optimise.shampoo.exponent"),
    "block": ({"optimise": c.OptimiseConfig(shampoo=c.ShampooConfig(block=0))}, "--optimise.shampoo.block"),
    "vsd offloaded": (
        {"distill": DistillConfig(VsdLaw()), "memory": c.MemoryConfig(offload=True)},
        "--distill vsd .* leave out --memory.offload",
    ),
    "smooth mlp": (
        {"scene": SceneConfig(field=MlpFieldConfig()), "regularise": c.RegulariseConfig(smoothness=Constant(1.0))},
        "--regularise.smoothness",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_values_without_sense_are_refused_by_the_name_of_their_option(case):
    change, message = BAD[case]
    validate(replace(preset("fast"), prompt="a chair"))
    with pytest.raises(UserError, match=message):
        validate(replace(preset("fast"), **{"prompt": "a chair", **change}))


@pytest.mark.parametrize("name", PRESETS)
def test_presets_can_be_built(name):
    config = replace(preset(name), prompt="a chair")
    validate(config)
    recipe = build.recipe(config)
    scene = build.scene(config.scene, torch.Generator().manual_seed(0))
    assert set(scene.parameter_groups()) <= {"grid", "network", "background", "vertices"}
    assert recipe.cameras.config is config.camera


def test_jitter_may_be_read_as_a_variance():
    camera = c.CameraConfig(look_at_jitter=0.04, up_jitter=0.09, position_jitter=0.1)
    wide = replace(camera, look_at_jitter=0.2, up_jitter=0.3)
    as_variance, as_deviation = (
        OrbitSampler(each)(5, 8, torch.Generator().manual_seed(0))
        for each in (replace(camera, jitter_is="variance"), wide)
    )
    assert torch.allclose(as_variance.pose, as_deviation.pose)  # position_jitter is a width either way


def test_every_parameter_is_optimised_exactly_once():
    for config in PRESETS.values():
        scene = build.scene(config.scene, torch.Generator().manual_seed(0))
        optimiser = build.optimiser(config.optimise, scene)
        optimised = [parameter for group in optimiser.param_groups for parameter in group["params"]]
        assert sorted(map(id, optimised)) == sorted(map(id, scene.parameters()))


def test_unknown_presets_are_refused():
    with pytest.raises(UserError, match="use fast or paper"):
        preset("slow")


def test_a_device_that_is_not_there_is_refused():
    assert build.device_of("cpu") == torch.device("cpu")
    with pytest.raises(UserError, match="not on this machine"):
        build.device_of("cuda:77")
    for name in ("foo", "xpu", "", "cuda:", "cuda:01", "cuda:1234567890"):
        with pytest.raises(UserError, match="--device must be auto"):
            build.device_of(name)


@pytest.mark.parametrize("name", ["cuda", "auto"])
def test_under_torchrun_a_gpu_without_a_number_is_the_processs_own(monkeypatch, name):
    torchrun = {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "localhost"}
    for variable, value in (torchrun | {"MASTER_PORT": "29500"}).items():
        monkeypatch.setenv(variable, value)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert build.device_of(name) == torch.device("cuda:1")
    assert build.device_of("cuda:0") == torch.device("cuda:0")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(UserError, match="cuda:1 is not on this machine"):
        build.device_of(name)


def test_prompts_may_be_in_any_script():
    for prompt in ("ein grüner Stuhl", "椅子", "стул", "2"):
        validate(replace(preset("fast"), prompt=prompt))


def test_the_configuration_is_light_to_import():
    code = "import sys, dreamfusion, dreamfusion.config.presets, dreamfusion.cli.main; print([m for m in ('torch', 'numpy', 'diffusers') if m in sys.modules])"  # noqa: E501
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"
