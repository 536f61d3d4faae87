"""Fidelity: results beside the things that their prompts mean, and beside what the perfect prior made of these."""

import json
import re
from dataclasses import replace

import pytest
import torch
from PIL import Image

from dreamfusion.config.serialise import to_json
from dreamfusion.errors import UserError
from dreamfusion.evaluate.evaluation_views import SIZE, VIEWS, Views, save_views
from dreamfusion.evaluate.fidelity import Fidelity, Likeness, likeness, mean_likeness
from dreamfusion.evaluate.making import pictures_of
from dreamfusion.evaluate.measure import captions_of, verdicts
from dreamfusion.evaluate.report import Report, write_report
from dreamfusion.evaluate.suites import pool
from dreamfusion.evaluate.truth import FIGURES, open_truths, save_thing
from test_evaluate_measures import PROMPTS, Says, StubJudge, result, views_with

REACHED = Fidelity(object_psnr_db=26.0, silhouette_iou=0.95, normal_error_deg=15.0)


def disc(radius: float, colour=(0.8, 0.3, 0.2)) -> Views:
    """Flat discs that face +z, in plain colours, in all lights."""
    y, x = torch.meshgrid(*[torch.linspace(-1, 1, SIZE)] * 2, indexing="ij")
    inside = (x.square() + y.square() < radius**2).expand(VIEWS, SIZE, SIZE)
    pictures = torch.where(inside[..., None], torch.tensor(colour), torch.tensor(0.7)).expand(3, VIEWS, SIZE, SIZE, 3)
    return replace(views_with(pictures), opacity=inside.float())


@pytest.fixture
def folder(tmp_path, tiny_config):
    """The truths of two prompts, as a benchmark leaves them: a disc of radius 0.6, made as one of 0.5."""
    folder = tmp_path / "truth"
    true = disc(0.6)
    for prompt in PROMPTS[:2]:
        save_thing(folder, replace(tiny_config, prompt=prompt), replace(true, pictures=true.pictures[:1]), disc(0.5))
    row = [{"step": 12, "object_psnr_db": 26.0, "silhouette_iou": 0.95, "normal_error_deg": 15.0}]
    figures = {"things": dict.fromkeys(PROMPTS[:2], row), "config": to_json(tiny_config)}
    (folder / FIGURES).write_text(json.dumps(figures))
    return folder


def test_truths_come_back_from_their_folder(folder):
    truths = open_truths(folder)
    assert truths.reached == dict.fromkeys(PROMPTS[:2], REACHED)
    found, true = truths.true(PROMPTS[0]), disc(0.6)
    assert torch.equal(found.opacity, true.opacity)
    assert torch.allclose(found.pictures, true.pictures[:1], atol=0.5 / 255 + 1e-6)
    middle = truths.made(PROMPTS[1])[:, :, SIZE // 2, SIZE // 2]
    assert torch.allclose(middle, torch.tensor([0.8, 0.3, 0.2]).expand(3, VIEWS, 3), atol=0.03)


def test_what_a_run_means_is_known_by_its_prompt_seed_and_prior(folder, tiny_config):
    config = replace(tiny_config, prompt=PROMPTS[0])
    given, shipped = open_truths(folder), open_truths()
    assert given.knows(config)
    assert given.knows(replace(config, prior="/a/prior"))
    for change in ({"prompt": PROMPTS[2]}, {"seed": 1}, {"conditions": "none"}):
        assert not given.knows(replace(config, **change))
    assert shipped.knows(replace(config, prompt=pool()[0]))
    assert not shipped.knows(replace(config, prompt=pool()[0], prior="/a/prior"))


@pytest.mark.parametrize("damage", ["[]", "{}", '{"things": {"a": []}, "config": {"seed": 0}}', "no JSON"])
def test_a_folder_without_truths_is_refused(tmp_path, damage):
    with pytest.raises(UserError, match=r"ceiling.py"):
        open_truths(tmp_path)
    (tmp_path / FIGURES).write_text(damage)
    with pytest.raises(UserError, match=r"ceiling.py"):
        open_truths(tmp_path)


def test_every_prompt_of_the_suites_has_its_truth():
    truths = open_truths()
    assert list(truths.reached) == pool()
    assert truths.seed == 0
    for prompt in pool():
        true, made = truths.true(prompt), truths.made(prompt)
        assert true.opacity.mean((1, 2)).min() > 0.01, prompt
        rough = likeness(replace(true, pictures=made), true, truths.reached[prompt])
        assert rough.own.object_psnr_db == pytest.approx(truths.reached[prompt].object_psnr_db, abs=6), prompt


def test_shares_are_of_the_way_from_nothing_to_the_perfect_prior():
    true = disc(0.6)
    nothing = likeness(None, true, REACHED)
    assert nothing.own == nothing.nothing
    assert list(nothing.share.values()) == [0, 0, 0]
    assert (nothing.own.silhouette_iou, nothing.own.normal_error_deg) == (0, 90)
    same = likeness(true, true, REACHED)
    assert (same.own.object_psnr_db, same.own.silhouette_iou) == (100, 1)
    assert same.share["silhouette_iou"] == pytest.approx(1 / 0.95)
    assert same.share["normal_error_deg"] == pytest.approx(90 / 75, abs=0.01)
    half = mean_likeness([same, nothing])
    assert half.own.silhouette_iou == 0.5
    assert half.perfect == REACHED
    assert half.share["silhouette_iou"] == pytest.approx(0.5 / 0.95)


def test_a_smaller_disc_is_as_near_as_their_areas_say():
    found = likeness(disc(0.5), disc(0.6), REACHED).own
    assert found.silhouette_iou == pytest.approx((0.5 / 0.6) ** 2, abs=0.01)
    assert found.normal_error_deg < 0.1


def test_the_report_shows_results_beside_the_perfect_prior_s_and_the_truth(tmp_path, folder):
    """Of three runs two are of known meaning, of which one came to nothing; the perfect prior's are all right."""
    truths, captions = open_truths(folder), captions_of(PROMPTS, bare=True)
    near = Likeness(replace(REACHED, object_psnr_db=20.0), REACHED, Fidelity(6.0, 0.0, 90.0))
    known = replace(result(0, folder=tmp_path), likeness=near)
    gone = replace(result(1, folder=tmp_path), pictures=None, likeness=replace(near, own=near.nothing))
    other = result(2, folder=tmp_path)
    for one in (known, other):
        save_views(views_with(one.pictures), pictures_of(one.folder))
    own = verdicts([known, gone, other], captions, Says(1.0, 0.0), StubJudge())
    ideal = [replace(one, pictures=result(place, folder=tmp_path).pictures) for place, one in enumerate((known, gone))]
    perfect = verdicts(ideal, captions, Says(1.0, 0.0), StubJudge())
    files = write_report(Report({"scorer": "says"}, own, perfect, truths), tmp_path / "out")
    assert [path.name for path in files] == ["report.json", "report.md", "grid.jpg", "beside.jpg", "report.html"]
    numbers = json.loads(files[0].read_text())
    beside = numbers["beside the perfect prior"]["all"]
    assert beside["count"] == 2
    assert beside["likeness"]["own"]["object_psnr_db"] == 13.0
    assert beside["share"]["object_psnr_db"] == pytest.approx(0.35)
    assert beside["own"]["precision"]["shaded"]["value"] == 0.5
    assert beside["perfect"]["precision"]["shaded"]["value"] == 1.0
    perfects = {run["prompt"]: run["perfect_precision"] for run in numbers["runs"]}
    assert perfects[PROMPTS[1]]["shaded"] == 1.0
    assert perfects[PROMPTS[2]] is None
    assert numbers["figures"]["all"]["precision"]["shaded"]["count"] == 3
    text = files[1].read_text()
    assert (
        "| all (2) | -13.0 | 13.0 / 26.0; 35 % | 0.475 / 0.950; 50 % | 52.5 / 15.0; 50 % | 50.0 / 100.0; 50 % |" in text
    )
    assert "| a blue car | -20.0 | 6.0 / 26.0 | 0.000 / 0.950 | 90.0 / 15.0 |" in text
    with Image.open(files[3]) as sheet:  # two things, from four sides: the run, the perfect prior's, the truth
        assert sheet.size == (5 * (4 * 64 + 8) - 8, 3 * 64 + 14)
    page = files[4].read_text()
    assert page.count("data:image/webp;base64,") == 3
    assert "object PSNR 20.0 dB (26.0)" in page
    assert len(re.findall("<table>", page)) == 2
