"""Dream Fields and CLIP-Mesh as ordinary runs: folder, stop and resume, mesh, page, evaluation, batch, studio, CLI."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from dreamfusion import generate
from dreamfusion.batch.resolve import _configured
from dreamfusion.batch.watch import Watch
from dreamfusion.batch.work import KeptPrior
from dreamfusion.cli.arguments import read_generate
from dreamfusion.cli.main import run
from dreamfusion.config import ClipMeshObjective, Config, DreamFieldsObjective, SolidBackground, SphereFieldConfig
from dreamfusion.config.objective import CONTRASTIVE
from dreamfusion.config.presets import CLIP_MESH, CLIP_MESH_FAST, DREAM_FIELDS_FAST
from dreamfusion.contrastive import TOYBOX
from dreamfusion.contrastive.network import ToyboxNet
from dreamfusion.contrastive.toybox import CARD, WEIGHTS
from dreamfusion.errors import UserError
from dreamfusion.evaluate import making
from dreamfusion.evaluate.evaluation_views import evaluation_views
from dreamfusion.evaluate.making import cost_of, make, pictures_of
from dreamfusion.runs import RunFolder
from dreamfusion.studio.settings import config_from

WORDS = ["a", "red", "ball"]


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """A contrastive model with random weights, in a folder."""
    folder = tmp_path_factory.mktemp("model")
    torch.manual_seed(0)
    save_file(ToyboxNet(len(WORDS)).state_dict(), folder / WEIGHTS)
    (folder / CARD).write_text(json.dumps({"name": "random", "words": WORDS, "nouns": ["ball"]}))
    return folder


def tiny(base: Config, name: str, model: Path) -> Config:
    """A run of a baseline, as small as it goes."""
    scene = replace(base.scene, background=SolidBackground((0.0, 0.0, 0.0)))
    told = replace(base, prompt="a red ball", steps=4, checkpoint_steps=2, seed=1)
    if name == "dream-fields":
        objective = DreamFieldsObjective(model=str(model), crops=2)
        return replace(told, objective=objective, scene=replace(scene, centre_memory=0.9))
    objective = ClipMeshObjective(model=str(model))
    field = SphereFieldConfig(parts=3, size=0.6, texture_size=64)
    return replace(told, objective=objective, scene=replace(scene, field=field), optimise=CLIP_MESH_FAST.optimise)


NAMES = ("dream-fields", "clip-mesh")


@pytest.mark.usefixtures("quick_products")
@pytest.mark.parametrize("name", NAMES)
def test_a_stopped_run_goes_on_to_the_same_end_with_all_its_files(name, tiny_config, model, tmp_path, monkeypatch):
    monkeypatch.setattr(making, "evaluation_views", lambda scene, options: evaluation_views(scene, options, size=16))
    config, told = tiny(tiny_config, name, model), list[int]()
    watch = Watch(stepped=lambda metrics: told.append(metrics.step), stopped=lambda: len(told) == 3)
    stopped, whole = tmp_path / "stopped", tmp_path / "whole"
    assert not make(config, stopped, watch, KeptPrior(), files=True)
    assert make(config, stopped, Watch(), KeptPrior(), files=True)
    assert make(config, whole, Watch(), KeptPrior(), files=False)
    assert RunFolder(stopped).metrics.read_text() == RunFolder(whole).metrics.read_text()
    assert pictures_of(stopped).read_bytes() == pictures_of(whole).read_bytes()
    left = RunFolder(stopped)
    assert all(path.exists() for path in (left.mesh, left.index, left.sheet, left.turntable_mp4))
    assert "DreamFields" in left.index.read_text() or "ClipMesh" in left.index.read_text()
    cost = cost_of(stopped)
    assert cost is not None
    assert cost.seconds > 0
    assert generate.config_of(stopped).prior_sha256 == ""


@pytest.mark.parametrize("name", NAMES)
def test_the_command_makes_it_and_has_no_hints_for_a_prior(name, model, tmp_path, no_products, capsys):
    told = ["--objective.model", str(model), "--steps", "1", "--size", "16", "--views", "1", "--device", "cpu"]
    preset = ["--preset", f"{name}-fast"]
    assert run(["generate", "a red ball", *preset, *told, "--out", str(tmp_path / "run")]) == 0
    assert len(RunFolder(tmp_path / "run").read_metrics()) == 1
    assert "guidance" not in capsys.readouterr().err


def test_a_mesh_that_learned_is_not_refined(tiny_config, model, tmp_path):
    from dreamfusion import refine

    config = tiny(tiny_config, "clip-mesh", model)
    assert make(config, tmp_path / "run", Watch(), KeptPrior(), files=False)
    with pytest.raises(UserError, match="a mesh that learned already"):
        refine.begin(tmp_path / "run", "cpu")


def test_one_model_serves_many_runs_until_another_is_asked_for(tiny_config, model):
    kept, config = KeptPrior(), tiny(tiny_config, "dream-fields", model)
    (one, first), (other, second) = (kept(replace(config, prompt=f"a {word}"), torch.device("cpu"))
                                     for word in ("ball", "red ball"))  # fmt: skip
    assert one is other
    assert not torch.equal(first.embedding, second.embedding)
    with pytest.raises(UserError, match="no contrastive model"):
        kept(replace(config, objective=DreamFieldsObjective(model="no such model")), torch.device("cpu"))


def test_an_objective_alone_takes_its_reduced_preset():
    for name, preset in zip(NAMES, (DREAM_FIELDS_FAST, CLIP_MESH_FAST), strict=True):
        assert read_generate(["a", "chair", "--objective", name]).settings == replace(preset, prompt="a chair")
        assert _configured({"objective": name}) == preset
        assert config_from({"preset": preset.preset, "prompt": "a chair"}) == replace(preset, prompt="a chair")
    told = read_generate(["a", "chair", "--preset", "clip-mesh", "--objective.model", "x"]).settings
    assert told == replace(CLIP_MESH, prompt="a chair", objective=ClipMeshObjective(model="x"))


def test_the_default_model_is_the_packages():
    assert CONTRASTIVE == TOYBOX
