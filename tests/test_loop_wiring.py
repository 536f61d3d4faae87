"""The loop hands each part what it was made for, at the right step: shown with parts that record what they are asked.

What the parts answer is tested where they live. Here a step is watched from outside: by its samplers, its schedules,
its scene and its prior, and by what it leaves in the gradients and the metrics.
"""

from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import torch

from dreamfusion.cameras import Cameras, OrbitSampler
from dreamfusion.config import (
    CameraConfig,
    Config,
    DistillConfig,
    LightConfig,
    OptimiseConfig,
    RegulariseConfig,
    SolidBackground,
)
from dreamfusion.config.distill import VsdLaw
from dreamfusion.diffusion.distill import Distillation, surrogate
from dreamfusion.lights import Light, LightSampler
from dreamfusion.loop import Metrics, Run, optimise, prompt_table, start
from dreamfusion.nerf import regularise
from dreamfusion.nerf.fields import AnnealedField
from dreamfusion.nerf.fields.grid import GridField
from dreamfusion.nerf.render import render
from dreamfusion.schedules import Constant, Ramp, Steps
from gaussian_prior import GaussianPrior

CPU, STEPS = torch.device("cpu"), 12
STEADY = CameraConfig(distance=(3.0, 3.0), fov_deg=(40.0, 40.0), position_jitter=0.0, look_at_jitter=0.0, up_jitter=0.0)
"""The rays at the corners of its pictures pass the scene's ball, which ends 19.5 degrees off the axis: they are 27"""
EVERY_STEP = [step / STEPS for step in range(STEPS)]


@dataclass(frozen=True)
class Asked(Constant):
    """A constant that remembers for which progress it was asked."""

    at: list[float] = field(default_factory=list, compare=False)

    def __call__(self, progress: float) -> float:
        self.at.append(progress)
        return self.value


@dataclass(frozen=True)
class RecordedCameras(OrbitSampler):
    made: list[tuple[int, int, Cameras]] = field(default_factory=list, compare=False)

    def __call__(self, count: int, size: int, generator: torch.Generator) -> Cameras:
        cameras = super().__call__(count, size, generator)
        self.made.append((count, size, cameras))
        return cameras


@dataclass(frozen=True)
class RecordedLights(LightSampler):
    made: list[tuple[float, Cameras, Light]] = field(default_factory=list, compare=False)

    def __call__(self, cameras: Cameras, progress: float, generator: torch.Generator) -> Light:
        light = super().__call__(cameras, progress, generator)
        self.made.append((progress, cameras, light))
        return light


@dataclass(frozen=True, eq=False)
class RecordedPrior(GaussianPrior):
    """Can be told everything, has a short cut into its space, and remembers."""

    conditions: frozenset[str] = frozenset({"pose", "background", "light", "variety"})
    encoded: list[tuple[str, torch.Tensor]] = field(default_factory=list)
    asked: list[dict[str, Any]] = field(default_factory=list)

    def encode(self, image):
        self.encoded.append(("encode", image))
        return super().encode(image)

    def encode_linear(self, image):
        self.encoded.append(("encode_linear", image))
        return 0.5 * super().encode(image)

    def predict_noise(self, noisy, t, text, known):
        self.asked.append({"noisy": noisy, "t": t, "text": text, "known": known})
        return super().predict_noise(noisy, t, text, known)


@pytest.fixture
def prior(disc_prior) -> RecordedPrior:
    return RecordedPrior(disc_prior.means, disc_prior.std, disc_prior.schedule, disc_prior.image_size)


def recorded(config: Config) -> tuple[Run, RecordedCameras, RecordedLights]:
    """A run whose samplers record; otherwise the run of the configuration."""
    run = start(config, CPU)
    cameras, lights = (
        RecordedCameras(**vars(run.recipe.cameras)),
        RecordedLights(**vars(run.recipe.lights)),
    )
    run.recipe = replace(run.recipe, cameras=cameras, lights=lights)
    return run, cameras, lights


def follow(run: Run, prior: GaussianPrior, until: int = STEPS) -> list[Metrics]:
    return list(optimise(run, prior, prompt_table(run.config, prior), until))


def gradients(run: Run) -> dict[str, torch.Tensor]:
    return {name: p.grad.clone() for name, p in run.scene.named_parameters() if p.grad is not None}


def resting(config: Config) -> Config:
    """The same without any movement of the scene, so that steps differ in what is drawn only."""
    return replace(config, optimise=replace(config.optimise, lr_schedule=Constant(0.0)))


@pytest.mark.parametrize("name", ["opacity", "orientation", "entropy", "distortion", "smoothness"])
def test_the_weight_of_each_regulariser_is_asked_for_the_progress_of_the_run(tiny_config, disc_prior, name):
    weight = Asked(0.1)
    config = replace(
        tiny_config,
        regularise=replace(RegulariseConfig(), **{name: weight}),
        light=LightConfig(albedo_until=0.0, shaded=1.0),
    )
    run = start(config, CPU)
    weight.at.clear()
    told = follow(run, disc_prior)
    assert weight.at == EVERY_STEP
    assert all(metrics.losses[name] > 0 for metrics in told)


def test_the_weight_of_the_proposals_loss_is_asked_for_the_progress_of_the_run(tiny_paper, disc_prior):
    weight = Asked(0.1)
    run = start(replace(tiny_paper, regularise=replace(tiny_paper.regularise, interlevel=weight)), CPU)
    weight.at.clear()
    assert "interlevel" in follow(run, disc_prior, until=3)[-1].losses
    assert weight.at == EVERY_STEP[:3]


@pytest.mark.parametrize("name", ["t_min", "t_max"])
def test_the_noise_levels_are_asked_for_the_progress_of_the_run(tiny_config, disc_prior, name):
    limit = Asked({"t_min": 0.02, "t_max": 0.98}[name])
    run = start(replace(tiny_config, distill=replace(tiny_config.distill, **{name: limit})), CPU)
    limit.at.clear()
    follow(run, disc_prior)
    assert limit.at == EVERY_STEP


def test_the_prior_is_asked_at_the_noise_levels_of_the_step(tiny_config, prior):
    levels = Steps((0.1, 0.5, 0.9), (4 / STEPS, 8 / STEPS))
    config = replace(tiny_config, distill=DistillConfig(guidance_scale=1.0, t_min=levels, t_max=levels))
    follow(start(config, CPU), prior)
    seen = [sorted(set(asked["t"].tolist())) for asked in prior.asked]
    assert seen == [[100]] * 4 + [[500]] * 4 + [[900]] * 4


def test_learning_rates_are_the_bases_times_the_schedule_at_the_progress_before_the_step(tiny_config, disc_prior):
    rate = Asked(0.5)
    rates = OptimiseConfig(grid=0.04, network=0.008, lr_schedule=rate)
    run = start(replace(tiny_config, optimise=rates), CPU)
    rate.at.clear()
    follow(run, disc_prior)
    assert rate.at == EVERY_STEP
    assert [group["lr"] for group in run.optimiser.param_groups] == pytest.approx([0.02, 0.004])


def test_a_schedule_of_the_learning_rate_holds_in_the_very_step_for_which_it_is_asked(tiny_config, disc_prior):
    """The rate is set before the optimiser moves, not after: only the third step moves anything."""
    rate = Steps((0.0, 1.0, 0.0), (2 / STEPS, 3 / STEPS))
    run = start(replace(tiny_config, optimise=replace(tiny_config.optimise, lr_schedule=rate)), CPU)
    moved = []
    prompts = prompt_table(run.config, disc_prior)
    for _ in range(5):
        before = [p.detach().clone() for p in run.scene.parameters()]
        next(optimise(run, disc_prior, prompts, STEPS))
        moved.append(not all(map(torch.equal, before, run.scene.parameters())))
    assert moved == [False, False, True, False, False]


def test_what_is_blurred_is_set_before_each_picture_to_the_variance_of_the_step(tiny_paper, disc_prior, monkeypatch):
    blur = Ramp(0.05, 0.002, 0.0, 1.0)
    run = start(replace(tiny_paper, scene=replace(tiny_paper.scene, variance=blur)), CPU)
    events: list[Any] = []
    assert run.scene.proposal is not None
    assert isinstance(run.scene.field, AnnealedField)
    ask, cut, colour = run.scene.field.set_variance, run.scene.proposal.set_variance, run.scene.background.colour
    monkeypatch.setattr(run.scene.field, "set_variance", lambda v: (events.append(("field", v)), ask(v)))
    monkeypatch.setattr(run.scene.proposal, "set_variance", lambda v, p: (events.append(("cuts", v, p)), cut(v, p)))
    monkeypatch.setattr(run.scene.background, "colour", lambda way: (events.append("picture"), colour(way))[1])
    follow(run, disc_prior, until=3)
    expected = [[("field", blur(p)), ("cuts", blur(p), p), "picture"] for p in EVERY_STEP[:3]]
    assert events == [event for step in expected for event in step]


def refreshes(run: Run, prior: GaussianPrior, monkeypatch) -> list[tuple[int, int]]:
    """(steps done, parts) of each refresh of the occupancy in the rest of a run."""
    seen, update = [], run.scene.occupancy.update

    def recording(field, generator, parts=1):
        assert field is run.scene.field
        assert generator is run.generator
        seen.append((run.step, parts))
        update(field, generator, parts)

    monkeypatch.setattr(run.scene.occupancy, "update", recording)
    follow(run, prior)
    return seen


def test_the_occupancy_is_refreshed_at_the_promised_steps_and_with_the_promised_parts(
    tiny_config, disc_prior, monkeypatch
):
    occupancy = replace(tiny_config.scene.occupancy, every=5, parts=4)
    run = start(replace(tiny_config, scene=replace(tiny_config.scene, occupancy=occupancy)), CPU)
    assert refreshes(run, disc_prior, monkeypatch) == [(5, 4), (10, 4)]


def test_a_run_begins_with_all_cells_asked_unless_nothing_is_remembered(tiny_config, disc_prior, monkeypatch):
    assert start(tiny_config, CPU).scene.occupancy.density.isfinite().all()
    never = replace(tiny_config.scene, occupancy=replace(tiny_config.scene.occupancy, every=0))
    run = start(replace(tiny_config, scene=never), CPU)
    assert refreshes(run, disc_prior, monkeypatch) == []
    assert run.scene.occupancy.occupied.all()


@pytest.mark.parametrize("parts", [1, 2, 4])
def test_refreshes_reach_every_cell_in_as_many_as_the_parts(tiny_config, disc_prior, parts):
    occupancy = replace(tiny_config.scene.occupancy, every=3, parts=parts)
    run = start(replace(tiny_config, scene=replace(tiny_config.scene, occupancy=occupancy)), CPU)
    run.scene.occupancy.density.fill_(torch.inf)  # as if no cell had been asked
    left = []
    for steps in range(3, 3 * parts + 1, 3):
        follow(run, disc_prior, until=steps)
        left.append(float(run.scene.occupancy.density.isinf().float().mean()))
    assert left == [1 - (k + 1) / parts for k in range(parts)]


def test_a_refresh_sees_the_scene_as_the_step_left_it_and_the_step_counts_the_cells_before(
    tiny_config, disc_prior, monkeypatch
):
    """Matter that vanishes in the third step is gone from the memory after it, but was searched in it."""
    occupancy = replace(tiny_config.scene.occupancy, every=3, parts=1, decay=0.0)
    run = start(replace(tiny_config, scene=replace(tiny_config.scene, occupancy=occupancy)), CPU)
    follow(run, disc_prior, until=2)
    searched = float(run.scene.occupancy.occupied_fraction())
    step, field = run.optimiser.step, run.scene.field
    assert isinstance(field, GridField)

    def vanish(*args, **kwargs):
        step(*args, **kwargs)
        with torch.no_grad():
            for level in field.logits:
                level.fill_(-100.0)

    monkeypatch.setattr(run.optimiser, "step", vanish)
    (metrics,) = follow(run, disc_prior, until=3)
    assert metrics.occupied == pytest.approx(searched)
    assert searched > 0
    assert run.scene.occupancy.occupied_fraction() == 0


def test_the_samplers_are_asked_for_the_run_s_views_at_its_progress(tiny_config, disc_prior):
    run, cameras, lights = recorded(replace(tiny_config, views=3))
    follow(run, disc_prior)
    assert [(count, size) for count, size, _ in cameras.made] == [(3, tiny_config.size)] * STEPS
    assert [progress for progress, _, _ in lights.made] == EVERY_STEP
    assert all(
        torch.equal(taken.pose, lit.pose) for (*_, taken), (_, lit, _) in zip(cameras.made, lights.made, strict=True)
    )


def test_views_are_lit_from_albedo_until_on_in_the_picture_and_for_the_prior(tiny_config, prior):
    run = start(replace(tiny_config, light=LightConfig(albedo_until=0.5, shaded=1.0)), CPU)
    told = follow(run, prior)
    assert [bool((asked["known"].light.diffuse > 0).all()) for asked in prior.asked] == [False] * 6 + [True] * 6
    # Orientation needs normals, which are there where a picture was lit.
    assert ["orientation" in metrics.losses for metrics in told] == [False] * 6 + [True] * 6


def test_the_short_cut_is_taken_before_latent_until_and_never_after(tiny_config, prior):
    follow(start(replace(tiny_config, memory=replace(tiny_config.memory, latent_until=0.25)), CPU), prior)
    assert [name for name, _ in prior.encoded] == ["encode_linear"] * 3 + ["encode"] * 9


@pytest.mark.parametrize(("until", "name"), [(0.0, "encode"), (1.0, "encode_linear")])
def test_the_short_cut_is_never_taken_or_always(tiny_config, prior, until, name):
    follow(start(replace(tiny_config, memory=replace(tiny_config.memory, latent_until=until)), CPU), prior, until=3)
    assert [name for name, _ in prior.encoded] == [name] * 3


def test_a_prior_without_a_short_cut_encodes(tiny_config, disc_prior):
    metrics = follow(start(replace(tiny_config, memory=replace(tiny_config.memory, latent_until=1.0)), CPU), disc_prior)
    assert len(metrics) == STEPS


def test_the_prior_hears_of_the_very_views_that_were_rendered(tiny_config, prior):
    """Of pose, light and background; the rays at the corners pass the object, so they show the background."""
    run, cameras, lights = recorded(
        replace(tiny_config, seed=7, camera=STEADY, light=LightConfig(albedo_until=0.0, shaded=1.0))
    )
    follow(run, prior, until=4)
    assert len(prior.asked) == 4
    for asked, (_, image), (*_, taken), (*_, light) in zip(
        prior.asked, prior.encoded, cameras.made, lights.made, strict=True
    ):
        known, views = asked["known"], tiny_config.views
        assert torch.equal(known.pose[:views], taken.pose)
        assert torch.equal(known.light.position[:views], light.position)
        assert torch.equal(known.light.diffuse[:views], light.diffuse)
        assert known.variety.tolist() == [7] * len(known.variety)
        assert torch.allclose(image[:, 0, 0], known.background[:views], atol=1e-5)
        assert not torch.allclose(known.background[0], known.background[1])


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_a_step_leaves_the_gradient_of_the_algorithm_and_no_other(tiny_config, disc_prior, reduction):
    """Three steps at rest, so that whatever is left over from a step before would show. The third is done by hand."""
    config = resting(
        replace(
            tiny_config,
            light=LightConfig(albedo_until=0.0, shaded=1.0),
            regularise=RegulariseConfig(
                opacity=Constant(0.3),
                orientation=Constant(0.2),
                entropy=Constant(0.1),
                distortion=Constant(0.4),
                smoothness=Constant(0.5),
                reduction=reduction,
            ),
        )
    )
    run, hand = start(config, CPU), start(config, CPU)
    follow(hand, disc_prior, until=2)
    metrics = follow(run, disc_prior, until=3)[-1]

    scene, draws, progress = hand.scene, hand.generator, 2 / STEPS
    assert isinstance(scene.field, GridField)
    cameras = hand.recipe.cameras(config.views, config.size, draws)
    light = hand.recipe.lights(cameras, progress, draws)
    background = scene.background.draw(config.views, draws)
    picture = render(scene, cameras, light, hand.recipe.train_render, draws, background)
    x = disc_prior.encode(picture.rgb)
    given = prompt_table(config, disc_prior)(cameras, light, background)
    pull = hand.distillation(x, given, disc_prior, progress, draws)
    pixels = config.size**2 if reduction == "sum" else 1
    parts = {
        "opacity": 0.3 * pixels * regularise.opacity(picture),
        "orientation": 0.2 * pixels * regularise.orientation(picture),
        "entropy": 0.1 * pixels * regularise.entropy(picture),
        "distortion": 0.4 * pixels * regularise.distortion(picture),
        "smoothness": 0.5 * regularise.total_variation(scene.field.merged_logits()),
    }
    loss = surrogate(x, pull) + sum(parts.values())
    parameters = dict(scene.named_parameters())
    expected = dict(zip(parameters, torch.autograd.grad(loss, list(parameters.values())), strict=True))

    left = gradients(run)
    assert left.keys() == expected.keys()
    for name, gradient in left.items():
        assert gradient.abs().max() > 0, name
        torch.testing.assert_close(gradient, expected[name], rtol=1e-4, atol=1e-6 * float(gradient.abs().max()))

    norm = torch.cat([gradient.flatten() for gradient in expected.values()]).norm()
    assert metrics.gradient_norm == pytest.approx(float(norm), rel=1e-4)
    assert metrics.opacity == pytest.approx(picture.opacity.mean().item(), rel=1e-4)
    assert metrics.losses == pytest.approx(
        {"distillation": pull.flatten(1).norm(dim=1).mean().item()}
        | {name: part.item() for name, part in parts.items()},
        rel=1e-4,
    )


def test_metrics_say_which_step_was_done_and_when(tiny_config, disc_prior):
    run = start(tiny_config, CPU)
    told = follow(run, disc_prior)
    assert [metrics.step for metrics in told] == list(range(1, STEPS + 1))
    assert run.step == STEPS
    assert run.progress == 1.0
    for metrics in told:
        assert list(metrics.seconds) == ["render", "prior", "backward", "update"]
        assert all(seconds >= 0 for seconds in metrics.seconds.values())
        record = metrics.record()
        assert record == {
            "step": metrics.step,
            "losses": metrics.losses,
            "opacity": metrics.opacity,
            "occupied": metrics.occupied,
            "gradient_norm": metrics.gradient_norm,
            "vitals": metrics.vitals,
        }


def test_a_run_that_goes_on_past_its_end_stays_at_the_end_of_its_schedules(tiny_config, disc_prior):
    run, _, lights = recorded(replace(tiny_config, steps=2))
    follow(run, disc_prior, until=4)
    assert [progress for progress, *_ in lights.made] == [0.0, 0.5, 1.0, 1.0]


def test_regularisers_of_weight_zero_are_left_out_step_by_step(tiny_config, disc_prior):
    weight = Steps((0.0, 0.1, 0.0), (0.25, 0.5))
    config = replace(tiny_config, regularise=RegulariseConfig(opacity=Constant(0.0), entropy=weight))
    told = follow(start(config, CPU), disc_prior)
    assert ["entropy" in metrics.losses for metrics in told] == [False] * 3 + [True] * 3 + [False] * 6
    assert all("opacity" not in metrics.losses for metrics in told)


def test_the_parameters_of_a_learned_background_learn_at_their_own_rate(tiny_paper, disc_prior):
    rates = replace(tiny_paper.optimise, grid=0.0, network=0.0, background=0.01)
    run = start(replace(tiny_paper, optimise=rates), CPU)
    before = {name: p.detach().clone() for name, p in run.scene.named_parameters()}
    follow(run, disc_prior, until=2)
    moved = {name.split(".")[0] for name, p in run.scene.named_parameters() if not torch.equal(p, before[name])}
    assert moved == {"background"}


class Bends(torch.nn.Module):
    """One linear layer over the channels, frozen: a network that can be adapted."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(3, 3)
        self.layer.weight.data.copy_(0.3 * torch.eye(3))
        self.layer.bias.data.zero_()
        self.requires_grad_(False)


@dataclass(frozen=True, eq=False)
class BendingPrior(RecordedPrior):
    network: Bends = field(default_factory=Bends)

    def predict_noise(self, noisy, t, text, known):
        self.asked.append({"t": t})
        return self.network.layer(noisy.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def test_a_law_that_learns_does_so_from_the_first_step_at_its_rate_times_the_schedule(tiny_config, prior):
    bending = BendingPrior(prior.means, prior.std, prior.schedule, prior.image_size)
    config = replace(
        tiny_config,
        distill=DistillConfig(law=VsdLaw(rank=2, rate=0.01), guidance_scale=1.0),
        optimise=replace(tiny_config.optimise, lr_schedule=Constant(0.5)),
    )
    run = start(config, CPU)
    assert isinstance(run.distillation.law, torch.nn.Module)
    (first,) = follow(run, bending, until=1)
    learnt = list(run.distillation.law.parameters())
    assert learnt
    assert all(p.detach().abs().max() > 0 for p in learnt)  # half of them begin at zero
    assert first.losses["adapter"] > 0
    own = [g for g in run.optimiser.param_groups if any(p is q for p in g["params"] for q in learnt)]
    assert [group["lr"] for group in own] == pytest.approx([0.005])
    follow(run, bending, until=3)
    assert len(run.optimiser.param_groups) == 3  # grid, network, adapter: added once
    assert all(p.grad is None for p in bending.network.parameters())


def test_the_loss_of_a_law_that_learns_pulls_at_nothing_in_the_scene(tiny_config, prior, monkeypatch):
    """The scene's gradient is the same where that loss is left out, and the adapter has none then."""
    bending = BendingPrior(prior.means, prior.std, prior.schedule, prior.image_size)
    config = resting(replace(tiny_config, distill=DistillConfig(law=VsdLaw(), guidance_scale=1.0)))
    run, silent = start(config, CPU), start(config, CPU)
    follow(run, bending, until=1)
    monkeypatch.setattr(Distillation, "auxiliary_losses", lambda *_: {})
    law = silent.distillation.law
    (metrics,) = follow(silent, bending, until=1)
    assert "adapter" not in metrics.losses
    assert isinstance(law, torch.nn.Module)
    assert all(p.grad is None for p in law.parameters())
    with_it, without = gradients(run), gradients(silent)
    assert with_it.keys() == without.keys()
    assert all(torch.equal(with_it[name], without[name]) for name in without)


def test_a_plain_background_is_seen_at_rest_and_in_training(tiny_config, prior):
    config = replace(
        tiny_config,
        scene=replace(tiny_config.scene, background=SolidBackground((0.2, 0.4, 0.6))),
        camera=STEADY,
    )
    follow(start(config, CPU), prior, until=2)
    for _, image in prior.encoded:
        torch.testing.assert_close(image[:, 0, 0], torch.tensor([[0.2, 0.4, 0.6]]).expand(2, 3))
