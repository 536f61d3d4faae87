"""The command line: what it understands, what it refuses, and a run from the sentence to the last file."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import dreamfusion
from dreamfusion import checkpoint, cli
from dreamfusion.arguments import read_generate
from dreamfusion.config import GridField, LearnedBackground, MlpField
from dreamfusion.config_text import from_json, to_json
from dreamfusion.errors import UserError
from dreamfusion.presets import preset
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
    given = ["a chair", "--guidance-scale", "5", "--sds.t-max", "0.9:0.4@0.1:0.8", "--regularise.opacity", "0.5"]
    config = read_generate(given).settings
    assert config.sds.guidance_scale == 5.0
    assert config.sds.t_max == Ramp(0.9, 0.4, 0.1, 0.8)
    assert config.regularise.opacity == Constant(0.5)


def test_negative_numbers_and_switches():
    config = read_generate(["a chair", "--camera.elevation-deg", "-20", "-5", "--no-conditions"]).settings
    assert config.camera.elevation_deg == (-20.0, -5.0)
    assert not config.conditions


def test_kinds_of_field_and_background():
    given = ["a chair", "--field", "mlp", "--scene.field.width", "32", "--background", "learned"]
    config = read_generate(given).settings
    assert config.scene.field == MlpField(width=32)
    assert config.scene.background == LearnedBackground()
    assert isinstance(read_generate(["a chair"]).settings.scene.field, GridField)


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
            elif name not in ("kind", "prompt"):
                yield "--" + f"{prefix}{name}".replace("_", "-")

    assert [option for option in options(to_json(preset("fast"))) if option not in listed] == []


# What it says


@pytest.mark.parametrize("arguments", [(), ("--help",), ("-h",)])
def test_help_names_every_command(capsys, arguments):
    assert call(*arguments) == 0
    out = capsys.readouterr().out
    assert all(f"  {name} " in out for name in cli.COMMANDS)
    assert max(map(len, out.splitlines())) <= 120


def test_version(capsys):
    assert call("--version") == 0
    assert capsys.readouterr().out == f"dreamfusion {dreamfusion.__version__}\n"


def test_help_is_there_at_once():
    def seconds() -> float:
        before = time.perf_counter()
        subprocess.run([sys.executable, "-m", "dreamfusion", "--help"], check=True, capture_output=True)
        return time.perf_counter() - before

    assert min(seconds() for _ in range(5)) < 0.5


BAD = {
    "empty prompt": (("",), "prompt is empty"),
    "no prompt": (("generate",), "prompt is empty"),
    "preset": (("a chair", "--preset", "slow"), "unknown preset"),
    "steps": (("a chair", "--steps", "0"), "--steps"),
    "schedule": (("a chair", "--sds.t-max", "often"), "schedule"),
    "device": (("a chair", "--device", "cuda:99"), "--device cuda:99 is not on this machine"),
    "prior": (("a chair", "--device", "cpu", "--prior", "./nowhere"), "./nowhere"),
    "resume": (("resume", "./nowhere"), "nowhere is no folder"),
    "mesh": (("mesh", "./nowhere"), "nowhere is no folder"),
    "prior command": (("prior",), "prior info"),
    "no caption": (("prior", "sample"), "say what to draw"),
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


@pytest.fixture(scope="session")
def tiny_prior(tmp_path_factory) -> Path:
    """An untrained prior of the embedded kind, small enough to be quick, as a folder on disk."""
    from dreamfusion.embedded.card import make_card
    from dreamfusion.embedded.network import ToyUNet
    from dreamfusion.embedded.pipeline import new_parts, write

    folder = tmp_path_factory.mktemp("prior")
    parts = replace(new_parts(0), unet=ToyUNet(sample_size=16, width=16, wide=16, vector=16))
    write(parts, folder, {**make_card(0, 1), "image_size": 16})
    return folder


@pytest.fixture
def tiny_settings(tiny_config, tiny_prior, tmp_path) -> tuple[str, ...]:
    config = replace(tiny_config, prompt="a red chair", prior=str(tiny_prior))
    (tmp_path / "settings.json").write_text(json.dumps(to_json(config)))
    return "--config", str(tmp_path / "settings.json")


@pytest.fixture(autouse=True)
def untouched_torch():
    """The command line sets torch up for its process; other tests share ours."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(False)
    torch.set_flush_denormal(False)
    torch.utils.deterministic.fill_uninitialized_memory = True


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
    "index.html",
}


def test_two_runs_and_an_interrupted_one_leave_equal_files(tiny_settings, tmp_path, monkeypatch, capsys):
    for name in ("first", "second"):
        assert call("generate", *tiny_settings, "--out", str(tmp_path / name)) == 0
    first = files(tmp_path / "first")
    assert {name for name in first if "tensors-" not in name} == EXPECTED
    assert files(tmp_path / "second") == first
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
    from dreamfusion.live import LiveLine

    return LiveLine


def test_a_run_that_was_killed_goes_on_from_its_last_checkpoint(tiny_settings, tmp_path, monkeypatch):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert call("generate", *tiny_settings, "--out", str(whole)) == 0

    def kill_at_7(line, metrics) -> None:
        if metrics.step == 7:
            raise KeyboardInterrupt

    save = checkpoint.save

    def save_when_due(run, folder) -> None:  # a killed program saves nothing on its way out
        if run.step % run.config.checkpoint_every == 0:
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


def test_a_longer_run_continues_a_finished_one(tiny_settings, tmp_path):
    out = tmp_path / "out"
    assert call("generate", *tiny_settings, "--out", str(out), "--steps", "2") == 0
    assert call("resume", str(out), "--steps", "3") == 0
    assert [json.loads(line)["step"] for line in (out / "metrics.jsonl").read_text().splitlines()] == [1, 2, 3]
    assert json.loads((out / "config.json").read_text())["steps"] == 3
    assert call("resume", str(out), "--steps", "1") == 2


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
    assert call("mesh", str(out), "--out", str(tmp_path / "chair.doc")) == 2
    assert ".glb" in capsys.readouterr().err


def test_a_damaged_checkpoint_is_named(tiny_settings, tmp_path, capsys):
    out = tmp_path / "out"
    assert call("generate", *tiny_settings, "--out", str(out), "--steps", "1") == 0
    tensors = next((out / "checkpoint").glob("*.safetensors"))
    tensors.write_bytes(tensors.read_bytes()[:100])
    before = files(out)
    assert call("resume", str(out)) == 2
    assert "damaged or cut short" in capsys.readouterr().err
    assert files(out) == before


def test_a_config_of_a_run_runs_again(tiny_settings, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    assert call("generate", *tiny_settings, "--out", str(first), "--steps", "2", "--seed", "5") == 0
    assert call("generate", "--config", str(first / "config.json"), "--out", str(second)) == 0
    assert files(first) == files(second)
    assert from_json(type(preset("fast")), json.loads((first / "config.json").read_text())).seed == 5


def test_a_prior_draws_what_it_is_asked(tiny_prior, tmp_path, capsys):
    out = tmp_path / "s.png"
    given = ("prior", "sample", "a red chair", "--prior", str(tiny_prior), "--steps", "2", "--out", str(out))
    assert call(*given) == 0
    assert out.read_bytes().startswith(b"\x89PNG")
    assert call(*given[:2], "a zeppelin", *given[3:]) == 2
    assert "zeppelin" in capsys.readouterr().err


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
    assert f"torch {torch.__version__}" in out
    assert f"{len(os.sched_getaffinity(0))} cores" in out
    assert (code == 0) == ("MISSING" not in out)
    assert ("ready: try" in out) == (code == 0)
