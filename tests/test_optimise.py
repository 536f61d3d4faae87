"""The loop: it converges, repeats, and stops before harm is done."""

import json
from dataclasses import replace

import pytest
import torch

from conftest import disc
from dreamfusion import checkpoint, generate, runtime, stepping
from dreamfusion.cameras import orbit
from dreamfusion.config import CameraConfig, Config, LightConfig, RegulariseConfig, SolidBackground
from dreamfusion.diffusion.priors import Prior
from dreamfusion.errors import UserError
from dreamfusion.lights import albedo_only
from dreamfusion.loop import Diverged, Metrics, Run, optimise, prompt_table, start
from dreamfusion.nerf.render import render_views
from dreamfusion.runs import RunFolder
from dreamfusion.schedules import Constant, Ramp
from gaussian_prior import GaussianPrior

CPU = torch.device("cpu")


def run_to_end(config: Config, prior: Prior) -> tuple[Run, list[Metrics]]:
    run = start(config, CPU)
    return run, list(optimise(run, prior, prompt_table(config, prior), config.steps))


def state(run: Run) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in run.scene.state_dict().items()}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_the_scene_becomes_what_the_prior_wants_to_see(long_config, disc_prior):
    config = replace(
        long_config,
        light=LightConfig(shaded=0.0),
        camera=CameraConfig((0.0, 0.0), 0.5, (0.0, 0.0), (3.0, 3.0), (40.0, 40.0), 0.0, 0.0, 0.0),
        scene=replace(long_config.scene, background=SolidBackground()),
    )
    zero, one = torch.zeros(1), torch.ones(1)
    front = orbit(zero, zero, 3 * one, one * torch.pi * 40 / 180, config.size)
    wanted = 0.5 + 0.5 * disc_prior.means[""].permute(1, 2, 0)

    def error(run: Run) -> float:
        seen = render_views(run.scene, front, albedo_only(1), run.recipe.train_render).rgb[0]
        return float((seen - wanted).square().mean())

    before = error(start(config, CPU))
    after = error(run_to_end(config, disc_prior)[0])
    assert after < 0.2 * before


def test_one_seed_is_one_run(tiny_config, disc_prior):
    (first, told), (second, told_again) = (run_to_end(tiny_config, disc_prior) for _ in range(2))
    assert same(state(first), state(second))
    assert [metrics.record() for metrics in told] == [metrics.record() for metrics in told_again]
    other, _ = run_to_end(replace(tiny_config, seed=1), disc_prior)
    assert not same(state(first), state(other))


@pytest.mark.processor
@pytest.mark.parametrize("threads", [1, 2])
def test_on_one_machine_with_as_many_threads_a_run_and_its_files_repeat_bit_for_bit(tiny_config, tmp_path, threads):
    """Pictures so large that threads share the work; half of it is done after the run was saved and loaded."""
    prior = disc(64)
    config = replace(tiny_config, steps=2, size=64, render=replace(tiny_config.render, samples=16), threads=threads)
    runtime.configure_torch(threads, repeatable=True)
    whole, told = run_to_end(config, prior)
    first = start(config, CPU)
    told_first = list(optimise(first, prior, prompt_table(config, prior), 1))
    checkpoint.save(first, tmp_path)
    second = checkpoint.load(tmp_path, CPU)
    rest = list(optimise(second, prior, prompt_table(config, prior), 2))
    assert same(state(second), state(whole))
    assert [metrics.record() for metrics in told_first + rest] == [metrics.record() for metrics in told]


def test_building_a_scene_does_not_touch_the_global_generator(tiny_config, disc_prior):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    run_to_end(replace(tiny_config, steps=2), disc_prior)
    assert torch.equal(torch.rand(3), expected)


class SickPrior(GaussianPrior):
    """Says nonsense from the third call on."""

    def predict_noise(self, noisy, t, text, known):
        calls = self.__dict__.setdefault("calls", [])
        calls.append(1)
        return super().predict_noise(noisy, t, text, known) * (torch.nan if len(calls) >= 3 else 1.0)


def test_a_number_that_is_none_stops_the_run_before_anything_is_updated(tiny_config, disc_prior):
    prior = SickPrior(disc_prior.means, disc_prior.std, disc_prior.schedule, disc_prior.image_size)
    run = start(tiny_config, CPU)
    steps = optimise(run, prior, prompt_table(tiny_config, prior), tiny_config.steps)
    next(steps), next(steps)
    before = state(run)
    with pytest.raises(Diverged, match="step 3"):
        next(steps)
    assert same(state(run), before)
    assert run.step == 2


def test_learning_rates_follow_their_schedule(tiny_config, disc_prior):
    config = replace(
        tiny_config, optimise=replace(tiny_config.optimise, grid=0.5, network=0.25, lr_schedule=Ramp(0.0, 1.0))
    )
    run = start(config, CPU)
    seen = []
    for _ in optimise(run, disc_prior, prompt_table(config, disc_prior), config.steps):
        seen.append([group["lr"] for group in run.optimiser.param_groups])
    assert seen == [[0.5 * k / 12, 0.25 * k / 12] for k in range(12)] or torch.allclose(
        torch.tensor(seen), torch.arange(12)[:, None] / 12 * torch.tensor([0.5, 0.25])
    )


def test_a_rate_of_zero_changes_no_parameter(tiny_config, disc_prior):
    config = replace(tiny_config, optimise=replace(tiny_config.optimise, lr_schedule=Constant(0.0)))
    run, _ = run_to_end(config, disc_prior)
    fresh = start(config, CPU)
    assert all(torch.equal(a, b) for a, b in zip(run.scene.parameters(), fresh.scene.parameters(), strict=True))


def test_regularisers_are_weighted_by_their_schedules(tiny_config, disc_prior):
    def losses(weight: float) -> dict[str, float]:
        weights = RegulariseConfig(opacity=Constant(weight), orientation=Constant(0.0), entropy=Constant(2 * weight))
        return run_to_end(replace(tiny_config, steps=1, regularise=weights), disc_prior)[1][0].losses

    once, thrice = losses(0.1), losses(0.3)
    assert thrice["opacity"] == pytest.approx(3 * once["opacity"], rel=1e-6)
    assert thrice["entropy"] == pytest.approx(3 * once["entropy"], rel=1e-6)
    assert set(losses(0.0)) == {"distillation"}


def test_orientation_acts_in_lit_views_only_unless_normals_are_asked_for(tiny_config, disc_prior):
    unlit = replace(tiny_config, steps=1, light=LightConfig(shaded=0.0))
    assert "orientation" not in run_to_end(unlit, disc_prior)[1][0].losses
    asked = replace(unlit, render=replace(unlit.render, normals=True))
    assert "orientation" in run_to_end(asked, disc_prior)[1][0].losses


def test_the_log_of_a_step_is_json_without_times(tiny_config, disc_prior):
    metrics = run_to_end(replace(tiny_config, steps=1), disc_prior)[1][0]
    record = json.loads(json.dumps(metrics.record(), allow_nan=False))
    assert record["step"] == 1
    assert "seconds" not in record
    assert sum(metrics.seconds.values()) > 0


def test_words_that_the_prior_does_not_know_are_said_at_once(tiny_config, disc_prior):
    prior = replace(disc_prior, vocabulary=frozenset({"a", "bell", "ball"}))
    prompt_table(tiny_config, prior)
    with pytest.raises(UserError, match=r"'bal'.*ball"):
        prompt_table(replace(tiny_config, prompt="a bal"), prior)
    with pytest.raises(UserError, match="ugly"):
        prompt_table(replace(tiny_config, negative="ugly"), prior)


def test_a_run_can_be_left_and_taken_up_between_steps(tiny_config, disc_prior):
    whole, _ = run_to_end(tiny_config, disc_prior)
    run = start(tiny_config, CPU)
    prompts = prompt_table(tiny_config, disc_prior)
    for until in (5, 5, 12):
        for _ in optimise(run, disc_prior, prompts, until):
            pass
    assert same(state(run), state(whole))


@pytest.mark.parametrize(("seconds", "shown"), [(0.0, 2), (30.0, 1)])
def test_previews_take_little_of_the_time(tiny_config, disc_prior, tmp_path, monkeypatch, seconds, shown):
    """Steps of 10 s, a preview wanted every 35 s: in steps 5 and 9, unless one takes long itself."""
    now, pictures = [0.0], []

    def preview(*_):
        now[0] += seconds
        return torch.zeros(4, 4, 3, dtype=torch.uint8).numpy()

    monkeypatch.setattr(stepping.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(stepping.video, "preview", preview)
    monkeypatch.setattr(stepping.video, "write_png", lambda picture, path: pictures.append(path))
    config = replace(tiny_config, preview_seconds=35.0)
    run = start(config, CPU)
    folder = RunFolder.create(tmp_path / "run", {})
    for _ in stepping.train(generate.Job(run, disc_prior, prompt_table(config, disc_prior), folder), lambda _: None):
        now[0] += 10.0
    assert len(pictures) == shown
