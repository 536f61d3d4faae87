"""docs/reference/paper.md against the code: each row's field has its value, and the test that proves it exists."""

import math
import re
from dataclasses import replace

import pytest
import torch

from conformance import code, page, require_name, require_row, require_test, rows, same, value_at
from dreamfusion import checkpoint, loop
from dreamfusion.config import BlobConfig, CameraConfig, LightConfig
from dreamfusion.config.check import validate
from dreamfusion.config.presets import PAPER
from dreamfusion.generate import export_mesh
from dreamfusion.loop import optimise, prompt_table, start
from dreamfusion.mesh import MeshOptions
from dreamfusion.nerf.fields.density import DensityActivation, Exp
from dreamfusion.nerf.fields.encoding import encoded_size
from dreamfusion.nerf.proposals import Proposal
from dreamfusion.nerf.render import render
from dreamfusion.schedules import Constant
from dreamfusion.shampoo import Shampoo
from dreamfusion.video import PreviewCamera, contact_sheet
from gaussian_prior import GaussianPrior, cosine_schedule

PAGE = page("paper.md")
CPU = torch.device("cpu")


NUMBERS, CHOICES = rows(PAGE, "Every number"), rows(PAGE, "Where the paper leaves it open")


@pytest.mark.parametrize("row", NUMBERS, ids=[row[1] for row in NUMBERS])
def test_each_number_of_the_paper_is_the_presets_and_has_its_test(row):
    _, _, value, ours, proof = row
    (path,) = code(ours)
    require_row(PAPER, path, value, proof)


@pytest.mark.parametrize("row", CHOICES, ids=[row[0] for row in CHOICES])
def test_each_choice_is_a_field_with_the_value_on_the_page(row):
    _, chosen, ours, _, proof = row
    (path,) = code(ours)
    there = value_at(PAPER, path)
    assert same(there, code(chosen)[0]), f"{path} is {there}, the page says {chosen}"
    for reference in code(proof):
        require_test(reference)


def test_the_tables_are_there_and_a_wrong_row_would_be_noticed():
    assert len(NUMBERS) > 35
    assert len(CHOICES) > 10
    assert not same(PAPER.steps, "14999")
    assert not same(PAPER.scene.variance, "0.05:0.002@0.0:0.3")
    assert not same(PAPER.camera.distance, "1, 1.6")
    with pytest.raises(AssertionError):
        require_test("test_paper.py::test_of_nothing")


def test_derivations_name_functions_that_exist():
    pattern = r"[a-z_]+(\.(?!py)[A-Za-z_]+)+"
    names = [name for name in code(page("derivations.md")) if re.fullmatch(pattern, name)]
    assert len(names) >= 5
    for name in names:
        require_name(name)


# The preset at work, as small as it goes


def go(config, prior, until):
    run = start(config, CPU)
    return run, [metrics.record() for metrics in optimise(run, prior, prompt_table(config, prior), until)]


def test_schedules_follow_the_progress_of_the_run(tiny_paper, disc_prior):
    run, _ = go(tiny_paper, disc_prior, 3)  # the last step began at progress 2/12
    expected = 0.05 + (0.002 - 0.05) * (2 / 12) * 3
    assert float(run.scene.field.variance) == pytest.approx(expected, rel=1e-5)
    assert float(run.scene.proposal.variance) == pytest.approx(expected, rel=1e-5)
    for group in run.optimiser.param_groups:
        assert group["lr"] == pytest.approx(1e-9 + (1e-4 - 1e-9) * (2 / 12) / 0.2, rel=1e-5)


def test_what_runs_has_the_numbers_of_the_preset():
    """What is built takes the records of the preset as they are."""
    run = start(replace(PAPER, prompt="a ball", device="cpu"), CPU)
    law = DensityActivation(Exp(bias=-1.0, clamp=15.0), BlobConfig(5.0, 0.2))
    assert isinstance(run.optimiser, Shampoo)
    assert isinstance(run.scene.proposal, Proposal)
    assert run.optimiser.config is run.config.optimise
    assert run.scene.proposal.config is run.config.scene.proposal
    assert run.scene.proposal.law == run.scene.field.law == law
    assert run.recipe.lights.config == LightConfig()  # the defaults are the paper's
    assert run.recipe.cameras.config is run.config.camera
    assert run.config.camera == replace(CameraConfig(), fov_deg=run.config.camera.fov_deg)  # rounded in the default


def test_the_run_is_15000_iterations_long():
    run = start(replace(PAPER, prompt="a ball", device="cpu"), CPU)
    run.step = 7_500
    assert run.progress == 0.5
    run.step = 15_000
    assert run.progress == 1.0


def test_proposals_see_what_the_field_sees():
    scene = start(replace(PAPER, prompt="a ball", device="cpu"), CPU).scene
    scene.set_variance(0.01, 0.5)
    assert scene.field.enter.in_features == scene.proposal.hidden[0].in_features == encoded_size(8)
    assert scene.field.variance == scene.proposal.variance == torch.tensor(0.01)


def test_a_step_renders_four_views_of_64_by_64_pixels(tiny_paper, monkeypatch):
    schedule = cosine_schedule(dtype=torch.float32)
    grey = GaussianPrior({"": torch.zeros(3, 64, 64)}, std=0.1, schedule=schedule, image_size=64)
    seen = []

    def spy(*arguments):
        picture = render(*arguments)
        seen.append(picture.rgb.shape)
        return picture

    monkeypatch.setattr(loop, "render", spy)
    go(replace(tiny_paper, size=PAPER.size, views=PAPER.views), grey, 1)
    assert seen == [(4, 64, 64, 3)]


def test_no_space_is_skipped_unless_asked_for(tiny_paper, disc_prior):
    empty = replace(tiny_paper.scene, density_bias=-20.0, blob=replace(tiny_paper.scene.blob, height=0.0))
    skipping = replace(empty, occupancy=replace(empty.occupancy, every=1))
    occupied = [go(replace(tiny_paper, scene=scene), disc_prior, 3)[1][-1]["occupied"] for scene in (empty, skipping)]
    assert occupied[0] == 1.0
    assert occupied[1] < 1.0


def test_the_learning_rate_is_the_papers_at_its_landmarks():
    rate = PAPER.optimise.lr_schedule
    at = {step: PAPER.optimise.network * rate(step / 15000) for step in (0, 1500, 3000, 9000, 15000)}
    assert at[0] == pytest.approx(1e-9)
    assert at[1500] == pytest.approx(0.5e-4, rel=1e-4)
    assert at[3000] == pytest.approx(1e-4)
    assert at[9000] == pytest.approx((1e-4 + 1e-6) / 2)
    assert at[15000] == pytest.approx(1e-6)


def test_a_run_trains_field_proposals_and_surroundings_and_continues_exactly(tiny_paper, disc_prior, tmp_path):
    config = replace(tiny_paper, optimise=replace(tiny_paper.optimise, lr_schedule=Constant(10.0)))
    whole, told = go(config, disc_prior, 4)
    fresh = start(config, CPU).scene.state_dict()
    for part in ("field.enter", "proposal.hidden.0", "background.to_colour"):
        name = f"{part}.weight"
        assert not torch.equal(whole.scene.state_dict()[name], fresh[name])
    first, told_first = go(config, disc_prior, 2)
    checkpoint.save(first, tmp_path)
    second = checkpoint.load(tmp_path, CPU)
    rest = [metrics.record() for metrics in optimise(second, disc_prior, prompt_table(config, disc_prior), 4)]
    assert told_first + rest == told
    left, right = whole.scene.state_dict(), second.scene.state_dict()
    assert all(torch.equal(left[name], right[name]) for name in left)


def test_losses_are_those_of_the_paper_over_all_pixels(tiny_paper, disc_prior):
    _, (told,) = go(replace(tiny_paper, steps=1), disc_prior, 1)
    assert set(told["losses"]) == {"distillation", "opacity", "orientation", "interlevel"}
    mean = replace(tiny_paper, steps=1, regularise=replace(tiny_paper.regularise, reduction="mean"))
    _, (other,) = go(mean, disc_prior, 1)
    for name in ("opacity", "orientation"):
        assert told["losses"][name] == pytest.approx(tiny_paper.size**2 * other["losses"][name], rel=1e-4)
    assert told["losses"]["interlevel"] == pytest.approx(other["losses"]["interlevel"], rel=1e-4)


def test_pictures_and_mesh_come_of_it(tiny_paper, disc_prior, tmp_path):
    dense = replace(tiny_paper.scene, density_bias=-3.0, blob=replace(tiny_paper.scene.blob, height=8.0))
    run, _ = go(replace(tiny_paper, scene=dense), disc_prior, 1)
    sheet = contact_sheet(run.scene, run.recipe.eval_render, PreviewCamera(size=16))
    assert sheet[:16, :16].std() > 5  # a blob, not plain
    export_mesh(run, [tmp_path / "mesh.glb"], MeshOptions(24, 16))
    assert (tmp_path / "mesh.glb").stat().st_size > 1000


def test_fields_of_view_are_those_of_the_papers_focal_lengths():
    narrow, wide = (math.radians(angle) for angle in PAPER.camera.fov_deg)
    assert 0.5 / math.tan(narrow / 2) == pytest.approx(1.35)
    assert 0.5 / math.tan(wide / 2) == pytest.approx(0.7)


def test_the_preset_is_valid_and_has_its_proposal_network():
    config = replace(PAPER, prompt="a ball", device="cpu")
    validate(config)
    assert isinstance(start(config, CPU).scene.proposal, Proposal)
