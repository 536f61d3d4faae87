"""Checkpoints: exact, and whole at every moment."""

import builtins
import contextlib
import errno
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from dreamfusion import checkpoint
from dreamfusion.checkpoint import load, save
from dreamfusion.config import LearnedBackground, MlpFieldConfig
from dreamfusion.errors import UserError
from dreamfusion.loop import Run, optimise, prompt_table, start

pytestmark = pytest.mark.processor

CPU = torch.device("cpu")


def go(run: Run, prior, until: int) -> list[dict[str, object]]:
    return [metrics.record() for metrics in optimise(run, prior, prompt_table(run.config, prior), until)]


def everything(run: Run) -> dict[str, torch.Tensor]:
    """All state there is, by walking the objects rather than by the names of the file."""
    moments = {
        f"{index}.{name}": value
        for index, parameter in enumerate(run.scene.parameters())
        for name, value in run.optimiser.state[parameter].items()
    }
    return {**run.scene.state_dict(), **moments, "generator": run.generator.get_state()}


def assert_same(a: Run, b: Run) -> None:
    assert (a.step, a.config) == (b.step, b.config)
    left, right = everything(a), everything(b)
    assert left.keys() == right.keys()
    assert [name for name in left if not torch.equal(left[name], right[name])] == []


def paper_like(config):
    scene = replace(
        config.scene, field=MlpFieldConfig(levels=3, blocks=1, width=8), background=LearnedBackground(2, 1, 8)
    )
    return replace(config, scene=scene)


@pytest.mark.parametrize("change", [lambda config: config, paper_like], ids=["grid", "mlp"])
def test_n_steps_and_m_steps_are_n_plus_m_steps_bit_for_bit(tiny_config, disc_prior, tmp_path, change):
    config = change(tiny_config)
    whole = start(config, CPU)
    told = go(whole, disc_prior, 12)
    first = start(config, CPU)
    told_first = go(first, disc_prior, 7)
    save(first, tmp_path / "c")
    second = load(tmp_path / "c", CPU)
    assert_same(second, first)
    assert told_first + go(second, disc_prior, 12) == told
    assert_same(second, whole)


def test_a_run_before_its_first_step_is_saved_too(tiny_config, disc_prior, tmp_path):
    run = start(tiny_config, CPU)
    save(run, tmp_path)
    again = load(tmp_path, CPU)
    go(run, disc_prior, 3), go(again, disc_prior, 3)
    assert_same(run, again)


def test_a_run_at_its_end_is_loaded_too(tiny_config, disc_prior, tmp_path):
    run = start(tiny_config, CPU)
    go(run, disc_prior, tiny_config.steps)
    save(run, tmp_path)
    assert_same(load(tmp_path, CPU), run)


def test_only_the_last_state_stays_on_disk_and_nothing_is_pickled(tiny_config, disc_prior, tmp_path):
    run = start(tiny_config, CPU)
    for until in (1, 2, 3):
        go(run, disc_prior, until)
        save(run, tmp_path)
    head = json.loads((tmp_path / "checkpoint.json").read_text())
    assert {path.name for path in tmp_path.iterdir()} == {"checkpoint.json", head["tensors"]}
    assert head["step"] == 3
    assert head["tensors"].endswith(".safetensors")


class Killed(BaseException):
    """What a kill looks like from inside: nothing catches it."""


class Fuse:
    """Burns through at the k-th file operation, before or after it took place."""

    def __init__(self, monkeypatch, after: int, late: bool) -> None:
        self.left, self.late = after, late
        for owner, name in ((os, "replace"), (os, "fsync"), (Path, "unlink"), (Path, "mkdir"), (builtins, "open")):
            monkeypatch.setattr(owner, name, self.guarded(getattr(owner, name)))

    def guarded(self, operation):
        def step(*args, **kwargs):
            self.left -= 1
            if self.left == 0 and not self.late:
                raise Killed
            result = operation(*args, **kwargs)
            if self.left == 0:
                if hasattr(result, "close"):
                    result.close()
                raise Killed
            return result

        return step


@pytest.mark.anywhere
@pytest.mark.parametrize("late", [False, True])
def test_a_kill_at_any_moment_leaves_a_checkpoint_that_loads(tiny_config, disc_prior, tmp_path, late):
    old, new = start(tiny_config, CPU), start(tiny_config, CPU)
    go(old, disc_prior, 2), go(new, disc_prior, 4)
    found = []
    for moment in range(1, 100):
        folder = tmp_path / str(moment)
        save(old, folder)
        with pytest.MonkeyPatch.context() as monkeypatch:
            fuse = Fuse(monkeypatch, moment, late)
            with contextlib.suppress(Killed):
                save(new, folder)
        survivor = load(folder, CPU)
        found.append(survivor.step)
        assert_same(survivor, {2: old, 4: new}[survivor.step])
        save(new, folder)  # and the next save tidies up
        assert len(list(folder.iterdir())) == 2
        if fuse.left > 0:
            break
    assert len(found) > 7
    assert found == sorted(found)
    assert {found[0], found[-1]} == {2, 4}


def test_a_full_disk_is_said_and_loses_nothing(tiny_config, disc_prior, tmp_path, monkeypatch):
    run = start(tiny_config, CPU)
    save(run, tmp_path)
    go(run, disc_prior, 2)

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match="disk is full"):
        save(run, tmp_path)
    assert load(tmp_path, CPU).step == 0


def test_a_folder_that_cannot_be_made_is_said(tiny_config, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="no checkpoint written"):
        save(start(tiny_config, CPU), tmp_path / "file" / "checkpoint")


def _truncate(folder: Path) -> None:
    path = next(folder.glob("*.safetensors"))
    path.write_bytes(path.read_bytes()[:-1])


def _flip_a_bit(folder: Path) -> None:
    path = next(folder.glob("*.safetensors"))
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(bytes(content))


def _edit(**changes: object):
    def edit(folder: Path) -> None:
        head = json.loads((folder / "checkpoint.json").read_text())
        (folder / "checkpoint.json").write_text(json.dumps({**head, **changes}))

    return edit


DAMAGE = {
    "no head": (lambda folder: (folder / "checkpoint.json").unlink(), "no checkpoint in"),
    "torn head": (
        lambda folder: (folder / "checkpoint.json").write_text('{"format": 1, "st'),
        r"checkpoint\.json cannot be read as JSON",
    ),
    "list": (lambda folder: (folder / "checkpoint.json").write_text("[]"), "damaged"),
    "no tensors": (lambda folder: next(folder.glob("*.safetensors")).unlink(), "cannot be read"),
    "truncated": (_truncate, "damaged or cut short"),
    "flipped": (_flip_a_bit, "damaged or cut short"),
    "format": (_edit(format=99), "format 99"),
    "elsewhere": (_edit(tensors="../secret.safetensors"), "another folder"),
    "step past the end": (_edit(step=13), r"damaged \(step 13\)"),
    "step before the start": (_edit(step=-1), r"damaged \(step -1\)"),
    "setting": (_edit(config={"colour": 1}), "unknown setting colour"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_named(tiny_config, tmp_path, damage):
    save(start(tiny_config, CPU), tmp_path)
    harm, message = DAMAGE[damage]
    harm(tmp_path)
    with pytest.raises(UserError, match=message):
        load(tmp_path, CPU)


def test_tensors_of_another_scene_are_refused(tiny_config, tmp_path):
    save(start(tiny_config, CPU), tmp_path)
    head = json.loads((tmp_path / checkpoint.HEAD).read_text())
    head["config"]["scene"]["field"]["cells"] = [4, 16]
    (tmp_path / checkpoint.HEAD).write_text(json.dumps(head))
    with pytest.raises(UserError, match="does not fit"):
        load(tmp_path, CPU)


def test_a_name_that_no_file_could_have_is_refused(tiny_config, tmp_path):
    checkpoint.save(start(tiny_config, CPU), tmp_path)
    head = json.loads((tmp_path / checkpoint.HEAD).read_text())
    (tmp_path / checkpoint.HEAD).write_text(json.dumps(head | {"tensors": "a\0b"}))
    with pytest.raises(UserError, match="cannot be read"):
        checkpoint.load(tmp_path, CPU)
