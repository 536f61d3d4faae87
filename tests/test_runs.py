"""The run folder: what it refuses, what it keeps, and that files are whole or not there."""

import errno
import json
import os
from itertools import islice
from pathlib import Path

import pytest

from dreamfusion.errors import UserError
from dreamfusion.files import numbered, replacing, require_new_file, write_json, write_text
from dreamfusion.runs import RunFolder, default_folder

CONFIG = {"prompt": "a café", "seed": 3}


def test_create_writes_the_config_and_open_finds_it(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path / "deep" / "run", CONFIG)
    assert RunFolder.open(run.path).read_config() == CONFIG
    assert run.media.is_dir()


def test_create_takes_an_empty_folder(tmp_path: Path) -> None:
    assert RunFolder.create(tmp_path, CONFIG).config.is_file()


def test_create_never_overwrites(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path / "run", CONFIG)
    with pytest.raises(UserError, match=r"not empty.*--out.*dreamfusion resume"):
        RunFolder.create(run.path, {"seed": 4})
    assert run.read_config() == CONFIG


def test_create_beside_foreign_files_does_not_speak_of_resuming(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(UserError, match="--out") as caught:
        RunFolder.create(tmp_path, CONFIG)
    assert "resume" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize("below", ["file", "file/run"])
def test_create_refuses_a_file_and_a_place_below_one(tmp_path: Path, below: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="choose another --out"):
        RunFolder.create(tmp_path / below, CONFIG)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="the superuser may write anywhere")
def test_create_refuses_a_parent_without_write_permission(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(UserError, match="cannot write"):
        RunFolder.create(tmp_path / "run", CONFIG)


def test_open_refuses_what_is_no_run_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no run folder"):
        RunFolder.open(tmp_path)
    with pytest.raises(UserError, match="no folder"):
        RunFolder.open(tmp_path / "nowhere")


@pytest.mark.parametrize("content", ['{"seed": ', "[1, 2]", "\xff"])
def test_a_damaged_config_is_named(tmp_path: Path, content: str) -> None:
    run = RunFolder.create(tmp_path, CONFIG)
    run.config.write_text(content, encoding="latin-1")
    with pytest.raises(UserError, match=r"config.json"):
        run.read_config()


@pytest.mark.parametrize(
    ("prompt", "name"),
    [
        ("../../etc/passwd", "etc-passwd-7"),
        ("une théière", "une-theiere-7"),
        ("茶壺", "prompt-7"),
        ("x" * 500, "x" * 60 + "-7"),
    ],
)
def test_default_folder_is_one_plain_short_name(tmp_path: Path, prompt: str, name: str) -> None:
    assert default_folder(prompt, 7, tmp_path) == tmp_path / name


def test_rewound_metrics_go_on_like_an_unbroken_run(tmp_path: Path) -> None:
    unbroken, resumed = (RunFolder.create(tmp_path / name, CONFIG) for name in ("unbroken", "resumed"))
    for step in range(10, 60, 10):
        unbroken.log({"step": step, "loss": 1 / step})
    for step in range(
        10, 50, 10
    ):  # killed after step 40, while step 45 was being written; the checkpoint is from step 25
        resumed.log({"step": step, "loss": 1 / step})
    with resumed.metrics.open("a") as file:
        file.write('{"step": 45, "lo')
    assert [record["step"] for record in resumed.read_metrics()] == [10, 20, 30, 40]
    resumed.rewind_metrics(25)
    for step in range(30, 60, 10):
        resumed.log({"step": step, "loss": 1 / step})
    assert resumed.metrics.read_bytes() == unbroken.metrics.read_bytes()


def test_rewinding_to_a_logged_step_keeps_it(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path, CONFIG)
    run.rewind_metrics(0)
    assert not run.metrics.exists()
    assert run.read_metrics() == []
    for step in (1, 2, 3):
        run.log({"step": step})
    run.rewind_metrics(2)
    assert run.read_metrics() == [{"step": 1}, {"step": 2}]


@pytest.mark.parametrize("line", ['{"st', "{}", "[2]", '{"step": "two"}'])
def test_metrics_damaged_in_the_middle_are_named(tmp_path: Path, line: str) -> None:
    run = RunFolder.create(tmp_path, CONFIG)
    run.metrics.write_text(f'{{"step": 1}}\n{line}\n{{"step": 3}}\n')
    with pytest.raises(UserError, match=r"metrics.jsonl"):
        run.rewind_metrics(2)


def test_metrics_and_config_refuse_what_is_no_number(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path, CONFIG)
    with pytest.raises(ValueError):
        run.log({"step": 1, "loss": float("nan")})
    assert run.read_metrics() == []
    with pytest.raises(ValueError):
        write_json(run.config, {"seed": float("inf")})
    assert run.read_config() == CONFIG


def test_a_failed_write_leaves_the_old_file_and_no_rest(tmp_path: Path) -> None:
    target = tmp_path / "file.bin"
    write_text(target, "old")

    def interrupted() -> None:
        with replacing(target) as part:
            part.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert target.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["file.bin"]


def test_a_full_disk_is_explained_and_the_old_file_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "file.bin"
    write_text(target, "old")

    def full(self: Path, content: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(UserError, match=r"disk is full.*file.bin"):
        write_text(target, "new")
    assert target.read_text() == "old"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_while_logging_is_explained(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path, CONFIG)
    run.metrics.symlink_to("/dev/full")
    with pytest.raises(UserError, match="disk is full"):
        run.log({"step": 1})


def test_a_place_that_cannot_be_written_is_explained(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for place in ("missing", "file"):
        with pytest.raises(UserError, match=r"x\.json was not written: check the folder"):
            write_text(tmp_path / place / "x.json", "x")


def test_other_errors_pass_unchanged(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="no such colour"), replacing(tmp_path / "file"):
        raise OSError("no such colour")  # as picture libraries complain
    assert list(tmp_path.iterdir()) == []


def test_new_files_replace_none(tmp_path: Path) -> None:
    taken = tmp_path / "a.b.png"
    taken.write_text("")
    assert list(islice(numbered(taken), 3)) == [taken, tmp_path / "a.b-1.png", tmp_path / "a.b-2.png"]
    require_new_file(tmp_path / "a.b-1.png", [".png"])
    require_new_file(taken, [".png"], or_next=True)
    for path, message in (
        (taken, "exists: choose another --out"),
        (tmp_path / "x.gif", r"one of the suffixes \.png, \.jpg"),
        (tmp_path / "nowhere" / "x.png", "there is no folder"),
        (taken / "x.png", "there is no folder"),
    ):
        with pytest.raises(UserError, match=message):
            require_new_file(path, [".png", ".jpg"])


def test_json_is_readable_and_complete(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", CONFIG)
    text = (tmp_path / "a.json").read_text(encoding="utf-8")
    assert "a café" in text
    assert json.loads(text) == CONFIG
