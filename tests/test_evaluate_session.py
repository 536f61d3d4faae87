"""Evaluations from beginning to end: runs that are made, resumed, stopped, judged; the ablation; samples; the doors."""

import json
import re
import signal
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from itertools import pairwise
from threading import Event

import pytest
import torch
from PIL import Image

from dreamfusion import generate
from dreamfusion.cli import main as cli
from dreamfusion.config.presets import preset
from dreamfusion.config.serialise import to_json
from dreamfusion.diffusion.priors import open_prior
from dreamfusion.errors import UserError
from dreamfusion.evaluate import ablation, making, samples, session
from dreamfusion.evaluate.evaluation_views import KINDS, SIZE, VIEWS, read_views, save_views
from dreamfusion.evaluate.making import Task, make, make_all, pictures_of
from dreamfusion.evaluate.session import Session
from dreamfusion.evaluate.suites import suite
from dreamfusion.loop import prompt_table
from dreamfusion.runs import RunFolder
from test_evaluate_measures import PROMPTS, Says, StubJudge


@pytest.fixture(autouse=True)
def _quiet(monkeypatch, disc_prior):
    """No process changes torch for the other tests, and every prior is a red disc."""
    monkeypatch.setattr(generate, "prepare_process", lambda *_: None)
    monkeypatch.setattr(generate, "open_parts", lambda config, *_: (disc_prior, prompt_table(config, disc_prior)))


@pytest.fixture
def task(tiny_config, tmp_path) -> Task:
    output = replace(tiny_config.output, samples=4)
    return Task(replace(tiny_config, output=output), tmp_path / "a-ball-0")


def never() -> bool:
    return False


# Making


def test_a_run_is_a_normal_run_with_pictures_beside_it(task):
    assert make(task, Event()) == ""
    run = RunFolder(task.folder)
    assert run.sheet.exists()
    assert run.turntable_mp4.exists()
    assert len(run.read_metrics()) == task.config.steps
    pictures = read_views(pictures_of(task.folder))
    assert pictures.shape == (3, VIEWS, SIZE, SIZE, 3)
    corner = pictures[:, :, 0, 0]
    assert torch.allclose(corner, torch.full_like(corner, 0.7), atol=0.01)
    textureless = pictures[KINDS.index("textureless")]
    assert (textureless.amax(-1) - textureless.amin(-1)).max() <= 1.5 / 255


def test_a_stopped_run_goes_on_and_ends_as_an_unbroken_one(task, tmp_path, monkeypatch):
    class AfterFive:
        asked = 0

        def is_set(self) -> bool:
            self.asked += 1
            return self.asked > 5

        def set(self) -> None: ...

    monkeypatch.setattr(generate, "finish", lambda *_: [])
    monkeypatch.setattr(making, "evaluation_views", lambda *_: torch.zeros(3, VIEWS, SIZE, SIZE, 3))
    assert make(task, AfterFive()) == "stopped"
    assert not pictures_of(task.folder).exists()
    assert make(task, Event()) == ""
    unbroken = replace(task, folder=tmp_path / "unbroken")
    make(unbroken, Event())
    assert RunFolder(task.folder).metrics.read_text() == RunFolder(unbroken.folder).metrics.read_text()
    assert pictures_of(task.folder).exists()


def test_what_goes_wrong_with_a_run_is_told_not_raised(task, monkeypatch):
    def empty(*_):
        raise UserError("the scene is empty")

    monkeypatch.setattr(generate, "finish", empty)
    monkeypatch.setattr(making, "evaluation_views", lambda *_: torch.zeros(3, VIEWS, SIZE, SIZE, 3))
    assert make(task, Event()) == "the scene is empty"
    assert pictures_of(task.folder).exists()  # it is looked at all the same


def test_a_runs_own_files_can_be_left_for_later(task, monkeypatch):
    monkeypatch.setattr(making, "evaluation_views", lambda *_: torch.zeros(3, VIEWS, SIZE, SIZE, 3))
    assert make(replace(task, files=False), Event()) == ""
    folder = RunFolder(task.folder)
    assert pictures_of(task.folder).exists()
    assert folder.checkpoint.exists()
    assert not folder.sheet.exists()
    assert not folder.mesh.exists()


def test_what_is_there_is_not_made_again(task):
    pictures_of(task.folder).parent.mkdir(parents=True)
    pictures_of(task.folder).touch()
    assert make_all([task], 1, print, never) == {}


def test_another_run_in_the_folder_is_not_taken_for_this_one(task):
    generate.create_run(task.config, task.folder)
    making._require_same(replace(task, config=replace(task.config, threads=7, device="auto")))
    with pytest.raises(UserError, match="other settings"):
        make_all([replace(task, config=replace(task.config, steps=99))], 1, print, never)


def test_runs_are_made_in_processes_until_they_are_stopped(task, tmp_path):
    """Unknown words fail in the worker, where no prior is a red disc; what is stopped before it begins is not made."""
    unknown = replace(task, config=replace(task.config, prompt="a quasar"))
    told = list[str]()
    problems = make_all([unknown], 1, told.append, never)
    assert "quasar" in problems[task.folder]
    assert told[0] == "1 of 1 runs to make, 1 at a time"
    assert "1/1  a quasar" in told[1]
    others = [replace(task, folder=tmp_path / f"{index}") for index in range(3)]
    make_all(others, 1, told.append, lambda: True)
    assert not any(pictures_of(other.folder).exists() for other in others)


def test_a_worker_that_is_told_to_end_saves_its_run_first(task, monkeypatch):
    """And one that has nothing to save ends at once."""
    signals, before = [], signal.getsignal(signal.SIGTERM)
    asked = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(making, "make", lambda task, stop: [signal.raise_signal(signal.SIGTERM), str(stop.is_set())][1])
    monkeypatch.setattr(making.signal, "raise_signal", _once(signals))
    monkeypatch.setattr(making, "MOMENT", 0.1)
    worker, told = making._Worker(), Event()
    try:
        worker.listen(told)
        assert not worker.is_set()
        assert worker.make(task) == "True"
        assert signals == [signal.SIGTERM]
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        told.set()
        assert worker.make(task) == "True"
        assert signals == [signal.SIGTERM] * 2  # its own `make`'s, no other: the first process ends the pool
    finally:
        signal.signal(signal.SIGTERM, before)
        signal.signal(signal.SIGINT, asked)


def _once(signals):
    """The first signal arrives, the others, which would end this process, are noted."""
    arrive, left = signal.raise_signal, [True]

    def signalled(number):
        if left and left.pop():
            arrive(number)
        else:
            signals.append(number)

    return signalled


def test_a_worker_that_is_killed_is_told(tmp_path):
    killed = Future()
    killed.set_exception(BrokenProcessPool())
    assert "out of memory" in making._outcome(killed, never)
    assert making._outcome(killed, lambda: True) == "stopped"


# Sessions


@pytest.fixture
def opened(tmp_path, monkeypatch, tiny_config) -> Session:
    """A session whose runs appear by magic: pictures that say what they are."""

    def appear(tasks, jobs, say, stopped):
        for each in tasks:
            if pictures_of(each.folder).exists():
                continue
            made.append(each)
            RunFolder.create(each.folder, to_json(each.config))
            pictures = torch.zeros(3, VIEWS, SIZE, SIZE, 3)
            pictures[:, :, 0, 0, 2] = PROMPTS.index(each.config.prompt) / 20 if each.config.prompt in PROMPTS else 0
            save_views(pictures, pictures_of(each.folder))
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
    assert one.shape == (1, 5, 64, 64, 3)
    assert torch.equal(one, other)
    front, left = (((view - samples.BACKGROUND).abs().amax(-1) > 0.15).any(0).sum() for view in one[0, :2])
    assert front > 1.2 * left


# Doors


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--samples", "--ablation"], "different evaluations"),
        (["--prompts", "missing.txt"], "cannot be read"),
        (["--jobs", "-1"], "jobs"),
        (["--steps", "0"], "steps"),
        (["--scorer", "no/such/scorer"], "no scorer"),
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
