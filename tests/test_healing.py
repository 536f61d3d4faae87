"""Runs that go wrong: what is done about them, and what is written down."""

import errno
import json
import shutil
from contextlib import closing
from dataclasses import replace

import pytest
import torch

from dreamfusion import checkpoint, generate, health, stepping
from dreamfusion.config.check import validate
from dreamfusion.config.presets import preset
from dreamfusion.config.serialise import to_json
from dreamfusion.errors import DiskFull, UserError
from dreamfusion.healing import Healing, acting, healing_from, healing_of
from dreamfusion.health import NOT_FINITE, RULES, Finding, Rule
from dreamfusion.loop import Diverged
from dreamfusion.schedules import Constant

CPU = torch.device("cpu")
FAST = replace(preset("fast"), prompt="a chair")
EMPTY = Finding("empty", 0.0)


class Breaks:
    """A prior that is one but for its answers to some calls, which are no numbers."""

    def __init__(self, prior, *calls):
        self._prior, self._calls, self._count = prior, calls, 0
        shared = {name for name in dir(prior) if not name.startswith("_")} - {"predict_noise"}
        vars(self).update({name: getattr(prior, name) for name in shared})  # not by __getattr__, which protocols ignore

    def predict_noise(self, noisy, t, text, known):
        self._count += 1
        return self._prior.predict_noise(noisy, t, text, known) * (torch.nan if self._count in self._calls else 1.0)


def made(config, path, prior, until=None):
    """All steps of a new run, or of one that was begun; left after so many of them."""
    job = (
        generate.resume_run(path, "cpu", prior_now=prior)
        if path.exists()
        else generate.create_run(config, path, prior=prior)
    )
    told = []
    with closing(stepping.train(job, lambda doing: None)) as steps:
        for metrics in steps:
            told.append(metrics)
            if len(told) == until:
                break
    return job, told


def test_what_differs_from_the_preset_is_put_back_the_most_suspect_first():
    wild = replace(FAST, optimise=replace(FAST.optimise, grid=2.0), scene=replace(FAST.scene, density_bias=-12.0))
    first = healing_of(EMPTY, 90, 50, wild, ())
    changed = [name for name in to_json(wild) if getattr(acting(wild, [first]), name) != getattr(wild, name)]
    assert len(changed) == 1
    second = healing_of(EMPTY, 90, 50, wild, (first,))
    assert acting(wild, [first, second]) == FAST


def test_what_was_made_with_wrong_settings_is_kept_only_if_it_went_well_for_long():
    heavy = replace(FAST, regularise=replace(FAST.regularise, opacity=Constant(9e9)))
    assert [healing_of(EMPTY, step, 50, heavy, ()).back_to for step in (90, 249, 250, 400)] == [0, 0, 50, 50]
    late = healing_of(EMPTY, 400, 50, heavy, ())
    again = healing_of(EMPTY, 400, 50, heavy, (late,))
    assert (again.remedy, again.changes, again.back_to) == ("the same settings", {}, 0)
    assert healing_of(EMPTY, 400, 50, heavy, (late, again)).remedy == "half the learning rates"
    other = replace(FAST, scene=replace(FAST.scene, density_bias=-12.0))
    assert healing_of(EMPTY, 400, 50, other, ()).back_to == 0


def test_a_run_as_the_preset_has_it_learns_more_slowly():
    healing = healing_of(NOT_FINITE, 90, 50, FAST, ())
    assert healing.back_to == 50
    assert acting(FAST, [healing]).optimise.grid == pytest.approx(FAST.optimise.grid / 2)
    assert replace(acting(FAST, [healing]), optimise=FAST.optimise) == FAST


def test_field_and_law_stay_what_they_were_asked_to_be():
    from dreamfusion.config.kinds import with_kinds

    other = with_kinds(replace(FAST, scene=replace(FAST.scene, radius=3.0)), "mlp", None, "csd")
    other = replace(other, distill=replace(other.distill, guidance_scale=900.0))
    healings = ()
    for _ in range(4):
        healings = (*healings, healing_of(EMPTY, 90, 50, other, healings))
    now = acting(other, healings)
    assert (now.scene.radius, now.distill.guidance_scale) == (1.0, 1.0)
    assert (now.scene.field, now.distill.law) == (other.scene.field, other.distill.law)


def test_a_remedy_that_no_run_could_have_is_passed_over():
    steered = replace(FAST, negative="a toy", distill=replace(FAST.distill, guidance_scale=7.0))
    healings = ()
    for _ in range(3):
        healings = (*healings, healing_of(EMPTY, 90, 50, steered, healings))
    validate(acting(steered, healings))
    assert acting(steered, healings).distill == steered.distill


def test_a_healing_reads_back_as_it_was_written():
    healing = healing_of(EMPTY, 90, 50, replace(FAST, regularise=replace(FAST.regularise, opacity=Constant(9e9))), ())
    assert healing_from(json.loads(json.dumps(healing.record()))) == healing
    with pytest.raises(UserError):
        healing_from({**healing.record(), "changes": {"regularise": 3}})


def test_a_run_that_diverges_is_taken_back_and_finished(tiny_config, disc_prior, tmp_path):
    config = replace(tiny_config, heal=1)
    job, told = made(config, tmp_path / "run", Breaks(disc_prior, 7))
    assert job.run.step == config.steps
    assert [metrics.step for metrics in told] == [1, 2, 3, 4, 5, 6, *range(5, 13)]
    healed = next(metrics for metrics in told if metrics.healing)
    assert (healed.step, healed.healing.step, healed.healing.back_to) == (5, 6, 4)
    assert "not finite" in str(healed.healing)
    assert sum(metrics.healing is not None for metrics in told) == 1
    written = json.loads(job.folder.healing.read_text())["healings"]
    assert [healing_from(record) for record in written] == [healed.healing]
    assert json.loads(job.folder.config.read_text()) == to_json(job.run.config)
    assert generate.config_of(job.folder.path).optimise == config.optimise
    lines = job.folder.read_metrics()
    assert [line["step"] for line in lines] == list(range(1, 13))
    assert [line.get("healed", 0) for line in lines] == [0] * 4 + [1] * 8
    assert job.run.optimiser.param_groups[0]["base"] == FAST.optimise.grid


def test_no_run_is_healed_more_often_than_it_may_be(tiny_config, disc_prior, tmp_path):
    with pytest.raises(Diverged):
        made(tiny_config, tmp_path / "never", Breaks(disc_prior, 7))
    with pytest.raises(Diverged):
        made(replace(tiny_config, heal=1), tmp_path / "once", Breaks(disc_prior, 7, 12))
    job, _ = made(replace(tiny_config, heal=2), tmp_path / "twice", Breaks(disc_prior, 7, 12))
    assert [healing.back_to for healing in job.run.healings] == [4, 0]


@pytest.fixture
def dull(monkeypatch):
    """Runs count as empty from their sixth step on, while they were not healed."""
    monkeypatch.setattr(health, "WINDOW", 2)

    def figure(first, last):
        return 0.0 if last[-1]["step"] > 5 and not last[-1].get("healed") else 1.0

    rule = Rule("nothing", figure, 0.5, False, 0.0, "more", RULES["empty"].suspects)
    monkeypatch.setattr(health, "RULES", {"empty": rule})


def test_a_healed_run_that_was_interrupted_is_one_that_was_not(tiny_config, disc_prior, tmp_path, dull):
    config = replace(tiny_config, heal=2)
    whole, told = made(config, tmp_path / "whole", disc_prior)
    assert any(metrics.healing for metrics in told)
    for left in (3, 5, 6, 7, 9):
        made(config, tmp_path / str(left), disc_prior, until=left)
        parts, rest = made(config, tmp_path / str(left), disc_prior)
        assert parts.run.healings == whole.run.healings != ()
        assert parts.folder.metrics.read_bytes() == whole.folder.metrics.read_bytes()
        assert parts.folder.healing.read_bytes() == whole.folder.healing.read_bytes()
        heads = [json.loads((job.folder.checkpoint / checkpoint.HEAD).read_text()) for job in (parts, whole)]
        assert heads[0] == heads[1]
        assert [metrics.healing for metrics in rest].count(None) >= len(rest) - 1


def test_a_disk_that_is_full_at_an_interruption_costs_the_steps_since_the_checkpoint_alone(
    tiny_config, disc_prior, tmp_path, dull, monkeypatch
):
    config = replace(tiny_config, heal=2)
    whole, _ = made(config, tmp_path / "whole", disc_prior)

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "copyfile", full)
        with pytest.raises(DiskFull, match="what was saved before is intact"):
            made(config, tmp_path / "parts", disc_prior, until=5)
    parts, _ = made(config, tmp_path / "parts", disc_prior)
    assert parts.folder.metrics.read_bytes() == whole.folder.metrics.read_bytes()


def test_what_is_found_is_told_logged_and_in_the_page(tiny_config, disc_prior, tmp_path, dull):
    job, told = made(tiny_config, tmp_path / "run", disc_prior)
    assert [[finding.name for finding in metrics.findings] for metrics in told] == [[]] * 5 + [["empty"]] * 7
    assert ["findings" in line for line in job.folder.read_metrics()] == [False] * 5 + [True] * 7
    assert not job.folder.healing.exists()
    generate.finish(job.run, job.folder, lambda doing: None)
    assert "empty: nothing (0, below 0.5): more" in job.folder.index.read_text()


def test_damaged_healings_are_named(tiny_config, disc_prior, tmp_path):
    job, _ = made(replace(tiny_config, heal=1), tmp_path / "run", Breaks(disc_prior, 7))
    path = job.folder.checkpoint / checkpoint.HEAD
    head = json.loads(path.read_text())
    for wrong in ([{}], [3], {"a": 1}, [{**head["healings"][0], "changes": {"optimise": {}}}], 7):
        path.write_text(json.dumps({**head, "healings": wrong}))
        with pytest.raises(UserError, match="damaged"):
            checkpoint.load(job.folder.checkpoint, CPU)


def test_who_cannot_begin_again_is_refused(tiny_config, disc_prior, tmp_path):
    for asked in ({"heal": 1}, {"candidates": 2}):
        config = replace(tiny_config, **asked)
        with pytest.raises(UserError, match="law"):
            generate.create_run(config, tmp_path / "run", prior=disc_prior, law=lambda at: at.guided() - at.eps)
    assert not (tmp_path / "run").exists()


def test_a_checkpoint_says_what_was_asked_and_what_is_done(tiny_config, disc_prior, tmp_path):
    job, _ = made(replace(tiny_config, heal=1), tmp_path / "run", Breaks(disc_prior, 7))
    run = checkpoint.load(job.folder.checkpoint, CPU)
    assert run.config.optimise == tiny_config.optimise
    assert run.acting.optimise != tiny_config.optimise
    assert isinstance(run.healings[0], Healing)
