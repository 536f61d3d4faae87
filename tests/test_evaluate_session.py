"""Evaluations from beginning to end: runs that are made, resumed, stopped, judged; the ablation; samples; the doors."""

import json
import re
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from PIL import Image

from dreamfusion import generate
from dreamfusion.batch.watch import Watch
from dreamfusion.batch.work import KeptPrior
from dreamfusion.cli import main as cli
from dreamfusion.config.presets import preset
from dreamfusion.config.serialise import to_json
from dreamfusion.diffusion.priors import open_prior
from dreamfusion.errors import NoSurface, UserError
from dreamfusion.evaluate import ablation, making, samples, session
from dreamfusion.evaluate.evaluation_views import KINDS, SIZE, VIEWS, Views, read_views, save_views
from dreamfusion.evaluate.making import Task, make, make_all, pictures_of
from dreamfusion.evaluate.session import Session
from dreamfusion.evaluate.suites import suite
from dreamfusion.evaluate.truth import FIGURES, open_truths, save_thing
from dreamfusion.loop import prompt_table
from dreamfusion.runs import RunFolder
from test_evaluate_measures import PROMPTS, Says, StubJudge, views_with


@pytest.fixture(autouse=True)
def _quiet(monkeypatch, disc_prior):
    """No process changes torch for the other tests, and every prior is a red disc."""
    monkeypatch.setattr(generate, "prepare_process", lambda *_: None)
    monkeypatch.setattr(generate, "open_parts", lambda config, *_: (disc_prior, prompt_table(config, disc_prior)))
    monkeypatch.setattr(KeptPrior, "__call__", lambda self, *parts: generate.open_parts(*parts))


@pytest.fixture
def task(tiny_config, tmp_path) -> Task:
    output = replace(tiny_config.output, samples=4)
    return Task(replace(tiny_config, output=output), tmp_path / "a-ball-0")


UNWATCHED = Watch()


def never() -> bool:
    return False


# Making


def made(task: Task, watch: Watch = UNWATCHED, files: bool = True) -> bool:
    return make(task.config, task.folder, watch, KeptPrior(), files)


def no_pictures(*_) -> Views:
    return views_with(torch.zeros(3, VIEWS, SIZE, SIZE, 3))


def test_a_run_is_a_normal_run_with_pictures_beside_it(task):
    assert made(task)
    run = RunFolder(task.folder)
    assert run.sheet.exists()
    assert run.turntable_mp4.exists()
    assert len(run.read_metrics()) == task.config.steps
    seen = read_views(pictures_of(task.folder))
    pictures = seen.pictures
    assert seen.opacity[:, SIZE // 2, SIZE // 2].min() > seen.opacity[:, 0, 0].max()  # something before nothing
    assert pictures.shape == (3, VIEWS, SIZE, SIZE, 3)
    corner = pictures[:, :, 0, 0]
    assert torch.allclose(corner, torch.full_like(corner, 0.7), atol=0.01)
    textureless = pictures[KINDS.index("textureless")]
    assert (textureless.amax(-1) - textureless.amin(-1)).max() <= 1.5 / 255


def test_a_stopped_run_goes_on_and_ends_as_an_unbroken_one(task, tmp_path, monkeypatch):
    told: list[int] = []
    monkeypatch.setattr(making, "evaluation_views", no_pictures)
    watch = Watch(stepped=lambda metrics: told.append(metrics.step), stopped=lambda: len(told) == 5)
    assert not made(task, watch, files=False)
    assert not pictures_of(task.folder).exists()
    assert made(task, files=False)
    unbroken = replace(task, folder=tmp_path / "unbroken")
    made(unbroken, files=False)
    assert RunFolder(task.folder).metrics.read_text() == RunFolder(unbroken.folder).metrics.read_text()
    assert pictures_of(task.folder).exists()


def test_an_empty_scene_is_looked_at_all_the_same(task, monkeypatch):
    def empty(*_):
        raise NoSurface("the scene is empty")

    monkeypatch.setattr(generate, "finish", empty)
    monkeypatch.setattr(making, "evaluation_views", no_pictures)
    with pytest.raises(NoSurface, match="is empty"):
        made(task)
    assert pictures_of(task.folder).exists()


def test_a_runs_own_files_can_be_left_for_later(task, monkeypatch):
    monkeypatch.setattr(making, "evaluation_views", no_pictures)
    assert made(task, files=False)
    folder = RunFolder(task.folder)
    assert pictures_of(task.folder).exists()
    assert folder.checkpoint.exists()
    assert not folder.sheet.exists()
    assert not folder.mesh.exists()


def test_what_is_there_is_not_made_again(task, tmp_path):
    pictures_of(task.folder).parent.mkdir(parents=True)
    pictures_of(task.folder).touch()
    assert make_all([task], tmp_path, 1, print, never) == {}


def test_another_run_in_the_folder_is_not_taken_for_this_one(task, tmp_path):
    generate.create_run(task.config, task.folder)
    making._require_same(replace(task, config=replace(task.config, threads=7, device="auto")))
    with pytest.raises(UserError, match="other settings"):
        make_all([replace(task, config=replace(task.config, steps=99))], tmp_path, 1, print, never)


def test_runs_are_made_in_processes_until_they_are_stopped(task, tmp_path):
    """Unknown words fail in the worker, where no prior is a red disc; what is stopped before it begins is not made."""
    unknown = replace(task, config=replace(task.config, prompt="a quasar"))
    told = list[str]()
    problems = make_all([unknown], tmp_path, 1, told.append, never)
    assert "quasar" in problems[task.folder]
    assert told[0] == "1 of 1 runs to make, 1 at a time"
    assert "1/1  a quasar" in told[1]
    others = [replace(task, config=replace(task.config, seed=seed), folder=tmp_path / f"{seed}") for seed in range(3)]
    make_all(others, tmp_path, 1, told.append, lambda: True)
    assert not any(pictures_of(other.folder).exists() for other in others)


# Sessions


@pytest.fixture
def opened(tmp_path, monkeypatch, tiny_config) -> Session:
    """A session whose runs appear by magic: pictures that say what they are."""

    def appear(tasks, out, jobs, say, stopped, files):
        for each in tasks:
            if pictures_of(each.folder).exists():
                continue
            made.append(each)
            RunFolder.create(each.folder, to_json(each.config))
            pictures = torch.zeros(3, VIEWS, SIZE, SIZE, 3)
            pictures[:, :, 0, 0, 2] = PROMPTS.index(each.config.prompt) / 20 if each.config.prompt in PROMPTS else 0
            save_views(views_with(pictures), pictures_of(each.folder))
        return {}

    made: list[Task] = []
    monkeypatch.setattr(session, "make_all", appear)
    for module in (session, ablation):
        monkeypatch.setattr(module, "open_judge", StubJudge)
    result = Session(tmp_path / "out", Says(1.0, 0.0), tiny_config, 1)
    monkeypatch.setattr(Session, "made", made, raising=False)
    return result


def test_prompts_compete_with_each_other_and_nothing_is_made_twice(opened):
    files = session.run_prompts(opened, PROMPTS, print, never)
    assert len(opened.made) == 4
    numbers = json.loads(files[0].read_text())
    assert numbers["facts"]["captions"] == numbers["facts"]["captions without colours"] == 4
    assert numbers["facts"]["seed"] == 0
    assert numbers["figures"]["all"]["precision"]["shaded"]["value"] == 1.0
    again = session.run_prompts(opened, PROMPTS, print, never)
    assert len(opened.made) == 4
    assert json.loads(again[0].read_text()) == numbers


def test_the_judge_is_not_asked_for_colours_without_texture(opened):
    files = session.run_prompts(replace(opened, scorer=StubJudge()), PROMPTS, print, never)
    facts = json.loads(files[0].read_text())["facts"]
    assert (facts["captions"], facts["captions without colours"]) == (4, 3)


def test_a_suite_competes_with_all_eighty_prompts(opened):
    files = session.run_suites(opened, ["unseen"], print, never)
    numbers = json.loads(files[0].read_text())
    assert numbers["facts"]["captions"] == 80
    assert numbers["facts"]["captions without colours"] == 60
    assert {run["prompt"] for run in numbers["runs"]} == set(suite("unseen"))


def test_real_meshes_of_the_same_nouns_stand_beside(opened):
    files = session.run_prompts(opened, [*PROMPTS, "a quasar"], print, never)
    told = json.loads(files[0].read_text())["facts"]["real meshes of these nouns that the judge names"]
    assert told == "62 % in colour, 62 % textureless"  # car twice, frog, pig: (1 + 1 + 0.5 + 0) / 4


def test_nothing_is_reported_of_a_suite_that_was_stopped(opened):
    assert session.run_suites(opened, ["plain"], print, lambda: True) == []
    assert not (opened.out / "report.json").exists()


def test_fidelity_is_measured_where_the_meaning_of_a_prompt_is_known(opened, tmp_path):
    """A run that shows the very thing, one of another seed's folder, one of which nothing is known."""
    config, known = opened.config, tmp_path / "truth"
    for prompt in PROMPTS[:2]:
        views = views_with(torch.zeros(3, VIEWS, SIZE, SIZE, 3))
        save_thing(known, replace(config, prompt=prompt), replace(views, pictures=views.pictures[:1]), views)
    row = [{"object_psnr_db": 26.0, "silhouette_iou": 0.95, "normal_error_deg": 15.0}]
    (known / FIGURES).write_text(json.dumps({"things": dict.fromkeys(PROMPTS[:2], row), "config": to_json(config)}))
    told = replace(opened, truths=open_truths(known))
    numbers = json.loads(session.run_prompts(told, PROMPTS, print, never)[0].read_text())
    beside = numbers["beside the perfect prior"]["all"]
    assert beside["count"] == 2
    assert beside["likeness"]["own"]["silhouette_iou"] == 1.0
    assert beside["likeness"]["own"]["object_psnr_db"] > 40  # one pixel tells the stubs what it is
    assert [run["prompt"] for run in numbers["runs"] if run["likeness"]] == PROMPTS[:2]
    seeded = replace(told, config=replace(config, seed=1), out=tmp_path / "other")
    numbers = json.loads(session.run_prompts(seeded, PROMPTS, print, never)[0].read_text())
    assert "beside the perfect prior" not in numbers


def test_run_folders_are_judged_as_they_are(opened, task):
    generate.create_run(replace(task.config, prompt=PROMPTS[0]), task.folder)
    files = session.judge_folders(opened, [task.folder], PROMPTS, print)
    numbers = json.loads(files[0].read_text())
    assert numbers["facts"]["captions"] == 4
    assert (opened.out / numbers["runs"][0]["run"]).resolve() == task.folder.resolve()
    assert pictures_of(task.folder).exists()
    with pytest.raises(UserError, match="no run folder"):
        session.judge_folders(opened, [task.folder.parent], [], print)


def test_a_session_shares_the_cores_among_its_runs(tmp_path, monkeypatch):
    monkeypatch.setattr(session, "available_cores", lambda: 8)
    monkeypatch.setattr(session, "open_scorer", lambda *_: Says(1.0, 0.0))
    changes = {"seed": 3, "conditions": "no-camera"}
    assert session.new_session(tmp_path, "judge", changes, 0).jobs == 8
    two = session.new_session(tmp_path, "judge", changes, 2)
    assert (two.config.threads, two.config.seed, two.config.conditions) == (4, 3, "no-camera")


# Ablation


def test_the_ablation_adds_one_ingredient_at_a_time_and_ends_at_the_preset():
    found = list(ablation.variants(preset("fast")).values())
    assert found[-1] == preset("fast")
    for one, next_ in pairwise(found):
        changed = [name for name in vars(one) if getattr(one, name) != getattr(next_, name)]
        assert len(changed) == 1, changed
    assert found[0].camera.azimuth_deg == (-45.0, 45.0)
    assert found[0].light.shaded == 0
    assert not found[0].view_words


def test_the_ablation_reports_every_variant_in_every_light(opened):
    files = ablation.run_ablation(opened, print, never)
    numbers = json.loads(files[0].read_text())["variants"]
    assert list(numbers) == list(ablation.variants(preset("fast")))
    assert all(set(KINDS) < set(row) for row in numbers.values())
    assert len(opened.made) == 60
    facts = json.loads(files[0].read_text())["facts"]
    assert facts["conditions"] == ["no-camera", "all"]
    with Image.open(files[2]) as sheet:  # six rows of ten runs, from the front and the back, two kinds of light
        width, height = sheet.size
    assert (width, height) == (10 * (2 * 64 + 8) - 8, 6 * (2 * 64 + 14 + 2 * 14))
    assert ablation.run_ablation(opened, print, lambda: True) == []


# Samples


def test_samples_are_judged_by_view_word(monkeypatch):
    """Pictures of a stub: noun 0 always; the side it names from the front, left, back, right and above in turn."""
    pictures = torch.zeros(3, 5, 64, 64, 3)
    pictures[..., 0, 0, 0] = torch.tensor([0.0, 1.0, 2.0, 3.0, 0.0]) / 20  # from above it sees a front
    pictures[1, :, 0, 0, 1] = 4 / 20  # the second picture is blue
    found = samples.judged(StubJudge(), ["a car", "a blue car", "a frog"], pictures)
    assert found.noun["front"].value == pytest.approx(2 / 3)
    assert found.noun["all"].count == 3
    assert [found.side[view].value for view in samples.VIEWS] == [1, 1, 1, 1, 0]
    assert found.side["front"].count == 2  # a frog has no front here
    assert found.colour["all"].value == 1


def test_samples_show_the_side_that_they_are_asked_for_and_repeat(monkeypatch):
    """A television is wide from the front and narrow from the side."""
    monkeypatch.setattr(samples, "STEPS", 4)
    prior = open_prior("embedded")
    one, other = (samples.draw(prior, ["a television"], "all", 0) for _ in range(2))
    assert one.shape == (2, 1, 5, 64, 64, 3)
    assert torch.equal(one, other)
    for views in one[:, 0, :2]:
        front, left = (((view - samples.BACKGROUND).abs().amax(-1) > 0.15).any(0).sum() for view in views)
        assert front > 1.2 * left
    half_way, end = one[:, 0, 0]
    assert (end[:8] - samples.BACKGROUND).abs().max() < 0.02  # what lies behind the thing is plain
    grain = end - half_way
    assert grain[28:36, 28:36].std() > 4 * grain[:8].std()  # what the last steps add lies on the thing


# Doors


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--samples", "--ablation"], "different evaluations"),
        (["--prompts", "missing.txt"], "cannot be read"),
        (["--jobs", "-1"], "jobs"),
        (["--steps", "0"], "steps"),
        (["--scorer", "no/such/scorer"], "no scorer"),
        (["--truth", "missing"], "ceiling.py"),
    ],
)
def test_bad_input_is_refused_in_a_line(arguments, message, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as exit_:
        cli.main(["evaluate", *arguments])
    assert exit_.value.code == 2
    assert re.search(message, capsys.readouterr().err)
    assert not list(tmp_path.iterdir())


def test_judge_needs_to_be_told_what(capsys):
    with pytest.raises(SystemExit):
        cli.main(["judge"])
    assert "dreamfusion judge info" in capsys.readouterr().err
