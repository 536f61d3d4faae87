"""The comparison: who makes what, what is told of it, real meshes in all lights; and what runs cost."""

import json
from dataclasses import replace

import pytest
import torch
from PIL import Image

from dreamfusion.config import ClipMeshObjective, DistillationObjective, DreamFieldsObjective
from dreamfusion.config.presets import CLIP_MESH_FAST, FAST
from dreamfusion.config.serialise import to_json
from dreamfusion.errors import UserError
from dreamfusion.evaluate import comparison, session
from dreamfusion.evaluate.comparison import (
    CAPTION_ALONE,
    NOTE,
    PAPER,
    methods,
    real_pictures,
    run_comparison,
    ten_prompts,
)
from dreamfusion.evaluate.evaluation_views import KINDS, SIZE, VIEWS, save_views
from dreamfusion.evaluate.making import cost_of, pictures_of
from dreamfusion.evaluate.session import Session
from dreamfusion.evaluate.truth import open_truths
from dreamfusion.files import write_json
from dreamfusion.runs import RunFolder
from test_evaluate_measures import Says, StubJudge, views_with

CONFIG = replace(FAST, seed=0, device="cpu", steps=100)


@pytest.fixture
def opened(tmp_path, monkeypatch) -> Session:
    """A session whose runs appear by magic, in grey, at a cost."""

    def appear(tasks, out, jobs, say, stopped, files):
        for task in tasks:
            if not pictures_of(task.folder).exists():
                made.append(task)
                RunFolder.create(task.folder, to_json(task.config))
                save_views(views_with(torch.full((3, VIEWS, SIZE, SIZE, 3), 0.5)), pictures_of(task.folder))
                cost = {"seconds": float(len(made)), "memory_mb": 500.0}
                write_json(RunFolder(task.folder).media / "cost.json", cost)
        return {}

    made = []
    monkeypatch.setattr(session, "make_all", appear)
    monkeypatch.setattr(comparison, "open_judge", StubJudge)
    monkeypatch.setattr(comparison, "open_scorer", lambda *_: Says(0.0, 1.0))
    result = Session(tmp_path / "out", Says(1.0, 0.0), CONFIG, 1)
    monkeypatch.setattr(Session, "made", made, raising=False)
    return result


def test_all_methods_share_seed_machine_and_share_of_the_steps():
    found = methods(replace(CONFIG, seed=7, threads=1), "some model")
    kinds = [type(config.objective) for config in found.values()]
    assert kinds == [DistillationObjective, DistillationObjective, DreamFieldsObjective, ClipMeshObjective]
    assert {config.seed for config in found.values()} == {7}
    assert {config.threads for config in found.values()} == {1}
    assert found["CLIP-Mesh"].steps == round(CLIP_MESH_FAST.steps * CONFIG.steps / FAST.steps)
    assert {config.objective.model for name, config in found.items() if "DreamFusion" not in name} == {"some model"}


def test_a_prior_that_is_told_more_than_the_caption_is_compared_without_it_too():
    alone = methods(CONFIG, "x")[CAPTION_ALONE]
    assert alone == replace(CONFIG, conditions="none")
    assert alone.view_words
    for other in (replace(CONFIG, conditions="none"), replace(CONFIG, prior="some/model")):
        assert CAPTION_ALONE not in methods(other, "x")


def test_it_reports_every_method_and_the_papers_table_with_why_they_differ(opened):
    prompts = ten_prompts()[:2]
    files = run_comparison(opened, "x", prompts, print, lambda: False)
    assert [task.config.prompt for task in opened.made] == 4 * prompts
    told = json.loads(files[0].read_text())["methods"]
    assert list(told) == ["DreamFusion", CAPTION_ALONE, "Dream Fields", "CLIP-Mesh", "real meshes"]
    assert all(set(row["precision"]) == set(KINDS) for row in told.values())
    assert told["DreamFusion"]["seconds"] == 1.5
    assert told["CLIP-Mesh"]["memory_mb"] == 500
    assert told["real meshes"]["seconds"] is None
    assert told["real meshes"]["fidelity"] is None
    covered = torch.stack([(open_truths().true(prompt).opacity > 0.5).float().mean() for prompt in prompts])
    assert told["Dream Fields"]["fidelity"]["silhouette_iou"] == pytest.approx(float(covered.mean()), abs=1e-4)
    page = files[1].read_text()
    assert NOTE in page
    assert all(" | ".join(row) in page for row in PAPER)
    with Image.open(files[2]) as sheet:
        assert sheet.size == (2 * (2 * 64 + 8) - 8, 5 * (2 * 64 + 14 + 2 * 14))


def test_it_is_known_what_the_ten_prompts_mean():
    assert len(set(ten_prompts())) == 10
    assert all(open_truths().knows(replace(CONFIG, prompt=prompt)) for prompt in ten_prompts())


def test_it_goes_on_where_it_was_and_stops_when_told(opened):
    first = run_comparison(opened, "x", ["a desk", "a snake"], print, lambda: False)
    told = first[0].read_text()
    assert len(opened.made) == 8
    assert run_comparison(opened, "x", ["a desk", "a snake"], print, lambda: False)[0].read_text() == told
    assert len(opened.made) == 8
    assert run_comparison(opened, "x", ["a desk", "a snake"], print, lambda: True) == []


def test_real_meshes_are_lit_from_their_colours_and_normals():
    unlit, shaded, bare = real_pictures(open_truths(), "a bench")
    true = open_truths().true("a bench")
    solid = (true.opacity == 1) & (bare.amax(-1) < 1)  # some normals are a little longer than 1: what is lit is cut off
    assert (bare[solid].amax(-1) - bare[solid].amin(-1)).max() < 1e-5
    torch.testing.assert_close(shaded[solid], unlit[solid] * bare[solid], atol=1e-5, rtol=0.0)
    assert 0.29 < bare[solid].min() < 0.5 < bare[solid].max() <= 1
    clear = true.opacity == 0
    for picture in (unlit, shaded, bare):
        torch.testing.assert_close(picture[clear], torch.full_like(picture[clear], 0.7), atol=0.01, rtol=0.0)


def test_a_damaged_cost_is_said_so(tmp_path):
    assert cost_of(tmp_path) is None
    path = RunFolder(tmp_path).media / "cost.json"
    path.parent.mkdir()
    path.write_text('{"seconds": "x"}')
    with pytest.raises(UserError, match="delete it"):
        cost_of(tmp_path)
