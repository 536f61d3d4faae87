"""Laws against the collapse to one mode: entropic and diverse score distillation, for priors of Gaussians."""

from dataclasses import replace

import pytest
import torch

from dreamfusion.checkpoint import load, save
from dreamfusion.config.distill import DistillConfig, DsdLaw, EsdLaw, VsdLaw
from dreamfusion.diffusion.ddim import ddim
from dreamfusion.diffusion.distill import Distillation, Dsd, Esd, UniformTimesteps, Vsd
from dreamfusion.diffusion.distill.esd import without_camera
from dreamfusion.diffusion.guidance import Guidance
from dreamfusion.diffusion.priors import Conditioning, ViewCondition, allowed_conditions
from dreamfusion.diffusion.prompts import PromptOptions, PromptTable
from dreamfusion.errors import UserError
from dreamfusion.lights import albedo_only
from dreamfusion.loop import optimise, prompt_table, start
from dreamfusion.records import mapped
from dreamfusion.schedules import Constant
from gaussian_prior import cosine_schedule
from test_distill_laws import COUNT, SCALE, SIZE, STD, conditioning, mode, pull, slope
from test_distill_laws import prior as prior  # the fixture
from test_distill_laws import random as drawn
from test_distill_vsd import Linear, LinearPrior, distillation, generator, random
from test_distill_vsd import config as config
from test_distill_vsd import mixing_prior as mixing_prior
from test_distill_vsd import slope as slope_at

CPU = torch.device("cpu")


def law_for(prior, seed: int = 0, **knobs) -> Dsd:
    law = Dsd(DsdLaw(**knobs))
    law.attach(prior, torch.Generator().manual_seed(seed))
    return law


def dsd_closed_form(prior, law: Dsd, t: int, x: torch.Tensor) -> torch.Tensor:
    """(x_t - alpha mode) / (spread of the noisy Gaussian) does not change on the path."""
    start = round(law.config.start * 1000)
    (_, alpha_0, sigma_0), (a_e, alpha_e, sigma_e), (a_t, alpha_t, sigma_t) = (
        slope(prior, at) for at in (start, min(t + round(law.config.gap * 1000), start), t)
    )
    spread_0 = (alpha_0**2 * STD**2 + sigma_0**2) ** 0.5
    spread_e = (alpha_e**2 * STD**2 + sigma_e**2) ** 0.5
    along = (sigma_0 * law.noise.double() - alpha_0 * mode(prior)) / spread_0
    e = a_e * spread_e * along
    return a_t * (alpha_t * (x - mode(prior)) + sigma_t * e) - e


@pytest.mark.parametrize("t", [100, 600, 990])
def test_the_noise_of_dsd_follows_the_flow_of_probability(prior, t):
    x, given = drawn(COUNT, 3, SIZE, SIZE, seed=9), conditioning(prior)
    errors = []
    for steps in (10, 40, 160):
        law = law_for(prior, steps=steps, start=0.95)
        errors.append((pull(prior, law, t, x, given) - dsd_closed_form(prior, law, t, x)).abs().max())
    assert errors[2] < 0.03
    if t < 950:
        assert errors[0] > 3 * errors[1] > 9 * errors[2]  # a method of first order
    else:  # the path has no length
        assert errors[0] < 1e-6


@pytest.mark.parametrize("steps", [1, 3])
def test_dsd_of_a_sure_prior_is_exact_and_does_not_depend_on_the_seed(prior, steps):
    """Its pictures of a caption are all the same: alpha / sigma (x - mode)."""
    sure, t, x = replace(prior, std=0.0), 300, drawn(COUNT, 3, SIZE, SIZE, seed=9)
    _, alpha, sigma = slope(sure, t)
    for seed in range(2):
        got = pull(sure, law_for(sure, seed, steps=steps), t, x, conditioning(sure))
        torch.testing.assert_close(got, (alpha / sigma * (x - mode(sure))).expand_as(got), rtol=1e-5, atol=1e-5)


def test_where_dsd_comes_to_rest_is_what_the_sampler_makes_of_the_seed(prior):
    """At little noise. SDS comes to rest at the mode, whatever the seed."""
    t, given, steps = 5, mapped(conditioning(prior), lambda tensor: tensor[:1]), 200
    for seed in range(2):
        law = law_for(prior, seed, steps=steps, gap=0.0, start=0.999)
        # The law is affine in x: its root from two values.
        zero, one = (pull(prior, law, t, torch.full((1, 3, SIZE, SIZE), value).double(), given) for value in (0.0, 1.0))
        rest = zero / (zero - one)
        sampled = ddim(prior, given, steps, SCALE, torch.Generator().manual_seed(seed), limit=None)
        torch.testing.assert_close(rest, sampled.double(), atol=0.03, rtol=0)
        assert (rest - mode(prior)).std() > 0.5 * STD


def test_dsd_has_one_noise_for_all_views_and_keeps_it(prior):
    law = law_for(prior)
    first = law.noise.clone()
    law.attach(prior, torch.Generator().manual_seed(5))
    assert torch.equal(law.noise, first)
    x = drawn(1, 3, SIZE, SIZE, seed=9).expand(COUNT, -1, -1, -1)
    one, other = pull(prior, law, 400, x, conditioning(prior))
    assert torch.equal(one, other)
    again = Dsd()
    again.load_state_dict(law.state_dict())
    assert torch.equal(again.noise, first)
    with pytest.raises(UserError, match="another prior"):
        pull(prior, law, 400, drawn(COUNT, 3, 4, 4), conditioning(prior))


@pytest.mark.parametrize("law", [DsdLaw(steps=2), EsdLaw(rank=2, rate=0.01)], ids=["dsd", "esd"])
def test_a_resumed_run_is_the_uninterrupted_one(law, tiny_config, mixing_prior, tmp_path):
    config = replace(tiny_config, distill=DistillConfig(law, guidance_scale=2.0))
    prompts = prompt_table(config, mixing_prior)
    whole, parts = start(config, CPU), start(config, CPU)
    for _ in optimise(whole, mixing_prior, prompts, 4):
        pass
    for _ in optimise(parts, mixing_prior, prompts, 2):
        pass
    save(parts, tmp_path)
    parts = load(tmp_path, CPU)
    for _ in optimise(parts, mixing_prior, prompts, 4):
        pass
    states = [run.scene.state_dict() | run.distillation.law.state_dict() for run in (whole, parts)]
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(tensor, states[1][name]) for name, tensor in states[0].items())


@pytest.fixture
def linear_prior():
    means = {"": random(3, 1, 1, seed=1), "chair": random(3, 1, 1, seed=2)}
    return LinearPrior(means, STD, cosine_schedule(dtype=torch.float32), 1, network=Linear(*slope_at(STD)))


def seen_from(prior, count: int, told: torch.Tensor | None = None) -> Conditioning:
    """The text says where from; without words it is the caption's."""
    empty, text = (prior.embed([caption]).expand(count, -1, -1) for caption in ("", "chair"))
    said = text if told is None else told.flatten(1)[:, None]
    none = text.new_zeros(count, 0, *text.shape[1:])
    return Conditioning(said, empty, ViewCondition(), none, text.new_zeros(count, 0), viewless=text)


def bent(law: Vsd, prior) -> Vsd:
    law.attach(prior, generator())
    for index, up in enumerate(law.adapter.up.values()):
        up.data.copy_(0.3 * random(*up.shape, seed=index))
    return law


def test_esd_lies_between_vsd_and_vsd_that_knows_no_camera(linear_prior):
    x, given = random(5, 3, 1, 1), seen_from(linear_prior, 5, random(5, 3, 1, 1, seed=8))

    def gradient(law: Vsd, given: Conditioning) -> torch.Tensor:
        return distillation(bent(law, linear_prior))(x, given, linear_prior, 0.0, generator(1))

    by_scale = {scale: gradient(Esd(EsdLaw(scale=scale)), given) for scale in (0.0, 0.3, 1.0)}
    torch.testing.assert_close(by_scale[1.0], gradient(Vsd(VsdLaw()), given))
    torch.testing.assert_close(by_scale[0.3], 0.7 * by_scale[0.0] + 0.3 * by_scale[1.0])
    guided_apart = gradient(Vsd(VsdLaw()), replace(given, text=given.viewless))
    told = Guidance(SCALE)
    assert not torch.allclose(by_scale[0.0], guided_apart)  # the prior itself is told the view
    law, level = bent(Esd(EsdLaw(scale=0.0)), linear_prior), Constant(0.5005)
    noised = Distillation(law, told, UniformTimesteps(level, level))._noised(x, given, linear_prior, 0.0, generator(1))
    wanted = noised.guided() - law.estimate(without_camera(noised))
    weight = linear_prior.schedule.sigma(noised.t).float()[:, None, None, None] ** 2
    torch.testing.assert_close(by_scale[0.0], weight * wanted)


def test_the_camera_is_hidden_from_the_adapter_in_words_and_pose(linear_prior):
    law, pose = Esd(), torch.eye(4).expand(5, 4, 4)
    given = replace(seen_from(linear_prior, 5, random(5, 3, 1, 1)), known=ViewCondition(pose=pose))
    noised = distillation(law)._noised(random(5, 3, 1, 1), given, linear_prior, 0.0, generator())
    hidden = without_camera(noised)
    assert hidden.given.known.pose is None
    assert torch.equal(hidden.given.text, given.viewless)
    assert noised.given.known.pose is not None


@pytest.mark.parametrize("hidden", [0.0, 0.25, 1.0])
def test_the_adapter_learns_with_and_without_the_camera_by_shares(linear_prior, hidden):
    law, given = bent(Esd(EsdLaw(hidden=hidden)), linear_prior), seen_from(linear_prior, 5, random(5, 3, 1, 1, seed=8))
    noised = distillation(law)._noised(random(5, 3, 1, 1), given, linear_prior, 0.0, generator())
    told, untold = ((law.estimate(at) - noised.eps).square().sum((1, 2, 3)) for at in (noised, without_camera(noised)))
    assert (told - untold).abs().min() > 1e-3
    torch.testing.assert_close(law.auxiliary_losses(noised)["adapter"], (1 - hidden) * told + hidden * untold)


def test_the_caption_without_view_words_is_there_only_if_it_is_asked_for(tiny_config, disc_prior):
    from dreamfusion.cameras import turntable

    words = replace(disc_prior.view_words, textureless="textureless")
    reader = replace(disc_prior, view_words=words)
    ring, light = turntable(4, 0.0, 3.0, 0.7, 8), albedo_only(4, CPU)
    light = replace(light, textureless=torch.tensor([False, True, False, True]))
    plain, asked = (PromptTable(reader, "a disc", PromptOptions(viewless=wanted)) for wanted in (False, True))
    assert plain(ring, light).viewless is None
    assert [caption for caption in asked.captions if caption not in plain.captions] == ["a disc", "a disc, textureless"]
    wanted = reader.embed(["a disc", "a disc, textureless"] * 2)
    torch.testing.assert_close(asked(ring, light).viewless, wanted.to(asked.table))
    torch.testing.assert_close(asked(ring, light).text, plain(ring, light).text)
    wordless = PromptTable(reader, "a disc", PromptOptions(viewless=True, view_dependent=False))
    assert wordless(ring, light).viewless is None
    esd = replace(tiny_config, distill=DistillConfig(EsdLaw()))
    assert prompt_table(esd, disc_prior).viewless is not None


def test_the_variety_alone_can_be_left_untold():
    able = frozenset({"pose", "light", "variety"})
    assert allowed_conditions(able, "no-variety") == {"pose", "light"}
    assert allowed_conditions(able, "all") == able
    assert allowed_conditions(able, "none") == frozenset()
