"""The measures, held against scorers of which the answer is known, and the suites against their own rules."""

import json
import math
import re
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from torch import Generator, Tensor

from dreamfusion.config import Config
from dreamfusion.config.presets import preset
from dreamfusion.errors import UserError
from dreamfusion.evaluate import suites
from dreamfusion.evaluate.ablation import variants
from dreamfusion.evaluate.captions import Meaning, meaning, require_meaning, without_colour
from dreamfusion.evaluate.evaluation_views import KINDS, SIZE, VIEWS, Views, cameras, read_views, save_views
from dreamfusion.evaluate.janus import fronts
from dreamfusion.evaluate.judge.judge import Judge, open_judge
from dreamfusion.evaluate.judge.network import JudgeNet, Opinion
from dreamfusion.evaluate.making import pictures_of
from dreamfusion.evaluate.measure import Result, captions_of, figures, verdicts
from dreamfusion.evaluate.r_precision import retrieved, wilson
from dreamfusion.evaluate.report import Report, write_report
from dreamfusion.provenance import prior_digest
from training import suite_rule
from training.nouns import names, nouns
from training.prior import data as dataset

DOCS = Path(__file__).parents[1] / "docs"
PROMPTS = ["a red car", "a blue car", "a frog", "an orange pig"]
CARD = {"name": "stub", "nouns": ["car", "frog", "pig"], "with front": ["car", "pig"]} | {
    "real meshes": {"fronts": {"car": 0.2, "pig": 0.4}}
    | {kind: {"car": 1.0, "frog": 0.5, "pig": 0.0} for kind in ("albedo", "shaded", "textureless")}
}


class StubJudge(Judge):
    """Sees the side, as a number in `SIDES`, and the colour that the first two channels of the first pixel name."""

    def __init__(self) -> None:
        super().__init__(JudgeNet(3), CARD)

    def opinion(self, images: Tensor) -> Opinion:
        first = (images[:, 0, 0] * 20).round().long()
        one_hot = [
            torch.nn.functional.one_hot(first[:, i].clamp(max=count - 1), count).float()
            for i, count in ((0, 5), (1, 12))
        ]
        return Opinion(noun=torch.zeros(len(images), 3), side=one_hot[0], colour=one_hot[1])


class Says:
    """A scorer that looks at the last channel of the first pixel: the place of the picture's caption, times 20."""

    name = "says"

    def __init__(self, right: float, wrong: float) -> None:
        self.right, self.wrong = right, wrong

    def score(self, images: Tensor, captions) -> Tensor:
        own = (images[:, 0, 0, 2] * 20).round().long() % len(captions)
        return torch.full((len(images), len(captions)), self.wrong).scatter(1, own[:, None], self.right)


def result(place: int, sides=(0,) * VIEWS, colour: int = 0, folder="run") -> Result:
    """A run whose pictures tell the stubs what they are."""
    pictures = torch.zeros(3, VIEWS, SIZE, SIZE, 3)
    pictures[:, :, 0, 0, 0] = torch.tensor(sides) / 20
    pictures[:, :, 0, 0, 1] = colour / 20
    pictures[:, :, 0, 0, 2] = place / 20
    return Result(PROMPTS[place], "plain" if place < 2 else "seen", folder / f"{place}", "", pictures)


def views_with(pictures: Tensor) -> Views:
    """Of something that fills every view and faces every camera's +z."""
    return Views(pictures, torch.tensor([0.0, 0.0, 1.0]).expand(pictures.shape[1:]), torch.ones(pictures.shape[1:-1]))


# R-Precision


def scores_of(right: float, wrong: float, prompts: int = 5, views: int = 3) -> Tensor:
    own = torch.arange(prompts)
    return torch.full((prompts, views, prompts), wrong).scatter(2, own[:, None, None].expand(-1, views, 1), right)


@pytest.mark.parametrize(("right", "wrong", "share"), [(1.0, 0.0, 1.0), (0.3, 0.3, 0.0), (0.0, 1.0, 0.0)])
def test_oracle_constant_and_adversarial_scorers(right, wrong, share):
    """A constant scorer ties everywhere, and ties count against us: not 1/p but nothing."""
    assert retrieved(scores_of(right, wrong), torch.arange(5)).float().mean() == share


def test_a_guessing_scorer_finds_one_in_p():
    scores = torch.rand(20, 2000, 20, generator=Generator().manual_seed(0))
    assert retrieved(scores, torch.arange(20)).float().mean().item() == pytest.approx(1 / 20, abs=0.004)


def test_one_tie_is_enough_and_nan_never_wins():
    scores = scores_of(1.0, 0.0, prompts=3, views=1)
    scores[0, 0, 2] = 1.0
    scores[1, 0, 1] = math.nan
    scores[2, 0, 0] = math.nan
    assert retrieved(scores, torch.arange(3)).flatten().tolist() == [False, False, False]


def test_own_captions_may_stand_anywhere():
    scores = torch.tensor([[[0.1, 0.9, 0.3]], [[0.1, 0.9, 0.3]]])
    assert retrieved(scores, torch.tensor([1, 2])).flatten().tolist() == [True, False]


@pytest.mark.parametrize(("right", "count"), [(0, 10), (7, 10), (10, 10), (40, 80)])
def test_wilson_bounds_solve_their_equation(right, count):
    """The bounds are where the distance from the share is 1.96 standard deviations of the bound itself."""
    share = wilson(right / count, count)
    for bound in (share.low, share.high):
        distance = abs(bound - right / count)
        assert distance == pytest.approx(1.959964 * math.sqrt(bound * (1 - bound) / count), abs=1e-7)
    assert 0 <= share.low <= share.value <= share.high <= 1


def test_wilson_of_nothing_knows_nothing():
    share = wilson(math.nan, 0)
    assert (share.low, share.high, share.count) == (0.0, 1.0, 0)


# Captions


def test_the_longest_noun_counts_and_the_first_colour():
    known = ["truck", "fire truck", "ice cream"]
    assert meaning("a photo of a Red fire truck, front view", known) == Meaning("fire truck", "red")
    assert meaning("an ice cream", known) == Meaning("ice cream")
    assert meaning("a trucker", known) is None
    with pytest.raises(UserError, match="judge info"):
        require_meaning("a trucker", known)


def test_captions_lose_their_colours_and_keep_their_grammar():
    assert without_colour("an orange pig") == "a pig"
    assert without_colour("a red apple") == "an apple"
    assert without_colour("a fire truck") == "a fire truck"


def test_textureless_pictures_are_not_asked_for_colours():
    captions = captions_of(PROMPTS, bare=True)
    assert captions.bare == ("a car", "a frog", "a pig")
    assert captions.own("textureless", "a blue car") == 0
    assert captions.own("shaded", "a blue car") == 1
    assert captions_of(PROMPTS, bare=False).of("textureless") == tuple(PROMPTS)


# Janus and verdicts


def test_the_janus_rate_counts_fronts_at_the_sides_and_the_back_only():
    """Azimuths 0, 45, ... 315: a front at 0, 45 and 315 is as it should be."""
    images = torch.zeros(2, VIEWS, SIZE, SIZE, 3)  # side 0 is the front: seen everywhere
    images[1, [3, 4], 0, 0, 0] = 2 / 20  # the second object shows its back twice
    assert fronts(StubJudge(), images).float().mean(1).tolist() == pytest.approx([1.0, 0.6])


@pytest.mark.parametrize(("right", "wrong", "share"), [(1.0, 0.0, 1.0), (0.5, 0.5, 0.0), (0.0, 1.0, 0.0)])
def test_verdicts_with_scorers_of_known_mind(tmp_path, right, wrong, share):
    results = [result(place, folder=tmp_path) for place in range(4)]
    found = verdicts(results, captions_of(PROMPTS, bare=False), Says(right, wrong), StubJudge())
    assert [v.precision for v in found] == [dict.fromkeys(KINDS, share)] * 4
    assert figures(found).precision["shaded"].value == share
    assert figures(found).precision["shaded"].count == 4


def test_figures_of_fronts_and_colours(tmp_path):
    back = (0, 0, 2, 2, 2, 2, 2, 0)
    results = [result(0, back, colour=0, folder=tmp_path), result(3, (0,) * 8, colour=4, folder=tmp_path)]
    found = verdicts(
        [*results, result(2, folder=tmp_path)], captions_of(PROMPTS, bare=True), Says(1.0, 0.0), StubJudge()
    )
    assert [v.fronts for v in found] == [0.0, 1.0, None]
    assert [v.colour_word for v in found] == [1.0, 0.0, None]
    all_of_them = figures(found)
    assert all_of_them.janus.value == 0.5
    assert all_of_them.janus.count == 2
    assert all_of_them.janus_real == pytest.approx(0.3)


def test_a_run_without_pictures_has_failed_in_everything(tmp_path):
    gone = replace(result(1, folder=tmp_path), pictures=None, problem="diverged")
    found = verdicts([result(0, folder=tmp_path), gone], captions_of(PROMPTS, bare=False), Says(1.0, 0.0), StubJudge())
    assert [v.precision["shaded"] for v in found] == [1.0, 0.0]
    assert found[1].problem == "diverged"
    assert figures(found).precision["textureless"].value == 0.5


# Pictures and report


def test_evaluation_cameras_stand_30_degrees_above_the_horizon():
    ring = cameras(radius=1.0)
    assert torch.allclose(ring.elevation, torch.full((8,), math.radians(30)), atol=1e-5)
    assert torch.allclose(ring.azimuth.rad2deg().remainder(360), torch.arange(8) * 45.0, atol=1e-3)


def test_pictures_survive_the_file(tmp_path):
    generator, shape = Generator().manual_seed(0), (VIEWS, SIZE, SIZE)
    pictures, opacity = torch.rand(3, *shape, 3, generator=generator), torch.rand(shape, generator=generator)
    views = Views(pictures, torch.rand(*shape, 3, generator=generator) * 2 - 1, opacity)
    save_views(views, tmp_path / "p.png")
    found = read_views(tmp_path / "p.png")
    assert torch.allclose(found.pictures, pictures, atol=0.5 / 255 + 1e-6)
    assert torch.allclose(found.normal, views.normal, atol=1 / 255 + 1e-6)
    assert torch.allclose(found.opacity, views.opacity, atol=0.5 / 255 + 1e-6)
    with pytest.raises(UserError, match="delete it"):
        read_views(tmp_path / "p.png", kinds=1)
    (tmp_path / "p.png").write_bytes(b"no picture")
    with pytest.raises(UserError, match="delete it"):
        read_views(tmp_path / "p.png")


def test_the_report_shows_every_run_failures_first(tmp_path):
    results = [result(place, folder=tmp_path) for place in range(3)]
    for one in results:
        save_views(views_with(one.pictures), pictures_of(one.folder))
    gone = replace(result(3, folder=tmp_path), pictures=None, problem="the scene is empty <here>")
    found = verdicts([*results, gone], captions_of(PROMPTS, bare=True), Says(1.0, 0.0), StubJudge())
    files = write_report(Report({"scorer": "says"}, found), tmp_path / "out")
    assert [path.name for path in files] == ["report.json", "report.md", "grid.jpg", "report.html"]
    numbers = json.loads(files[0].read_text())
    assert numbers["runs"][0]["prompt"] == "an orange pig"
    assert numbers["figures"]["all"]["precision"]["shaded"]["value"] == 0.75
    assert set(numbers["figures"]) == {"all", "plain", "seen"}
    assert "not comparable" in numbers["note"]
    page = files[3].read_text()
    assert re.findall(r"<h2>([^<]*) <small>", page)[0] == "an orange pig"
    assert page.count("data:image/webp;base64,") == 3
    assert "&lt;here&gt;" in page
    assert not re.search(r'(src|href)="(?!data:)', page)
    assert "| all (4) | 75.0 [" in files[1].read_text()


# Suites


def require_shipped(facts: dict[str, str]) -> None:
    """Figures are of the prior and the judge that ship."""
    assert facts["prior_sha256"] == prior_digest(Config(prompt="a car"))
    assert facts["scorer"] == open_judge().name


@pytest.mark.parametrize(("name", "conditions"), [("report", "all"), ("no-camera", "no-camera")])
def test_the_report_that_is_shown_is_of_the_weights_that_ship(name, conditions):
    """Whoever replaces the weights of prior or judge evaluates again; the page shows the figures of the report."""
    told = json.loads((DOCS / "results" / f"{name}.json").read_text("utf-8"))
    assert told["facts"]["conditions"] == conditions
    report, page = ((DOCS / path).read_text("utf-8") for path in (f"results/{name}.md", "evaluation.md"))
    require_shipped(told["facts"])
    assert {run["prompt"] for run in told["runs"]} == set(suites.pool())
    for kind in KINDS:
        mean = sum(run["precision"][kind] for run in told["runs"]) / 80
        assert told["figures"]["all"]["precision"][kind] == pytest.approx(asdict(wilson(mean, 80)))
    rows = [line for line in report.splitlines() if re.match(r"\| \w+ \(\d+\)", line)]
    assert len(rows) == 8  # with those beside the perfect prior
    assert [row for row in rows if row not in page] == []


def test_the_ablation_that_is_shown_is_of_the_weights_that_ship():
    told = json.loads((DOCS / "results" / "ablation.json").read_text("utf-8"))
    require_shipped(told["facts"])
    assert list(told["variants"]) == list(variants(preset("fast")))
    report, page = ((DOCS / path).read_text("utf-8") for path in ("results/ablation.md", "reference/evaluation.md"))
    rows = [line for line in report.splitlines() if line.startswith("| ")]
    assert len(rows) == 1 + len(told["variants"])
    assert [row for row in rows if row not in page] == []


def test_the_pages_tell_the_figures_of_the_report_and_of_the_judges_card():
    readme, page = ((DOCS / path).read_text("utf-8") for path in ("../README.md", "reference/evaluation.md"))
    found = json.loads((DOCS / "results" / "report.json").read_text("utf-8"))["figures"]
    colour, geometry = (100 * found["all"]["precision"][kind]["value"] for kind in ("shaded", "textureless"))
    assert f"{colour:.0f} % of the views in colour and {geometry:.0f} % without" in readme
    assert f"| 80 / 60 | {colour:.1f} / {geometry:.1f} |" in page
    assert f"| 70 | {100 * found['unseen']['precision']['shaded']['value']:.1f} |" in page
    right = open_judge().card["accuracy"]
    colour, geometry = (100 * right[f"new views, {look}"]["noun"] for look in ("colour", "textureless"))
    assert f"| 95 / 88 | {colour:.1f} / {geometry:.1f} |" in page
    assert f"| {colour:.1f} % | {geometry:.1f} % |" in page


def test_the_suites_are_what_their_rule_says():
    assert {name: suites.suite(name) for name in suite_rule.choose(nouns())} == suite_rule.choose(nouns())


def test_the_suites_hold_what_they_promise():
    said = {name: [meaning(p, names(nouns())) for p in suites.suite(name)] for name in suite_rule.choose(nouns())}
    assert {name: len(found) for name, found in said.items()} == {
        "plain": 40, "seen": 20, "unseen": 20, "ablation": 10, "samples": 60,
    }  # fmt: skip
    known = set(dataset.vocabulary(nouns()))
    for name, found in said.items():
        assert {word for prompt in suites.suite(name) for word in prompt.split()} <= known
        assert not {one.noun for one in found} & set(suite_rule.TUNED)
    assert all(dataset.held_out(one.colour, one.noun) for one in said["unseen"])
    assert not any(dataset.held_out(one.colour, one.noun) for one in said["seen"] + said["samples"] if one.colour)
    assert not {one.noun for one in said["plain"]} & {one.noun for one in said["seen"]}
    assert {one.noun for one in said["seen"]} == {one.noun for one in said["unseen"]}
    assert len(set(suites.pool())) == 80
    inside = {one.noun for name in suites.SUITES for one in said[name]}
    assert not inside & {one.noun for one in said["ablation"] + said["samples"]}


def test_a_prompts_file_is_read_line_by_line(tmp_path):
    (tmp_path / "p.txt").write_text("a cat.\n\n  a dog.\na cat.\n")
    assert suites.read_prompts(tmp_path / "p.txt") == ["a cat.", "a dog."]
    (tmp_path / "p.txt").write_text("\n")
    with pytest.raises(UserError, match="holds no prompt"):
        suites.read_prompts(tmp_path / "p.txt")
    with pytest.raises(UserError, match="cannot be read"):
        suites.read_prompts(tmp_path / "missing.txt")
