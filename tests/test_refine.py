"""The second stage: what it starts from, that it learns, that it goes on bit for bit, and what it leaves."""

import errno
import json
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from pygltflib import GLTF2

from dreamfusion import checkpoint, generate, refine
from dreamfusion.cli import main as cli
from dreamfusion.config import LearnedBackground, MeshConfig, RefineConfig
from dreamfusion.config.presets import preset
from dreamfusion.config.serialise import from_json, to_json
from dreamfusion.errors import UserError
from dreamfusion.loop import Run, optimise, prompt_table, start
from dreamfusion.mesh import Mesh, solid
from dreamfusion.mesh.refined import refined_report, taken_from
from dreamfusion.surface import MeshScene

CPU = torch.device("cpu")
OPTIONS = ("--steps", "6", "--size", "16", "--faces", "300", "--texture-size", "64", "--resolution", "16")
TOLD = RefineConfig(6, 16, faces=300, texture_size=64, resolution=16, blur=0.03, t_max=0.98, guidance_scale=1.0)


def call(*arguments: str) -> int:
    with pytest.raises(SystemExit) as exit_:
        cli.main(arguments)
    assert isinstance(exit_.value.code, int)
    return exit_.value.code


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def second(config, **changes) -> Run:
    """Of a run before its first step, whose surface is the blob with which it begins."""
    first = start(config, CPU)
    told = replace(TOLD, **changes)
    return refine.second_run(first, told, refine.first_mesh(first, told))


def go(run: Run, prior, until: int) -> list[dict[str, object]]:
    return [metrics.record() for metrics in optimise(run, prior, prompt_table(run.config, prior), until)]


def state(run: Run) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in checkpoint._tensors(run).items()}


def test_it_begins_as_the_surface_of_the_run(tiny_config):
    scene = second(tiny_config).scene
    assert isinstance(scene, MeshScene)
    first = start(tiny_config, CPU)
    mesh = refine.first_mesh(first, TOLD)
    again = taken_from(scene)
    assert np.array_equal(again.vertices, mesh.vertices)
    assert np.array_equal(again.faces, mesh.faces)
    assert again.texture is not None
    assert mesh.texture is not None
    assert np.abs(again.texture.astype(int) - mesh.texture).mean() < 0.5
    assert refined_report(again, 50.0, "oak").solid == solid(mesh, 50.0, "oak")
    assert again.colours is not None
    assert np.abs(again.colours - mesh.colours).mean() < 0.05


def test_a_learned_background_goes_on(tiny_config):
    config = replace(tiny_config, scene=replace(tiny_config.scene, background=LearnedBackground(2, 1, 8)))
    first = start(config, CPU)
    run = refine.second_run(first, TOLD, refine.first_mesh(first, TOLD))
    direction = torch.nn.functional.normalize(torch.randn(5, 3), dim=-1)
    assert torch.equal(run.scene.background.colour(direction), first.scene.background.colour(direction))


@pytest.mark.parametrize("texture_only", [False, True])
def test_it_learns_shape_and_texture_and_goes_on_bit_for_bit(tiny_config, disc_prior, tmp_path, texture_only):
    whole, first = (second(tiny_config, texture_only=texture_only) for _ in range(2))
    fresh = state(whole)
    told = go(whole, disc_prior, 6)
    after = state(whole)
    assert torch.equal(fresh["scene.offset"], after["scene.offset"]) == texture_only
    assert not torch.equal(fresh["scene.texels"], after["scene.texels"])
    assert ("laplacian" in str(told[-1]["losses"])) != texture_only
    told_first = go(first, disc_prior, 3)
    checkpoint.save(first, tmp_path)
    resumed = checkpoint.load(tmp_path, CPU)
    assert told_first + go(resumed, disc_prior, 6) == told
    assert [name for name, tensor in state(resumed).items() if not torch.equal(tensor, after[name])] == []
    assert isinstance(whole.scene, MeshScene)
    report = refined_report(taken_from(whole.scene), 100.0, "pla")
    assert report.watertight
    assert report.solid.weight_g > 0


def test_what_is_not_said_is_that_of_the_run_at_its_end():
    for name, t_max in (("fast", 0.98), ("sd", 0.5)):
        config = preset(name)
        told = refine.told_by(config)
        assert (told.t_max, told.guidance_scale) == (t_max, config.distill.guidance_scale)
    law = refine.stage_config(config, told, some_mesh(300)).distill
    assert law.t_max(0.0) == 0.5
    assert refine.stage_config(config, told, some_mesh(300)).size_at(0.0) == told.size
    assert law.law == config.distill.law


def some_mesh(faces: int) -> Mesh:
    return Mesh(np.zeros((faces // 2 + 2, 3), np.float32), np.zeros((faces, 3), np.int64))


def test_its_configuration_is_a_file(tiny_config):
    config = second(tiny_config).config
    assert from_json(type(config), to_json(config)) == config
    assert isinstance(config.scene.field, MeshConfig)
    assert config.scene.field.after == tiny_config.steps


def said_by(path: Path) -> dict:
    model = GLTF2().load(path / "mesh.glb")
    assert model is not None
    assert model.asset.extras is not None
    return model.asset.extras


FIRST = {
    "steps": 2,
    "size": 16,
    "threads": 1,
    "preview-seconds": 0,
    "render.samples": 12,
    "output.samples": 12,
    "output.frames": 2,
    "output.frame-size": 16,
    "output.sheet-size": 16,
    "output.mesh-resolution": 12,
    "output.texture-size": 64,
    "distill.guidance-scale": 1,
    "device": "cpu",
}


@pytest.fixture(scope="module")
def made(tmp_path_factory, tiny_prior) -> Path:
    out = tmp_path_factory.mktemp("made") / "run"
    options = [word for name, value in FIRST.items() for word in (f"--{name}", str(value))]
    options += ["--scene.field.cells", "4", "8", "--scene.field.colour-cells", "4", "8", "--scene.occupancy.cells", "8"]
    assert call("generate", "a red chair", "--prior", str(tiny_prior), *options, "--out", str(out)) == 0
    return out


@pytest.fixture
def finished(made, tmp_path) -> Path:
    return shutil.copytree(made, tmp_path / "run")


def test_the_files_are_those_of_the_refined_mesh_and_the_first_stage_stays(finished, capsys):
    before = files(finished)
    assert call("refine", str(finished), *OPTIONS, "--format", "stl") == 0
    after = files(finished)
    assert {name for name in after if not name.startswith("refine/")} == {*before, "mesh.stl"}
    changed = {name for name, content in before.items() if after[name] != content}
    assert {"mesh.glb", "mesh.json", "index.html", "media/turntable.mp4", "media/sheet.png"} <= changed
    assert not any(name.startswith(("checkpoint", "config", "metrics")) for name in changed)
    said = said_by(finished)
    assert said["refined"] == "shape and texture, 6 steps at 16 pixels"
    assert said["steps"] == 2
    report = json.loads((finished / "mesh.json").read_text())
    assert report["watertight"] is True
    assert report["solid"]["material"] == "pla"
    page = (finished / "index.html").read_text(encoding="utf-8")
    assert f"{report['solid']['weight_g']:.0f} g of pla" in page
    assert "6 steps at 16 pixels" in page
    assert str(finished / "index.html") in capsys.readouterr().out
    assert call("refine", str(finished), *OPTIONS, "--format", "stl") == 0  # done: the files alone
    assert files(finished) == after
    assert call("resume", str(finished)) == 0  # the same without the other format, also in the page
    renewed = files(finished)
    assert {name for name in after if renewed.get(name) != after[name]} == {"mesh.stl", "index.html"}


def interrupt_at(step: int, patch: pytest.MonkeyPatch) -> None:
    from dreamfusion.cli.progress_line import ProgressLine

    show = ProgressLine.show

    def shown(line, metrics) -> None:
        show(line, metrics)
        if metrics.step == step:
            signal.raise_signal(signal.SIGINT)

    patch.setattr(ProgressLine, "show", shown)


@pytest.mark.parametrize("command", ["refine", "resume"])
def test_an_interrupted_one_goes_on_by_both_commands(finished, command, monkeypatch, capsys):
    whole = finished.with_name("whole")
    shutil.copytree(finished, whole)
    assert call("refine", str(whole), *OPTIONS) == 0
    with monkeypatch.context() as patch:
        interrupt_at(3, patch)
        assert call("refine", str(finished), *OPTIONS) == cli.INTERRUPTED
    assert f"dreamfusion resume {finished}" in capsys.readouterr().err
    assert call("refine", str(finished), *OPTIONS, "--texture-only") == 2
    assert "--again" in capsys.readouterr().err
    assert call(command, str(finished), *(OPTIONS if command == "refine" else ())) == 0
    assert files(finished) == files(whole)


def test_one_that_was_told_something_else_begins_anew(finished):
    assert call("refine", str(finished), *OPTIONS) == 0
    assert call("refine", str(finished), *OPTIONS, "--texture-only") == 0
    assert said_by(finished)["refined"].startswith("texture alone")
    first = (finished / "refine" / "checkpoint" / "checkpoint.json").read_bytes()
    assert call("refine", str(finished), *OPTIONS, "--texture-only", "--again") == 0
    assert (finished / "refine" / "checkpoint" / "checkpoint.json").read_bytes() == first


def test_when_the_run_has_gone_on_so_begins_its_second_stage(finished):
    assert call("refine", str(finished), *OPTIONS) == 0
    assert call("resume", str(finished), "--steps", "3") == 0
    assert refine.begun(finished) is None
    assert call("refine", str(finished), *OPTIONS) == 0
    assert said_by(finished)["steps"] == 3


def test_a_kill_before_the_first_checkpoint_begins_anew(finished):
    assert call("refine", str(finished), *OPTIONS) == 0
    after = files(finished)
    shutil.rmtree(finished / "refine" / "checkpoint")
    assert call("refine", str(finished), *OPTIONS) == 0
    assert files(finished) == after


@pytest.mark.parametrize("content", [None, "{}", "{"])
def test_a_damaged_one_is_named_and_can_be_begun_anew(finished, content, capsys):
    assert call("refine", str(finished), *OPTIONS) == 0
    told = finished / "refine" / "config.json"
    told.unlink() if content is None else told.write_text(content)
    before = files(finished)
    for command in (("refine", str(finished), *OPTIONS), ("resume", str(finished))):
        assert call(*command) == 2
        err = capsys.readouterr().err
        assert str(finished / "refine") in err
        assert "--again" in err
    assert files(finished) == before
    assert call("refine", str(finished), *OPTIONS, "--again") == 0


def test_a_full_disk_leaves_the_one_that_was_there(finished, monkeypatch, capsys):
    assert call("refine", str(finished), *OPTIONS) == 0
    before = files(finished)

    def full(run, folder):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save", full)
        assert call("refine", str(finished), *OPTIONS, "--again") == 2
    assert "the disk is full" in capsys.readouterr().err
    assert files(finished) == before
    assert call("refine", str(finished), *OPTIONS, "--again") == 0
    assert files(finished) == before


def test_what_cannot_be_refined_is_said_in_words(finished, tmp_path, capsys):
    assert call("refine", str(tmp_path)) == 2
    assert "no run folder" in capsys.readouterr().err
    config = json.loads((finished / "config.json").read_text())
    (finished / "config.json").write_text(json.dumps(config | {"steps": 9}))
    assert call("refine", str(finished), *OPTIONS) == 2
    assert "2 of 9 steps" in capsys.readouterr().err
    (finished / "config.json").write_text(json.dumps(config))
    assert call("refine", str(finished), *OPTIONS, "--prior", "nobody/nothing") == 2
    assert "nobody/nothing" in capsys.readouterr().err
    assert not (finished / "refine").exists()


def test_an_empty_scene_has_nothing_to_refine(finished, monkeypatch, capsys):
    monkeypatch.setattr(generate, "open_run", emptied(generate.open_run))
    assert call("refine", str(finished), *OPTIONS) == 2
    assert "empty scene" in capsys.readouterr().err
    assert not (finished / "refine").exists()


def emptied(open_run):
    def opened(path, device, **own):
        folder, run = open_run(path, device, **own)
        with torch.no_grad():
            for parameter in run.scene.field.parameters():
                parameter.fill_(-20.0)
        return folder, run

    return opened


def test_a_mesh_is_no_field_of_a_new_run(tiny_config, tmp_path):
    config = replace(tiny_config, scene=replace(tiny_config.scene, field=MeshConfig()))
    with pytest.raises(UserError, match="dreamfusion refine"):
        generate.create_run(config, tmp_path / "run")
