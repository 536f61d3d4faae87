"""Dream Fields: each term of its loss, its backgrounds and crops, its tracked centre, and a run of it."""

import math
from dataclasses import replace

import pytest
import torch

from conformance import code, page, require_row, rows
from dreamfusion import checkpoint
from dreamfusion.cameras import Cameras, OrbitSampler, orbit
from dreamfusion.config import Config, DreamFieldsObjective, FourierFieldConfig, LearnedBackground, SolidBackground
from dreamfusion.config.check import validate
from dreamfusion.config.presets import DREAM_FIELDS, DREAM_FIELDS_FAST
from dreamfusion.errors import UserError
from dreamfusion.lights import albedo_only
from dreamfusion.loop import optimise, start
from dreamfusion.nerf.fields import Gaussians
from dreamfusion.nerf.fields.density import DensityActivation, Softplus
from dreamfusion.nerf.fields.fourier_mlp import FourierMlp, encoded
from dreamfusion.nerf.render import Picture, render
from dreamfusion.objectives import Seen, backgrounds
from dreamfusion.objectives.dream_fields import DreamFields, random_crops, target_opacity, transmittance
from dreamfusion.objectives.target import Target, similarity, target_of
from linear_clip import LinearClip
from mesh_scenes import ball, scene_of

CPU = torch.device("cpu")
PAGE = page("baselines.md")
NUMBERS = rows(PAGE, "Dream Fields: every number")


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def told(tiny_config) -> Config:
    """A tiny run of Dream Fields."""
    scene = replace(tiny_config.scene, background=SolidBackground((0.0, 0.0, 0.0)), centre_memory=0.9)
    return replace(tiny_config, objective=DreamFieldsObjective(crops=2), scene=scene, prompt="a ball")


@pytest.mark.parametrize("row", NUMBERS, ids=[row[0] for row in NUMBERS])
def test_each_number_is_the_presets_and_has_its_test(row):
    _, _, value, ours, proof = row
    (path,) = code(ours)
    require_row(DREAM_FIELDS, path, value, proof)


def test_every_row_says_how_sure_it_is():
    assert len(NUMBERS) > 20
    assert {row[1] for row in NUMBERS} <= {"code", "paper", "code, paper", "ours"}


# The loss


def test_similarity_is_the_mean_cosine_and_has_its_gradient():
    model = LinearClip()
    pictures = torch.rand(3, 8, 8, 3, generator=seeded(), dtype=torch.float64)
    target = Target("x", torch.nn.functional.normalize(torch.arange(8.0, dtype=torch.float64)[None] - 3, dim=-1))
    cells = pictures.view(3, 4, 2, 4, 2, 3).mean((2, 4)).movedim(-1, 1).flatten(1) - 0.5
    by_hand = torch.cosine_similarity(cells @ model.weights, target.embedding).mean()
    asked = pictures.clone().requires_grad_()
    assert similarity(asked, model, target).item() == pytest.approx(by_hand.item(), abs=1e-12)
    assert torch.autograd.gradcheck(lambda x: similarity(x, model, target), asked)


def test_a_model_that_cuts_the_graph_is_noticed():
    class Cut(LinearClip):
        def embed_images(self, image):
            return super().embed_images(image).detach()

    with pytest.raises(UserError, match="contrastive model returns tensors without their graph"):
        similarity(torch.rand(1, 8, 8, 3, requires_grad=True), Cut(), target_of("a ball", LinearClip()))


def test_transmittance_counts_up_to_its_target():
    opacity = torch.tensor([[[0.2, 0.4], [0.0, 0.2]], [[0.9, 0.7], [0.8, 0.8]]], requires_grad=True)
    value = transmittance(opacity, torch.tensor([0.5, 0.5]))
    assert value.item() == pytest.approx((0.5 + 0.2) / 2)
    value.backward()
    assert (opacity.grad[0] == 0).all()  # emptier than its target
    torch.testing.assert_close(opacity.grad[1], torch.full((2, 2), -1 / 8))


def test_the_target_falls_exponentially_over_five_hundred_of_ten_thousand_steps():
    at = DREAM_FIELDS.objective.opacity
    assert (at(0.0), at(1.0)) == (pytest.approx(0.5), pytest.approx(0.1))
    assert at(0.025) == pytest.approx(math.sqrt(0.05))
    assert at(0.05) == pytest.approx(0.1)


def test_the_target_grows_with_the_area_of_the_object():
    one = torch.ones(1)
    focal = 1.2 * 1111.1111 / 800

    def told(distance: float, focal: float, radius: float = 1.0) -> float:
        camera = orbit(0 * one, 0 * one, distance * one, 2 * torch.atan(0.5 / (focal * one)), 8)
        return target_opacity(camera, 0.1, radius).item()

    assert told(4.0, focal) == pytest.approx(0.12)
    assert told(8.0, focal) == pytest.approx(0.03)
    assert told(4.0, 2 * focal) == pytest.approx(0.48)
    assert told(8.0, focal, radius=2.0) == pytest.approx(0.12)
    assert told(1.0, focal) == 1.0


def test_the_terms_are_those_of_the_pictures_and_move_the_scene(told):
    run, model = start(told, CPU), LinearClip()
    cameras = run.recipe.cameras(2, told.size, seeded())
    background = run.scene.background.draw(2, seeded())
    picture = render(run.scene, cameras, albedo_only(2), run.recipe.train_render, seeded(), background)
    seen = Seen(picture, cameras, albedo_only(2), background, run.scene, 0.5)
    judged = run.objective(seen, model, target_of("a ball", model), seeded(3))
    objective = DreamFields(told.objective)
    crops = objective.augmented(picture, background, model.image_size, seeded(3))
    assert crops.shape == (4, 16, 16, 3)
    torch.testing.assert_close(judged.terms["similarity"], -similarity(crops, model, target_of("a ball", model)))
    mean = transmittance(picture.opacity, target_opacity(cameras, told.objective.opacity(0.5), 1.0))
    torch.testing.assert_close(judged.terms["transmittance"], -0.5 * mean)
    sum(judged.terms.values()).backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in run.scene.field.logits)


# Backgrounds and crops


def test_what_covers_a_pixel_hides_its_background_and_what_does_not_shows_it():
    opacity = torch.zeros(1, 8, 8)
    opacity[:, 2:6, 2:6] = 1.0
    behind = torch.tensor([[0.2, 0.5, 0.7]])
    red = torch.tensor([1.0, 0.0, 0.0])
    rgb = opacity[..., None] * red + (1 - opacity[..., None]) * behind[:, None, None]
    picture = Picture(rgb, opacity, opacity, None)
    objective = DreamFields(DreamFieldsObjective(crops=3, crop_size=1.0))
    seen = objective.augmented(picture, behind, 8, seeded())
    torch.testing.assert_close(seen[:, 2:6, 2:6], red.expand(3, 4, 4, 3))
    draws = seeded()
    torch.randint(1, (3, 2), generator=draws)
    torch.testing.assert_close(seen[:, 0], objective.backgrounds(3, 8, draws)[:, 0])


def test_crops_are_whole_pixels_anywhere_in_the_picture():
    place = torch.arange(22.0)
    picture = torch.stack(torch.meshgrid(place, place, indexing="ij"), -1)[None]
    crops = random_crops(picture, 200, 80 / 88, 20, seeded())
    corners = crops[:, 0, 0]
    assert corners.unique(dim=0).tolist() == [[y, x] for y in range(3) for x in range(3)]
    torch.testing.assert_close(crops - corners[:, None, None], picture[:, :20, :20].expand(200, 20, 20, 2))
    assert random_crops(torch.zeros(1, 88, 88, 1), 1, 80 / 88, 80, seeded()).shape == (1, 80, 80, 1)


def test_crops_are_resized_to_what_the_model_takes():
    ramp = torch.linspace(0, 1, 40)[None, :, None, None].expand(1, 40, 40, 1)
    (crop,) = random_crops(ramp, 1, 1.0, 80, seeded())
    assert crop.shape == (80, 80, 1)
    assert (crop[1:-1].diff(dim=0) > 0).all()
    assert crop.mean().item() == pytest.approx(0.5, abs=1e-5)


def test_a_third_of_the_backgrounds_are_of_each_kind():
    objective = DreamFields(DreamFieldsObjective(blur=(0.0, 0.0)))
    pictures = objective.backgrounds(600, 16, seeded())
    colours = torch.tensor([len(picture.view(-1, 3).unique(dim=0)) for picture in pictures])
    rough = pictures.diff(dim=1).square().mean((1, 2, 3))
    chequered = colours == 2
    noisy = ~chequered & (rough > 0.1)  # independent uniform numbers differ by 1/6 in the mean square
    smooth = ~chequered & ~noisy
    for share in (chequered, noisy, smooth):
        assert share.float().mean().item() == pytest.approx(1 / 3, abs=0.06)


def test_noise_is_uniform():
    values = backgrounds.noise(4, 32, seeded())
    assert (values.min() >= 0, values.max() <= 1) == (True, True)
    assert values.mean().item() == pytest.approx(0.5, abs=0.01)
    assert values.var().item() == pytest.approx(1 / 12, abs=0.005)


def test_checkers_have_eight_squares_per_side():
    colours = torch.tensor([[[0.0, 0.0, 0.0], [1.0, 1.0, 1.0]]])
    (picture,) = backgrounds.checker(colours, torch.tensor([8]), 64)
    row, column = picture[0, :, 0], picture[:, 0, 0]
    assert row.tolist() == column.tolist() == ([0.0] * 8 + [1.0] * 8) * 4
    assert picture.mean() == 0.5


def test_fourier_textures_are_smooth_and_look_alike_at_all_sizes():
    found = []
    for size in (32, 128):
        logit = backgrounds.fourier(64, size, seeded()).logit()
        assert logit.mean().abs() < 0.2
        power = torch.fft.fft(logit, dim=1).abs().square().mean((0, 2, 3)) / size**2
        found.append(power[:8])
        assert power[2] > 2 * power[4] > 4 * power[8]
    torch.testing.assert_close(found[0][1:], found[1][1:], rtol=0.3, atol=0.0)


def test_blur_is_the_gaussian_and_keeps_the_mean():
    spot = torch.zeros(2, 33, 33, 3)
    spot[:, 16, 16] = 1.0
    sharp, wide = backgrounds.blurred(spot, torch.tensor([0.0, 1.5 / 33]), reach=0.4)
    torch.testing.assert_close(sharp, spot[0])
    x = torch.arange(-16.0, 17)
    bell = torch.exp(-0.5 * (x / 1.5) ** 2)
    torch.testing.assert_close(wide[..., 0], (bell[:, None] * bell) / bell.sum() ** 2, atol=1e-5, rtol=1e-3)
    noise = backgrounds.noise(3, 16, seeded())
    assert backgrounds.blurred(noise, torch.full((3,), 0.1)).var() < noise.var() / 4


# The scene


def test_waves_are_the_axes_and_random_ones_of_up_to_eight_octaves():
    field = FourierMlp(FourierFieldConfig(), DensityActivation(Softplus(), DREAM_FIELDS.scene.blob), seeded())
    torch.testing.assert_close(field.waves[:3], torch.eye(3))
    octave = field.waves[3:].norm(dim=-1).log2()
    assert len(octave) == 128
    assert 0 <= octave.min() < 1 < 7 < octave.max() <= 8
    assert field.enter.in_features == 2 * 131
    assert [tuple(block.widen.weight.shape) for block in field.blocks] == [(256, 128)] * 4


def test_the_encoding_is_the_mean_under_the_gaussian():
    waves = torch.tensor([[1.0, 0.0, 0.0], [1.5, -2.0, 0.5]])
    at = Gaussians(mean=torch.tensor([[0.3, -0.2, 0.6]]), var=torch.tensor([[0.1, 0.2, 0.05]]))
    drawn = at.mean + at.var.sqrt() * torch.randn(200_000, 3, generator=seeded())
    phase = drawn @ waves.T
    expected = torch.cat([phase.cos(), phase.sin()], -1).mean(0)
    torch.testing.assert_close(encoded(at, waves)[0], expected, atol=4e-3, rtol=0.0)


def test_the_field_learns_and_density_is_softplus():
    law = DensityActivation(Softplus(), DREAM_FIELDS.scene.blob)
    field = FourierMlp(FourierFieldConfig(directions=4, blocks=1, width=8, inner=8), law, seeded())
    at = Gaussians(mean=torch.rand(5, 3, generator=seeded()), var=torch.full((5, 3), 1e-3))
    matter = field.evaluate(at)
    torch.testing.assert_close(field.density(at), matter.density)
    hidden = torch.nn.functional.silu(field.enter(encoded(at, field.waves)))
    out = field.to_matter(torch.nn.functional.silu(field.leave(field.blocks[0](hidden))))
    torch.testing.assert_close(matter.density, torch.nn.functional.softplus(out[:, 3]))
    torch.testing.assert_close(matter.albedo, out[:, :3].sigmoid())
    (matter.density.sum() + matter.albedo.sum()).backward()
    assert all(parameter.grad is not None for parameter in field.parameters())


def test_the_centre_follows_the_matter_as_a_running_mean():
    scene = scene_of(ball(0.3, (0.4, 0.0, -0.2)))
    scene.centre_memory, scene.centre = 0.75, torch.zeros(3)
    for step in range(1, 4):
        scene.track(seeded(step))
        share = 1 - 0.75**step
        torch.testing.assert_close(scene.centre, share * torch.tensor([0.4, 0.0, -0.2]), atol=0.02, rtol=0.0)


def test_the_centre_of_nothing_is_the_origin_and_most_scenes_have_none():
    scene = scene_of(lambda points: torch.zeros(len(points)))
    scene.track(seeded())
    assert scene.centre is None
    assert "centre" not in scene.state_dict()
    scene.centre_memory, scene.centre = 0.5, torch.ones(3)
    scene.track(seeded())
    torch.testing.assert_close(scene.centre, torch.full((3,), 0.5))


def test_views_are_taken_about_the_centre(told):
    camera = orbit(torch.tensor([0.4]), torch.tensor([0.3]), torch.tensor([3.0]), torch.tensor([0.7]), 16)
    moved = camera.about(torch.tensor([0.1, 0.2, -0.3]))
    here, there = scene_of(ball(0.3, (0.0, 0.0, 0.0))), scene_of(ball(0.3, (0.1, 0.2, -0.3)))
    options = start(told, CPU).recipe.eval_render
    one, other = (
        render(scene, cameras, albedo_only(1), options).opacity for scene, cameras in ((here, camera), (there, moved))
    )
    assert (one - other).abs().mean() < 0.02
    assert one.mean() > 0.05
    assert camera.about(None) is camera


def test_cameras_are_the_papers():
    cameras = OrbitSampler(DREAM_FIELDS.camera)(500, 88, seeded())
    torch.testing.assert_close(cameras.elevation, torch.full((500,), math.radians(30)), atol=1e-5, rtol=0.0)
    torch.testing.assert_close(cameras.position.norm(dim=-1), torch.full((500,), 4.0))
    torch.testing.assert_close(torch.rad2deg(cameras.fov_y), torch.full((500,), 33.4), atol=0.01, rtol=0.0)
    counts = torch.histc(cameras.azimuth, 4, -math.pi, math.pi)
    assert (counts - 125).abs().max() < 40


# Runs


def test_the_presets_are_valid_and_nothing_but_the_loss_regularises_them():
    for preset in (DREAM_FIELDS, DREAM_FIELDS_FAST):
        validate(replace(preset, prompt="a chair"))
        weights = preset.regularise
        assert {w(p) for w in (weights.opacity, weights.orientation, weights.entropy) for p in (0.0, 0.5, 1.0)} == {0.0}


def test_rates_begin_at_a_tenth_and_reach_their_full_size_after_1500_steps(told):
    config = replace(DREAM_FIELDS, prompt="a ball", device="cpu")
    assert config.optimise.lr_schedule(0.0) * config.optimise.network == pytest.approx(1e-5)
    assert config.optimise.lr_schedule(0.15) * config.optimise.network == pytest.approx(1e-4)
    assert config.optimise.lr_schedule(0.075) == pytest.approx(math.sqrt(0.1))
    small = FourierFieldConfig(directions=4, blocks=1, width=8, inner=8)
    run = start(replace(config, size=8, scene=replace(config.scene, field=small)), CPU)
    next(optimise(run, LinearClip(), target_of("a ball", LinearClip()), 1))
    (group,) = run.optimiser.param_groups
    assert (group["lr"], group["eps"]) == (pytest.approx(1e-5), 1e-5)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"negative": "a cat"}, "--negative"),
        ({"candidates": 3}, "--candidates"),
        ({"perp_neg": 1.0}, "--perp-neg"),
    ],
)
def test_what_needs_a_diffusion_prior_is_refused(told, changes, words):
    with pytest.raises(UserError, match=words):
        validate(replace(told, **changes))


def test_a_learned_background_is_refused(told):
    with pytest.raises(UserError, match="--background solid"):
        validate(replace(told, scene=replace(told.scene, background=LearnedBackground())))


def test_a_run_gets_nearer_to_its_caption_and_goes_on_bit_for_bit(told, tmp_path):
    model = LinearClip()
    target = target_of("a ball", model)
    told = replace(told, steps=40)
    run = start(told, CPU)
    seen = []
    for metrics in optimise(run, model, target, 40):
        seen.append(metrics.losses["similarity"])
        if metrics.step == 20:
            checkpoint.save(run, tmp_path)
    assert sum(seen[-10:]) / 10 < sum(seen[:10]) / 10 - 0.05
    assert {"similarity", "transmittance"} <= metrics.losses.keys()
    again = checkpoint.load(tmp_path, CPU)
    assert again.scene.centre.abs().sum() > 0
    list(optimise(again, model, target, 40))
    state, other = run.scene.state_dict(), again.scene.state_dict()
    assert "centre" in state
    assert all(torch.equal(state[name], other[name]) for name in state)


def test_cameras_stay_whole_records():
    camera = orbit(torch.zeros(1), torch.zeros(1), torch.ones(1), torch.ones(1), 4)
    assert isinstance(camera.about(torch.ones(3)), Cameras)
    torch.testing.assert_close(camera.about(torch.ones(3)).position, camera.position + 1)
