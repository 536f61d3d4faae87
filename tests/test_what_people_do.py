"""What people do to a command line: two at once, other users' folders, odd texts, closed pipes, left-over variables."""

import io
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from dataclasses import fields, replace
from pathlib import Path
from typing import get_args

import pytest
import torch

from dreamfusion import checkpoint, compose, generate, stepping
from dreamfusion import distributed as processes
from dreamfusion.claims import owned
from dreamfusion.cli import arguments
from dreamfusion.cli import main as cli
from dreamfusion.cli.interrupt import Ended, ending, interruptible
from dreamfusion.cli.progress_line import ProgressLine
from dreamfusion.cli.streams import patient
from dreamfusion.config import Config
from dreamfusion.config.serialise import to_json
from dreamfusion.errors import UserError
from dreamfusion.evaluate import session
from dreamfusion.evaluate.session import Session
from dreamfusion.loop import prompt_table
from dreamfusion.runs import RunFolder
from test_cli import call, files
from test_evaluate_measures import Says


@pytest.fixture
def run(tiny_config, disc_prior, tmp_path, monkeypatch) -> Path:
    """A run that was begun, with a mesh that an asset can be."""
    monkeypatch.setattr(generate, "open_parts", lambda config, *_: (disc_prior, prompt_table(config, disc_prior)))
    monkeypatch.setattr(generate.provenance, "prior_digest", lambda config: "0" * 64)
    generate.create_run(tiny_config, tmp_path / "run")
    return tmp_path / "run"


def refused(capsys, *given: str) -> str:
    """The one line with which a command is refused, after what it said before."""
    assert call(*given) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "Traceback" not in err
    assert [line.startswith("error: ") for line in err.splitlines()].index(True) == err.count("\n") - 1, err
    return err.splitlines()[-1]


# Two at once


def test_the_folder_is_there_before_the_prior_and_goes_if_that_is_refused(tiny_settings, tmp_path, monkeypatch, capsys):
    seen = []

    def refuse(*given):
        seen.append(sorted(path.name for path in Path("runs").iterdir()))
        raise UserError("no such prior")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(generate, "open_parts", refuse)
    (tmp_path / "runs" / "a-red-chair-0").mkdir(parents=True)
    assert "no such prior" in refused(capsys, *tiny_settings)
    assert seen == [["a-red-chair-0", "a-red-chair-0-1"]]
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["a-red-chair-0"]


def test_who_writes_into_a_run_is_alone_and_who_reads_is_not(run, tmp_path, monkeypatch, capsys):
    before = files(run)
    monkeypatch.setattr(generate, "export_mesh", lambda run, paths, *_: (paths, "a report"))
    with owned(run):
        for command in ("resume", "mesh", "video"):
            assert f"{run} is in use by process {os.getpid()} on " in refused(capsys, command, str(run))
        assert "in use" in refused(capsys, "evaluate", "--runs", str(run), "--out", str(tmp_path / "evaluation"))
        (tmp_path / "chair.stl").unlink(missing_ok=True)
        monkeypatch.setattr(generate, "export_mesh", lambda run, paths, *_: (paths[0].write_text("x") and paths, ""))
        assert call("mesh", str(run), "--out", str(tmp_path / "chair.stl")) == 0
    assert files(run) == before


def test_one_evaluation_at_a_time_in_a_folder(tmp_path, capsys):
    with owned(tmp_path / "evaluation"):
        assert "evaluation is in use by" in refused(capsys, "evaluate", "--out", str(tmp_path / "evaluation"))
    assert list(tmp_path.iterdir()) == []


def test_prompts_of_an_evaluation_never_share_a_folder(tmp_path):
    found = session._folders(["a café", "a cafe", "茶壺", "花瓶"], 3, tmp_path)
    assert [path.name for path in found.values()] == ["a-cafe-3", "a-cafe-3-1", "prompt-3", "prompt-3-1"]


def test_a_checkpoint_that_is_replaced_while_it_is_read_is_read_again(run, monkeypatch):
    folder = run / "checkpoint"
    read, older = checkpoint._read_head, checkpoint._read_head(folder)
    later = generate.open_run(run, "cpu")[1]
    later.step = 1
    later.generator.manual_seed(9)
    checkpoint.save(later, folder)
    heads = iter([older])
    monkeypatch.setattr(checkpoint, "_read_head", lambda place: next(heads, None) or read(place))
    assert checkpoint.load(folder, torch.device("cpu")).step == 1


# Permissions


@pytest.fixture
def open_place():
    """A folder that everybody may enter: pytest's own are closed to other users."""
    place = Path(tempfile.mkdtemp())
    place.chmod(0o755)
    yield place
    shutil.rmtree(place)


@pytest.fixture
def as_stranger():
    """Call something as another user; without the right to, the modes below close files to their owner as well."""

    def call_as(function, *given):
        if os.geteuid() != 0:
            return function(*given)
        os.seteuid(65534)
        try:
            return function(*given)
        finally:
            os.seteuid(0)

    return call_as


CLOSED = {
    "": ("resume", "mesh", "video", "evaluate", "compose"),
    "config.json": ("resume", "mesh", "video", "evaluate"),
    "checkpoint": ("resume", "mesh", "video", "evaluate"),
    "checkpoint/checkpoint.json": ("mesh",),
    "checkpoint/TENSORS": ("mesh",),
}


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="no users as Unix has them")
@pytest.mark.parametrize("closed", CLOSED)
def test_permission_denied_is_not_damage(run, open_place, as_stranger, capsys, monkeypatch, closed):
    told = Session(open_place / "evaluation", Says(1.0, 0.0), generate.config_of(run), 1)
    monkeypatch.setattr(session, "new_session", lambda *_: told)
    monkeypatch.setattr(session, "SUITES", ())  # which are files of the package, perhaps in a folder of root's
    place = open_place / "run"
    shutil.move(run, place)
    place.chmod(0o777)  # so that there can be a lock
    tensors = next((place / "checkpoint").glob("*.safetensors")).name
    barrier = place / closed.replace("TENSORS", tensors)
    barrier.chmod(0)
    assert compose  # a stranger may not be able to import it
    (open_place / "scene.json").write_text('{"assets": [{"file": "run"}]}')
    given = {
        "evaluate": ("evaluate", "--runs", str(place), "--out", str(open_place / "evaluation")),
        "compose": ("compose", str(open_place / "scene.json"), "--out", str(open_place / "out")),
        "mesh": ("mesh", str(place), "--out", str(open_place / "x.stl")),
    }
    open_place.chmod(0o777)
    mode = stat.filemode(barrier.stat().st_mode)
    for command in CLOSED[closed]:
        err = as_stranger(refused, capsys, *given.get(command, (command, str(place))))
        assert "permission denied for" in err
        assert f"{barrier} is {mode} of user" in err
        assert "damaged" not in err
        assert "new run" not in err
    barrier.chmod(0o700)


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="no users as Unix has them")
def test_a_run_that_cannot_be_written_is_named(run, open_place, as_stranger, capsys):
    place = open_place / "run"
    shutil.move(run, place)
    place.chmod(0o555)
    err = as_stranger(refused, capsys, "resume", str(place))
    assert f"{place} is dr-xr-xr-x of user" in err
    assert "permission denied" in as_stranger(refused, capsys, "video", str(place))
    place.chmod(0o755)


# Texts that are none


@pytest.mark.parametrize(
    "given",
    [
        ("a red ch\udcffair",),
        ("a chair", "--negative", "\udcff"),
        ("a chair", "--out", "b\udce9b\udce9"),
        ("resume", "b\udce9b\udce9"),
        ("prior", "sample", "\ud800"),
    ],
)
def test_bytes_that_are_no_text_are_refused(capsys, given):
    assert "no text, '" in refused(capsys, *given)


@pytest.mark.parametrize("command", ["resume", "mesh", "video", "refine", "compose", "batch"])
def test_paths_that_are_too_long_are_refused(capsys, command):
    assert "too long for the name of a file" in refused(capsys, command, "x" * 300)


def test_files_whose_text_is_none_are_refused(tiny_config, tmp_path, capsys):
    config = json.dumps(to_json(replace(tiny_config, prompt="a ball \ud800")))
    contents = {
        "config": config.encode(),
        "scene": b'{"assets": [{"file": "\\ud800.glb"}]}',
        "title": b'{"title": "\\ud800", "assets": [{"file": "x.glb"}]}',
        "bytes": b'{"assets": [{"file": "\xff.glb"}]}',
        "prompts": b"a chair\na \xff\n",
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    for name in ("scene", "title", "bytes"):
        err = refused(capsys, "compose", str(tmp_path / name), "--out", str(tmp_path / "out"))
        assert "surrogates not allowed" in err or "can't decode byte 0xff" in err
    assert "surrogates not allowed" in refused(capsys, "--config", str(tmp_path / "config"))
    evaluation = ("--prompts", str(tmp_path / "prompts"), "--out", str(tmp_path / "out"))
    assert "can't decode byte 0xff" in refused(capsys, "evaluate", *evaluation)
    assert not (tmp_path / "out").exists()


# Output that nobody takes


class Ascii(io.TextIOWrapper):
    """A terminal of a plain system."""

    def __init__(self) -> None:
        super().__init__(io.BytesIO(), "ascii")


def test_what_comes_after_the_products_does_not_fail_them(run, monkeypatch, capsys):
    place = run.with_name("stühlchen")
    run.rename(place)
    monkeypatch.setattr(generate, "finish", lambda run, folder, *_: [folder.config, folder.index])
    (place / "index.html").touch()
    monkeypatch.setattr(stepping, "train", lambda *_: iter_of_nothing())
    monkeypatch.setattr(sys, "stdout", Ascii())
    monkeypatch.setitem(sys.modules, "resource", None)  # as on Windows
    assert call("resume", str(place)) == 0
    assert b"st\\xfchlchen" in sys.stdout.buffer.getvalue()
    assert "peak memory" not in capsys.readouterr().err


def iter_of_nothing():
    yield from ()


def test_readers_may_leave(monkeypatch):
    read, write = os.pipe()
    os.close(read)
    with open(write, "w") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        with patient():
            for _ in range(3):
                sys.stdout.write("a long line " * 1000)
                sys.stdout.flush()


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_a_closed_pipe_ends_no_command(stream):
    read, write = os.pipe()
    os.close(read)
    other = {"stdout": "stderr", "stderr": "stdout"}[stream]
    given = ["--help"] if stream == "stdout" else ["resume", "nowhere"]
    process = subprocess.run(
        [sys.executable, "-m", "dreamfusion", *given], check=False, **{stream: write, other: subprocess.PIPE}
    )
    os.close(write)
    assert process.returncode == (0 if stream == "stdout" else 2)
    assert getattr(process, other) == b""


# Variables that are left over


TORCHRUN = {
    "RANK": "1",
    "WORLD_SIZE": "4",
    "LOCAL_RANK": "1",
    "LOCAL_WORLD_SIZE": "2",
    "MASTER_ADDR": "localhost",
    "MASTER_PORT": "29500",
}


@pytest.fixture
def environment(monkeypatch):
    """Set exactly these of torchrun's variables."""

    def chosen(variables):
        for name in TORCHRUN:
            monkeypatch.delenv(name, raising=False)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    return chosen


@pytest.mark.parametrize(
    "left",
    [
        {},
        {"WORLD_SIZE": "4"},
        {"WORLD_SIZE": ""},
        {"LOCAL_WORLD_SIZE": "0"},
        {"LOCAL_RANK": "x"},
        *({name: value for name, value in TORCHRUN.items() if name != missing} for missing in TORCHRUN),
        TORCHRUN | {"MASTER_ADDR": ""},
    ],
)
def test_left_over_variables_mean_nothing(environment, left):
    environment(left)
    assert processes.launched() is None
    assert processes.init_process_group(torch.device("cpu")) is processes.SINGLE_PROCESS
    generate.prepare_process(Config(), "auto")
    assert torch.get_num_threads() >= 1


def test_all_of_torchruns_variables_are_believed(environment):
    environment(TORCHRUN)
    assert processes.launched() == processes.Launch(1, 4, 1, 2)


@pytest.mark.parametrize(
    "change",
    [
        {"WORLD_SIZE": "x"},
        {"WORLD_SIZE": "1"},
        {"RANK": "-1"},
        {"LOCAL_WORLD_SIZE": "0"},
        {"LOCAL_WORLD_SIZE": "5"},
        {"LOCAL_RANK": "2"},
        {"MASTER_PORT": "70000"},
    ],
)
def test_variables_that_make_no_sense_are_told(environment, capsys, change, tiny_settings, tmp_path):
    environment(TORCHRUN | change)
    (name, value), *_ = change.items()
    assert f"{name}={value}" in refused(capsys, *tiny_settings, "--out", str(tmp_path / "out"))


# Paths


RECORDS = {name: kind for name, (kind, _) in cli.COMMANDS.items()}


@pytest.mark.parametrize("command", RECORDS)
def test_a_home_is_expanded_in_every_path(monkeypatch, tmp_path, command):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "x").write_text("{}")
    for field in fields(RECORDS[command]):
        kinds = {field.type, *get_args(field.type)}
        if Path not in kinds or field.name == "config":
            continue
        needed = ["--assets", "a"] if "train" in command else []
        first = {"resume": ["r"], "mesh": ["r"], "video": ["r"], "compose": ["s"], "scene": ["s"], "batch": ["p"]}.get(
            command, []
        )
        if field.name in ("run", "scene", "prompts") and command != "evaluate":
            given = ["~/x"]
        else:
            given = [*first, *needed, f"--{field.name.replace('_', '-')}=~/x"]
        read = arguments.read_generate if command == "generate" else lambda g: arguments.read(RECORDS[command], "", g)
        value = getattr(read(given), field.name)
        assert value in (tmp_path / "x", (tmp_path / "x",)), field.name


def test_a_home_is_expanded_for_settings_and_refused_if_there_is_none(monkeypatch, tmp_path, tiny_config, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "c.json").write_text(json.dumps(to_json(replace(tiny_config, prompt="a frog"))))
    assert arguments.read_generate(["--config=~/c.json"]).settings.prompt == "a frog"
    assert "~nobody-of-that-name/c.json: this home is not known" in refused(
        capsys, "a chair", "--config=~nobody-of-that-name/c.json"
    )


# Words without quotes


@pytest.mark.parametrize("given", [("a", "red", "chair", "--seed", "3"), ("generate", "a", "red", "chair", "--seed=3")])
def test_words_before_the_options_are_the_prompt(monkeypatch, given):
    seen = []
    monkeypatch.setattr(cli, "validate", lambda config: seen.append(config) or stop())
    assert call(*given) == 2
    assert (seen[0].prompt, seen[0].seed) == ("a red chair", 3)


def stop():
    raise UserError("enough")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("--seed", "3", "a", "red", "chair"), "'red chair' is too much"),
        (("a", "--views", "2", "3"), "'3' is too much"),
        (("resume", "my", "run"), "'run' is too much"),
        (("compose", "my", "scene.json"), "'scene.json' is too much"),
        (("resme", "runs/x"), "there is no command resme: did you mean `dreamfusion resume`?"),
        (("evalute", "--suite", "all"), "did you mean `dreamfusion evaluate`?"),
    ],
)
def test_words_without_a_place_are_told(capsys, given, message):
    assert message in refused(capsys, *given)


# Signals


SIGNALS = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}


@pytest.fixture
def heard():
    """Signals as a terminal has them; shells have a command in the background ignore some."""
    before = [signal.signal(signal.SIGINT, signal.default_int_handler), signal.signal(signal.SIGHUP, signal.SIG_DFL)]
    yield
    for number, handler in zip((signal.SIGINT, signal.SIGHUP), before, strict=True):
        signal.signal(number, handler)


@pytest.mark.usefixtures("heard")
@pytest.mark.parametrize("number", SIGNALS)
def test_the_first_signal_asks_and_the_second_one_ends(number):
    before = signal.getsignal(number)
    with interruptible() as stop:
        assert not stop.is_set()
        signal.raise_signal(number)
        assert stop.is_set()
        assert stop.code == SIGNALS[number]
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(number) is before


def test_a_request_to_end_clears_away_and_an_ignored_one_is_none(monkeypatch):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with ending(), interruptible() as stop:
            signal.raise_signal(signal.SIGHUP)  # as under nohup
            assert not stop.is_set()
        with pytest.raises(Ended) as caught, ending():
            signal.raise_signal(signal.SIGTERM)
        assert caught.value.code == 143
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_run_that_is_told_to_end_saves_and_goes_on(tiny_settings, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(generate, "finish", lambda run, folder, *_: [folder.index] if run.step == 12 else [])
    monkeypatch.setattr(cli, "listed", lambda files: "")
    whole, out, show = tmp_path / "whole", tmp_path / "out", ProgressLine.show
    assert call("generate", *tiny_settings, "--out", str(whole)) == 0
    with monkeypatch.context() as patch:
        patch.setattr(
            ProgressLine, "show", lambda line, m: (show(line, m), m.step == 6 and signal.raise_signal(signal.SIGTERM))
        )
        assert call("generate", *tiny_settings, "--out", str(out)) == 143
    assert f"stopped after step 6; continue with: dreamfusion resume {out}" in capsys.readouterr().err
    assert call("resume", str(out)) == 0
    assert files(out) == files(whole)


def test_a_request_to_end_while_products_are_made_stops_after_the_current_one(run, monkeypatch, capsys):
    monkeypatch.setattr(stepping, "train", lambda *_: iter_of_nothing())
    monkeypatch.setattr(generate, "write_video", lambda *_: signal.raise_signal(signal.SIGTERM) or [])
    assert call("resume", str(run)) == 143
    assert f"continue with: dreamfusion resume {run}" in capsys.readouterr().err
    assert not RunFolder(run).mesh.exists()


def test_a_command_that_is_told_to_end_before_its_first_step_leaves_nothing(tiny_settings, tmp_path, monkeypatch):
    monkeypatch.setattr(generate, "open_parts", lambda *_: signal.raise_signal(signal.SIGTERM))
    assert call("generate", *tiny_settings, "--out", str(tmp_path / "out")) == 143
    assert not (tmp_path / "out").exists()


# Silence


def test_every_stage_is_named_while_it_works(run, capsys, monkeypatch):
    config = generate.config_of(run)
    monkeypatch.setattr(generate.video, "write_mp4", lambda *_: None)
    monkeypatch.setattr(generate.video, "write_webp", lambda *_: None)
    monkeypatch.setattr("dreamfusion.cli.products.listed", lambda files: "")
    assert call("video", str(run), "--frames", "2", "--size", "16") == 0
    err = capsys.readouterr().err
    assert err.splitlines() == [
        "2 frames of the turntable ...",
        "turntable.mp4 and turntable.webp ...",
        "contact sheet ...",
    ]
    assert call("mesh", str(run), "--faces", "200", "--texture-size", "64") == 0
    words = [line.split()[0] for line in capsys.readouterr().err.splitlines()]
    assert words[:2] == ["renderings", "surface"]
    assert words[3:] == ["texture", "shape", "comparison", "writing"]
    assert config.output.mesh_resolution == 16


def test_many_triangles_are_warned_of():
    from dreamfusion.mesh.asset import _patience

    assert _patience(20_000) == ""
    assert _patience(240_000) == ": some 4 minutes"


def test_without_a_terminal_the_products_are_named_line_by_line(capsys):
    with ProgressLine(3, 3) as line:
        line.say("turntable")
        line.say("turntable")
        line.say("mesh")
    assert capsys.readouterr().err.rstrip("\n") == "turntable ...\nmesh ..."  # older releases add an empty line
    with ProgressLine(0, 3) as line:
        line.say("optimising")
    assert capsys.readouterr().err.rstrip("\n") == ""
