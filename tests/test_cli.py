"""The command line: what it understands, what it refuses, and a run from the sentence to the last file."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
from pygltflib import GLTF2

import dreamfusion
from dreamfusion import checkpoint
from dreamfusion.cli import main as cli
from dreamfusion.cli.arguments import read_generate
from dreamfusion.config import Config, GridFieldConfig, LearnedBackground, MlpFieldConfig
from dreamfusion.config.distill import IsmLaw, VsdLaw
from dreamfusion.config.presets import PRESETS, preset
from dreamfusion.config.serialise import from_json, to_json
from dreamfusion.errors import UserError
from dreamfusion.schedules import Constant, Ramp


def call(*arguments: str) -> int:
    with pytest.raises(SystemExit) as exit_:
        cli.main(arguments)
    return exit_.value.code


# What it understands


def test_a_bare_sentence_is_short_for_generate(monkeypatch):
    seen = []
    monkeypatch.setitem(cli.COMMANDS, "generate", (object, lambda name, given: seen.append((name, given)) or 0))
    assert call("a red chair", "--seed", "3") == 0
    assert call("generate", "a red chair", "--seed", "3") == 0
    assert call("--seed", "3", "a red chair") == 0
    assert seen == [("generate", ["a red chair", "--seed", "3"])] * 2 + [("generate", ["--seed", "3", "a red chair"])]


def test_the_preset_gives_the_defaults_and_options_change_them():
    config = read_generate(["a chair", "--preset", "paper", "--seed", "4", "--camera.distance", "2", "2.5"]).settings
    paper = preset("paper")
    expected = replace(paper, prompt="a chair", seed=4, camera=replace(paper.camera, distance=(2.0, 2.5)))
    assert config == expected


def test_the_order_of_options_does_not_matter():
    one, other = ["--seed", "4", "a chair", "--steps=7"], ["--steps", "7", "--seed=4", "a chair"]
    assert read_generate(one) == read_generate(other)


def test_short_names_and_schedules():
    given = ["a chair", "--guidance-scale", "5", "--distill.t-max", "0.9:0.4@0.1:0.8", "--regularise.opacity", "0.5"]
    config = read_generate(given).settings
    assert config.distill.guidance_scale == 5.0
    assert config.distill.t_max == Ramp(0.9, 0.4, 0.1, 0.8)
    assert config.regularise.opacity == Constant(0.5)


def test_negative_numbers_and_switches():
    config = read_generate(
        ["a chair", "--camera.elevation-deg", "-20", "-5", "--no-view-words", "--conditions", "none"]
    ).settings
    assert config.camera.elevation_deg == (-20.0, -5.0)
    assert not config.view_words
    assert config.conditions == "none"


def test_kinds_of_field_and_background():
    given = ["a chair", "--field", "mlp", "--scene.field.width", "32", "--background", "learned"]
    config = read_generate(given).settings
    assert config.scene.field == MlpFieldConfig(width=32)
    assert config.scene.background == LearnedBackground()
    assert isinstance(read_generate(["a chair"]).settings.scene.field, GridFieldConfig)


def test_laws_of_distillation_are_chosen_by_name_and_keep_what_they_share():
    fast = preset("fast").distill
    given = ["a chair", "--distill", "ism", "--distill.law.gap", "0.1", "--distill.t-min", "0.1"]
    assert read_generate(given).settings.distill == replace(fast, law=IsmLaw(gap=0.1), t_min=Constant(0.1))
    assert isinstance(read_generate(["a chair", "--distill", "vsd"]).settings.distill.law, VsdLaw)
    assert read_generate(["a chair", "--distill", "sds"]).settings.distill == fast


def test_negative_prompts_perp_neg_and_blended_views_are_options():
    config = read_generate(["a chair", "--negative", "a table", "--perp-neg", "1", "--blend-views"]).settings
    assert (config.negative, config.perp_neg, config.blend_views) == ("a table", 1.0, True)


def test_a_config_file_gives_the_defaults(tmp_path):
    config = replace(preset("paper"), prompt="a frog", seed=9)
    (tmp_path / "config.json").write_text(json.dumps(to_json(config)))
    again = read_generate(["--config", str(tmp_path / "config.json"), "--seed", "10"]).settings
    assert again == replace(config, seed=10)


@pytest.mark.parametrize("content", [None, "{", "[]", '{"stepps": 1}'])
def test_a_config_file_that_is_none_is_named(tmp_path, content):
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(UserError, match=r"config\.json|stepps"):
        read_generate(["a chair", "--config", str(tmp_path / "config.json")])


def test_every_field_of_the_configuration_has_an_option(capsys):
    with pytest.raises(SystemExit):
        read_generate(["--help"])
    listed = capsys.readouterr().out

    def options(values: dict, prefix: str = ""):
        for name, value in values.items():
            if isinstance(value, dict):
                yield from options(value, f"{prefix}{name}.")
            # The prompt comes first; what was understood, version and own parts are only written down.
            elif name not in ("kind", "prompt", "understood", "version", "custom"):
                yield "--" + f"{prefix}{name}".replace("_", "-")

    assert [option for option in options(to_json(preset("fast"))) if option not in listed] == []


# What it says


@pytest.mark.parametrize("arguments", [(), ("--help",), ("-h",)])
def test_help_names_every_command(capsys, arguments):
    assert call(*arguments) == 0
    out = capsys.readouterr().out
    assert all(f"  {name} " in out for name in cli.COMMANDS)
    assert max(map(len, out.splitlines())) <= 120


def test_help_lists_the_presets(capsys):
    assert call("generate", "-h") == 0
    shown = "".join(capsys.readouterr().out.replace("│", "").split())  # a long list is broken into lines
    assert f"--preset{{{','.join(PRESETS)}}}" in shown


def test_help_for_the_prior_names_its_commands(capsys):
    assert call("prior", "--help") == 0
    usage, _, *lines = capsys.readouterr().out.splitlines()
    assert usage.startswith("usage: dreamfusion prior")
    names = [line.split("  ")[1] for line in lines]
    assert names == ["prior info", "prior sample"]


def test_version(capsys):
    assert call("--version") == 0
    assert capsys.readouterr().out == f"dreamfusion {dreamfusion.__version__}\n"


def test_help_is_there_at_once():
    def seconds() -> float:
        """Of a core, which other processes on the machine change little."""
        before = os.times()
        subprocess.run([sys.executable, "-m", "dreamfusion", "--help"], check=True, capture_output=True)
        after = os.times()
        return after.children_user + after.children_system - before.children_user - before.children_system

    assert min(seconds() for _ in range(5)) < 0.5


BAD = {
    "empty prompt": (("",), "prompt is empty"),
    "no prompt": (("generate",), "prompt is empty"),
    "preset": (("a chair", "--preset", "slow"), "unknown preset"),
    "steps": (("a chair", "--steps", "0"), "--steps"),
    "schedule": (("a chair", "--distill.t-max", "often"), "schedule"),
    "device": (("a chair", "--device", "cuda:99"), "cuda:99 is not on this machine"),
    "prior": (("a chair", "--device", "cpu", "--prior", "./nowhere"), "./nowhere"),
    "resume": (("resume", "./nowhere"), "nowhere is no folder"),
    "mesh": (("mesh", "./nowhere"), "nowhere is no folder"),
    "prior command": (("prior",), "prior info"),
    "no caption": (("prior", "sample"), "say what to draw"),
    "no letter": (("!!!",), "prompt is empty"),
    "not finite": (("a chair", "--scene.density-bias", "inf"), "--scene.density-bias must be a finite number"),
    "two defaults": (("a chair", "--config", "x.json", "--preset", "fast"), "one of the two"),
    "resume steps": (("resume", "./nowhere", "--steps", "0"), "--steps must be at least 1"),
    "mesh resolution": (("mesh", "./nowhere", "--resolution", "0"), "--resolution must be at least 8 and at most 1024"),
    "mesh level": (("mesh", "./nowhere", "--level", "-1"), "--level must be at least"),
    "mesh place": (("mesh", "./nowhere", "--out", "nowhere/x.glb"), "there is no folder nowhere"),
    "mesh suffix": (("mesh", "./nowhere", "--out", "x.doc"), ".glb, .obj, .ply, .stl, .usdz"),
    "mesh detail": (("mesh", "./nowhere", "--resolution", "2048"), "--resolution must be at least 8 and at most 1024"),
    "mesh texture": (
        ("mesh", "./nowhere", "--texture-size", "8192"),
        "--texture-size must be at least 64 and at most 4096",
    ),
    "mesh blur": (("mesh", "./nowhere", "--blur", "-0.1"), "--blur must be at least 0"),
    "own mesh": (("a chair", "--output.mesh-resolution", "2048"), "--output.mesh-resolution must be at least 8 and"),
    "map for nothing": (("mesh", "./nowhere", "--out", "x.obj", "--normal-map"), "--normal-map would change nothing"),
    "light for nothing": (("mesh", "./nowhere", "--out", "x.ply", "--bake-light"), "--bake-light would change"),
    "walls of nothing": (("mesh", "./nowhere", "--printable", "0"), "--printable must be above 0"),
    "video frames": (("video", "./nowhere", "--frames", "0"), "--frames must be at least 2"),
    "video size": (("video", "./nowhere", "--size", "0"), "--size must be at least 16"),
    "odd video": (("video", "./nowhere", "--size", "33"), "--size must be at least 16"),
    "sample steps": (("prior", "sample", "a chair", "--steps", "0"), "--steps must be at least 1"),
    "sample seed": (("prior", "sample", "a chair", "--seed", "-1"), "--seed must be at least"),
    "sample place": (("prior", "sample", "a chair", "--out", "nowhere/x.png"), "there is no folder nowhere"),
    "sample suffix": (("prior", "sample", "a chair", "--out", "x.doc"), ".png, .jpg"),
    "sample device": (("prior", "sample", "a chair", "--device", "foo"), "--device must be auto"),
}


@pytest.mark.parametrize("case", BAD)
def test_mistakes_get_one_line_and_exit_code_2(capsys, case):
    arguments, message = BAD[case]
    assert call(*arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert message in err
    assert err.count("\n") == 1


def test_unknown_options_end_with_exit_code_2(capsys):
    assert call("a chair", "--stepps", "3") == 2
    assert "--steps" in capsys.readouterr().err  # the nearest one is offered


# What it does


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


EXPECTED = {
    "config.json",
    "metrics.jsonl",
    "checkpoint/checkpoint.json",
    "media/preview.png",
    "media/sheet.png",
    "media/turntable.mp4",
    "media/turntable.webp",
    "mesh.glb",
    "mesh.json",
    "index.html",
}


@pytest.mark.usefixtures("quick_products")
def test_a_run_and_an_interrupted_one_leave_equal_files(tiny_settings, tmp_path, monkeypatch, capsys):
    assert call("generate", *tiny_settings, "--out", str(tmp_path / "first")) == 0
    first = files(tmp_path / "first")
    assert {name for name in first if "tensors-" not in name} == EXPECTED
    assert str(tmp_path / "first" / "index.html") in capsys.readouterr().out

    show = cli_live().show

    def interrupt_at_6(line, metrics) -> None:
        show(line, metrics)
        if metrics.step == 6:
            signal.raise_signal(signal.SIGINT)

    third = tmp_path / "third"
    with monkeypatch.context() as patch:
        patch.setattr(cli_live(), "show", interrupt_at_6)
        assert call("generate", *tiny_settings, "--out", str(third)) == cli.INTERRUPTED
    assert f"dreamfusion resume {third}" in capsys.readouterr().err
    assert json.loads((third / "checkpoint" / "checkpoint.json").read_text())["step"] == 6
    with (third / "metrics.jsonl").open("a") as log:
        log.write('{"step": 7, "los')  # a kill while a line was written
    assert call("resume", str(third)) == 0
    assert files(third) == first


def cli_live() -> type:
    from dreamfusion.cli.progress_line import ProgressLine

    return ProgressLine


@pytest.mark.usefixtures("no_products")
def test_a_run_that_was_killed_goes_on_from_its_last_checkpoint(tiny_settings, tmp_path, monkeypatch):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert call("generate", *tiny_settings, "--out", str(whole)) == 0

    def kill_at_7(line, metrics) -> None:
        if metrics.step == 7:
            raise KeyboardInterrupt

    save = checkpoint.save

    def save_when_due(run, folder) -> None:  # a killed program saves nothing on its way out
        if run.step % run.config.checkpoint_steps == 0:
            save(run, folder)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save", save_when_due)
        patch.setattr(cli_live(), "show", kill_at_7)
        assert call("generate", *tiny_settings, "--out", str(killed)) == cli.INTERRUPTED
    assert json.loads((killed / "checkpoint" / "checkpoint.json").read_text())["step"] == 4
    assert call("resume", str(killed)) == 0
    assert files(killed) == files(whole)


def test_nothing_is_overwritten(tiny_settings, tmp_path, capsys):
    out = tmp_path / "taken"
    out.mkdir()
    (out / "thesis.txt").write_text("years of work")
    assert call("generate", *tiny_settings, "--out", str(out)) == 2
    assert "not empty" in capsys.readouterr().err
    assert files(out) == {"thesis.txt": b"years of work"}


def test_unknown_words_are_named_before_a_folder_is_made(tiny_settings, tmp_path, capsys):
    out = tmp_path / "out"
    assert call("generate", "a red chiar", *tiny_settings, "--out", str(out)) == 2
    err = capsys.readouterr().err
    assert "'chiar'" in err
    assert "chair" in err
    assert not out.exists()


@pytest.mark.usefixtures("no_products")
def test_a_longer_run_continues_a_finished_one(tiny_settings, tmp_path):
    out = tmp_path / "out"
    assert call("generate", *tiny_settings, "--out", str(out), "--steps", "2") == 0
    assert call("resume", str(out), "--steps", "3") == 0
    assert [json.loads(line)["step"] for line in (out / "metrics.jsonl").read_text().splitlines()] == [1, 2, 3]
    assert json.loads((out / "config.json").read_text())["steps"] == 3
    assert call("resume", str(out), "--steps", "1") == 2


@pytest.mark.usefixtures("quick_products")
def test_mesh_and_video_again(tiny_settings, tmp_path, capsys):
    out = tmp_path / "out"
    assert call("generate", *tiny_settings, "--out", str(out), "--steps", "1") == 0
    before = files(out)
    for path in (out / "mesh.glb", out / "media" / "turntable.mp4", out / "media" / "sheet.png"):
        path.unlink()
    assert call("mesh", str(out), "--resolution", "16") == 0
    assert call("video", str(out), "--frames", "3", "--size", "32") == 0
    assert files(out) == before
    assert call("mesh", str(out), "--resolution", "16", "--out", str(tmp_path / "chair.obj")) == 0
    assert "v " in (tmp_path / "chair.obj").read_text()
    capsys.readouterr()
    for taken in (tmp_path / "chair.obj", out / "mesh.glb"):
        assert call("mesh", str(out), "--out", str(taken)) == 2
        assert "exists: choose another --out" in capsys.readouterr().err
    assert files(out) == before


@pytest.mark.usefixtures("quick_products")
def test_a_new_mesh_leaves_no_file_of_an_older_one(tiny_settings, tmp_path):
    out = tmp_path / "out"
    assert call("generate", *tiny_settings, "--out", str(out), "--steps", "1") == 0
    (out / "mesh.txt").write_text("my own notes")
    assert call("mesh", str(out), "--resolution", "16", "--format", "obj", "stl", "--height-mm", "50") == 0
    assert {path.name for path in out.glob("mesh.*")} == {
        f"mesh.{name}" for name in ("glb", "json", "obj", "mtl", "png", "stl", "txt")
    }
    assert call("mesh", str(out), "--resolution", "16", "--format", "ply", "--blur", "0.06") == 0
    assert {path.name for path in out.glob("mesh.*")} == {f"mesh.{name}" for name in ("glb", "json", "ply", "txt")}
    assert 'download="mesh.stl"' not in (out / "index.html").read_text()


@pytest.mark.usefixtures("quick_products")
def test_the_page_shows_what_mesh_and_video_made_last(tiny_settings, tmp_path):
    out = tmp_path / "out"
    assert call("generate", *tiny_settings, "--out", str(out), "--steps", "1") == 0
    page = (out / "index.html").read_bytes()
    assert call("mesh", str(out), "--resolution", "12") == 0
    assert (out / "index.html").read_bytes() != page
    (out / "index.html").unlink()
    assert call("video", str(out), "--frames", "3", "--size", "32") == 0  # all its parts are there
    again = (out / "index.html").read_bytes()
    assert again != page
    (out / "index.html").unlink()
    (out / "media" / "sheet.png").unlink()
    assert call("mesh", str(out), "--resolution", "16") == 0
    assert not (out / "index.html").exists()


@pytest.mark.usefixtures("quick_products")
def test_an_empty_scene_leaves_its_pictures(tiny_settings, tmp_path, capsys):
    out = tmp_path / "out"
    assert call("generate", *tiny_settings, "--out", str(out), "--steps", "1", "--scene.density-bias", "-30") == 2
    err = capsys.readouterr().err
    assert "empty scene" in err
    assert f"the pictures are in {out / 'media'}" in err
    assert set(files(out / "media")) == {"preview.png", "sheet.png", "turntable.mp4", "turntable.webp"}
    assert not (out / "mesh.glb").exists()
    assert not (out / "index.html").exists()
    for name in ("mesh.glb", "mesh.json", "mesh.stl", "index.html", "notes.txt"):
        (out / name).write_text("of an earlier state")
    assert call("resume", str(out)) == 2
    assert not list(out.glob("mesh.*"))
    assert not (out / "index.html").exists()
    assert (out / "notes.txt").exists()


@pytest.mark.usefixtures("quick_products")
def test_an_interruption_while_files_are_made_stops_after_the_current_one(tiny_settings, tmp_path, monkeypatch, capsys):
    from dreamfusion import generate

    whole, out = tmp_path / "whole", tmp_path / "out"
    assert call("generate", *tiny_settings, "--out", str(whole), "--steps", "2") == 0
    video = generate.write_video

    def interrupted_video(*given):
        signal.raise_signal(signal.SIGINT)
        return video(*given)

    with monkeypatch.context() as patch:
        patch.setattr(generate, "write_video", interrupted_video)
        assert call("generate", *tiny_settings, "--out", str(out), "--steps", "2") == cli.INTERRUPTED
    assert f"dreamfusion resume {out}" in capsys.readouterr().err
    assert set(files(whole)) - set(files(out)) == {"mesh.glb", "mesh.json", "index.html"}

    def no_step(*given):
        raise AssertionError("all steps are done")

    monkeypatch.setattr("dreamfusion.loop.advance", no_step)
    assert call("resume", str(out)) == 0
    assert files(out) == files(whole)


@pytest.mark.usefixtures("no_products")
def test_a_run_goes_on_where_it_was_made_unless_told_otherwise(tiny_settings, tmp_path, monkeypatch):
    from dreamfusion import generate

    out = tmp_path / "out"
    assert call("generate", *tiny_settings, "--out", str(out), "--steps", "1") == 0
    settled = []
    monkeypatch.setattr(generate, "prepare_process", lambda config, device: settled.append((config.threads, device)))
    monkeypatch.setattr(generate, "write_mesh", lambda *_, **__: ([], "a mesh"))
    monkeypatch.setattr(generate, "write_video", lambda *_, **__: [])
    for command in (("resume", str(out)), ("mesh", str(out)), ("video", str(out), "--frames", "2", "--size", "32")):
        assert call(*command) == 0
        assert call(*command, "--device", "xpu") == 2
    assert settled == [(1, "cpu"), (1, "xpu")] * 3


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_arithmetic_is_repeatable_where_the_device_can(monkeypatch, device):
    from dreamfusion import generate

    monkeypatch.setattr(generate, "device_of", torch.device)
    generate.prepare_process(Config(threads=1), device)
    assert torch.are_deterministic_algorithms_enabled() == (device == "cpu")


@pytest.mark.usefixtures("no_products")
def test_a_longer_run_that_cannot_begin_changes_nothing(tiny_settings, tiny_prior, tmp_path, monkeypatch, capsys):
    out = tmp_path / "out"
    assert call("generate", *tiny_settings, "--out", str(out), "--steps", "1") == 0
    before = files(out)

    def refuse(*given):
        raise UserError("the disk is full")

    for broken in ("open_prior", "checkpoint.save"):
        with monkeypatch.context() as patch:
            patch.setattr(f"dreamfusion.generate.{broken}", refuse)
            assert call("resume", str(out), "--steps", "3") == 2
        assert "disk is full" in capsys.readouterr().err
        assert files(out) == before


@pytest.mark.usefixtures("no_products")
def test_a_run_killed_in_its_first_save_begins_again(tiny_settings, tmp_path, capsys):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert call("generate", *tiny_settings, "--out", str(whole), "--steps", "1") == 0
    (killed / "checkpoint").mkdir(parents=True)
    (killed / "media").mkdir()
    (killed / "checkpoint" / ".part-tensors-0.safetensors").write_bytes(b"half")
    shutil.copy(whole / "config.json", killed)
    assert call("resume", str(killed)) == 0
    assert files(killed) == files(whole)
    (killed / "checkpoint" / "checkpoint.json").unlink()  # but a run that went on is not begun again behind one's back
    assert call("resume", str(killed)) == 2
    assert "there is no checkpoint" in capsys.readouterr().err


@pytest.mark.usefixtures("no_products")
def test_a_damaged_checkpoint_is_named(tiny_settings, tmp_path, capsys):
    out = tmp_path / "out"
    assert call("generate", *tiny_settings, "--out", str(out), "--steps", "1") == 0
    tensors = next((out / "checkpoint").glob("*.safetensors"))
    tensors.write_bytes(tensors.read_bytes()[:100])
    before = files(out)
    assert call("resume", str(out)) == 2
    assert "damaged or cut short" in capsys.readouterr().err
    assert files(out) == before


@pytest.mark.usefixtures("quick_products")
def test_a_config_of_a_run_runs_again(tiny_settings, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    assert call("generate", *tiny_settings, "--out", str(first), "--steps", "2", "--seed", "5") == 0
    assert call("generate", "--config", str(first / "config.json"), "--out", str(second)) == 0
    assert files(first) == files(second)
    config = from_json(type(preset("fast")), json.loads((first / "config.json").read_text()))
    assert config.seed == 5
    extras = GLTF2().load(first / "mesh.glb").asset.extras
    assert (extras["prior sha256"], extras["dreamfusion"]) == (config.prior_sha256, dreamfusion.__version__)
    assert len(config.prior_sha256) == 64


def test_a_prior_draws_what_it_is_asked(tiny_prior, tmp_path, capsys):
    out = tmp_path / "s.png"
    given = ("prior", "sample", "a red chair", "--prior", str(tiny_prior), "--steps", "2", "--out", str(out))
    assert call(*given) == 0
    assert out.read_bytes().startswith(b"\x89PNG")
    before = out.read_bytes()
    capsys.readouterr()
    assert call(*given) == 2
    assert "exists: choose another --out" in capsys.readouterr().err
    assert out.read_bytes() == before
    assert call(*given[:2], "qqqq", *given[3:-1], str(tmp_path / "t.png")) == 2
    assert re.search(r"'qqqq' \(it knows, for example, \w+, \w+, \w+\)", capsys.readouterr().err)


def test_a_prior_draws_into_a_new_file_every_time(tiny_prior, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for seed in "01":
        given = ("prior", "sample", "a red chair", "--prior", str(tiny_prior), "--steps", "1", "--seed", seed)
        assert call(*given) == 0
    pictures = files(tmp_path)
    assert set(pictures) == {"samples.png", "samples-1.png"}
    assert pictures["samples.png"] != pictures["samples-1.png"]


def test_a_prior_with_a_missing_file_is_named(tiny_prior, tmp_path, capsys):
    broken = tmp_path / "prior"
    shutil.copytree(tiny_prior, broken)
    shutil.rmtree(broken / "unet")
    assert call("a red chair", "--device", "cpu", "--prior", str(broken), "--out", str(tmp_path / "out")) == 2
    assert "unet" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_an_unwritable_place_is_named(tiny_settings, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert call("generate", *tiny_settings, "--out", str(tmp_path / "file" / "out")) == 2
    assert "cannot write" in capsys.readouterr().err


def test_doctor_tells_what_is_there(capsys):
    code = call("doctor")
    out = capsys.readouterr().out
    assert f"torch {version('torch')}" in out  # torch's own `__version__` has the build, which packages need not name
    assert all(f"{name} {version(name)}" in out for name in ("tyro", "sentencepiece", "scikit-image"))
    assert "beartype" not in out  # for development only
    assert f"{len(os.sched_getaffinity(0))} cores" in out
    assert (code == 0) == ("MISSING" not in out)
    assert ("ready: try" in out) == (code == 0)


WITHOUT = """
import sys
class Hiding:
    def find_spec(name, path=None, target=None):
        if name == sys.argv[1]:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Hiding)
from dreamfusion.cli.main import main
main(["doctor"])
"""


@pytest.mark.parametrize("hidden", ["torch", "skimage"])
def test_doctor_names_a_library_that_is_missing(hidden):
    done = subprocess.run([sys.executable, "-c", WITHOUT, hidden], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == ""
    assert f"MISSING {hidden}: cannot be loaded" in done.stdout
    assert done.stdout.endswith("not ready: see the lines that say MISSING\n")
