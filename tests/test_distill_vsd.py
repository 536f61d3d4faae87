"""Variational score distillation: what the adapter changes, what it learns, and that a checkpoint holds it."""

import copy
from collections import OrderedDict
from dataclasses import dataclass, field, replace

import pytest
import torch
from torch import nn

import miniatures
from dreamfusion.checkpoint import load, save
from dreamfusion.config.distill import DistillConfig, VsdLaw
from dreamfusion.diffusion.distill import Csd, Distillation, UniformTimesteps, Vsd
from dreamfusion.diffusion.distill.adapter import Adapter
from dreamfusion.diffusion.guidance import Guidance
from dreamfusion.diffusion.priors import Conditioning, ViewCondition
from dreamfusion.errors import UserError
from dreamfusion.loop import Diverged, advance, optimise, prompt_table, start
from dreamfusion.schedules import Constant
from gaussian_prior import GaussianPrior, cosine_schedule
from training.nouns import Noun

CPU, T, SCALE, STD, STEPS = torch.device("cpu"), 500, 3.0, 0.4, 200


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=generator(seed))


class Linear(nn.Module):
    """Says the prior's truth as a linear layer of the noisy picture, the mean and a one: what adapters can bend."""

    def __init__(self, noise_slope: float, mean_slope: float):
        super().__init__()
        self.layer = nn.Linear(7, 3, bias=False)
        eye = torch.eye(3)
        self.layer.weight.data = torch.cat([noise_slope * eye, -mean_slope * eye, torch.zeros(3, 1)], dim=1)
        self.requires_grad_(False)

    def forward(self, noisy: torch.Tensor, mean: torch.Tensor) -> torch.Tensor:
        inputs = torch.cat([noisy.flatten(1), mean, noisy.new_ones(len(noisy), 1)], dim=1)
        return self.layer(inputs).view_as(noisy)


@dataclass(frozen=True, eq=False)
class LinearPrior(GaussianPrior):
    """Pictures of one pixel at the timestep T only."""

    network: Linear = field(kw_only=True)

    def predict_noise(self, noisy, t, text, known):
        return self.network(noisy, text[:, 0])


def slope(std: float) -> tuple[float, float]:
    """A and A alpha of a Gaussian's noise estimate A (x_t - alpha mean) at T."""
    schedule, t = cosine_schedule(), torch.tensor([T])
    alpha, sigma = schedule.alpha(t).item(), schedule.sigma(t).item()
    a = sigma / (alpha**2 * std**2 + sigma**2)
    return a, a * alpha


@pytest.fixture
def prior():
    means = {"": random(3, 1, 1, seed=1), "chair": random(3, 1, 1, seed=2)}
    return LinearPrior(means, STD, cosine_schedule(dtype=torch.float32), 1, network=Linear(*slope(STD)))


def conditioning(prior, count: int) -> Conditioning:
    empty, text = (prior.embed([caption]).expand(count, -1, -1) for caption in ("", "chair"))
    return Conditioning(
        text, empty, ViewCondition(), text.new_zeros(count, 0, *text.shape[1:]), text.new_zeros(count, 0)
    )


def distillation(law, scale: float = SCALE, draws: int = 1) -> Distillation:
    level = Constant((T + 0.5) / 1000)
    return Distillation(law, Guidance(scale), UniformTimesteps(level, level), noise_samples=draws)


def test_before_it_has_learnt_anything_vsd_is_csd_with_a_scale_of_one_less(prior):
    x, given, law = random(5, 3, 1, 1), conditioning(prior, 5), Vsd()
    law.attach(prior, generator())
    got = distillation(law)(x, given, prior, 0.0, generator(1))
    wanted = distillation(Csd(), SCALE - 1)(x, given, prior, 0.0, generator(2))
    torch.testing.assert_close(got, wanted)


@pytest.fixture
def renderings():
    """Of a scene that varies: pictures from N(mean, 0.8^2)."""
    return 0.8, random(3, 1, 1, seed=5)


def taught(law: Vsd, prior, renderings) -> Vsd:
    std, mean = renderings
    law.attach(prior, generator())
    learner, pictures = torch.optim.Adam(law.parameters(), lr=law.rate), generator(1)
    for step in range(STEPS):
        learner.param_groups[0]["lr"] = law.rate * (1 - step / STEPS)
        x = mean + std * torch.randn(256, 3, 1, 1, generator=pictures)
        learner.zero_grad()
        lessons = distillation(law).auxiliary_losses(x, conditioning(prior, 256), prior, 0.0, pictures)
        lessons["adapter"].backward()
        learner.step()
    return law


def test_the_adapter_learns_the_score_of_the_renderings_and_vsd_is_the_difference_of_two_scores(prior, renderings):
    std, mean = renderings
    law = taught(Vsd(VsdLaw(rank=3, rate=0.03)), prior, renderings)
    x, draws = random(4, 3, 1, 1, seed=7), 5000
    got = distillation(law, draws=draws)(x, conditioning(prior, 4), prior, 0.0, generator(2))
    alpha, sigma = (value(torch.tensor([T])).item() for value in (prior.schedule.alpha, prior.schedule.sigma))
    (a, a_alpha), (b, b_alpha) = slope(STD), slope(std)
    mode = prior.means[""] + SCALE * (prior.means["chair"] - prior.means[""])
    wanted = sigma**2 * ((a - b) * alpha * x - a_alpha * mode + b_alpha * mean)
    assert wanted.abs().max() > 0.4
    assert (got - wanted).abs().max() < 0.03


def test_vsd_lets_renderings_that_are_as_the_prior_wants_alone(prior):
    """Unlike SDS, which pulls every single one of them to the mode: here the adapter has nothing to learn."""
    like_the_prior = STD, prior.means["chair"]
    law = taught(Vsd(VsdLaw(rank=3, rate=0.03)), prior, like_the_prior)
    x = random(4, 3, 1, 1, seed=7)
    assert distillation(law, scale=1.0)(x, conditioning(prior, 4), prior, 0.0, generator(2)).abs().max() < 0.03


def networks():
    from diffusers import UNet2DConditionModel

    torch.manual_seed(0)
    toy = miniatures.tables([Noun("chair", "a", 0.0), Noun("sofa", "b", 0.0)])
    unet = UNet2DConditionModel(
        sample_size=16, block_out_channels=(8, 16), layers_per_block=1, cross_attention_dim=8, norm_num_groups=4,
        in_channels=3, out_channels=3, attention_head_dim=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
    )  # fmt: skip
    return {"embedded": toy, "diffusers": unet}


@pytest.mark.parametrize("kind", ["embedded", "diffusers"])
@torch.no_grad()
def test_an_adapted_network_is_the_one_with_merged_weights_and_is_itself_again_afterwards(kind):
    network = networks()[kind].eval().double()
    width = network.config["text_width"] if kind == "embedded" else 8
    inputs = random(2, 3, 16, 16).double(), torch.tensor([10, 700]), random(2, 4, width).double()

    told = {"pose": torch.eye(4).expand(2, 4, 4), "variety": torch.zeros(2).long()} if kind == "embedded" else {}

    def answer(module: nn.Module) -> torch.Tensor:
        output = module(*inputs, **told)
        return getattr(output, "sample", output)

    plain, weights = answer(network), copy.deepcopy(network.state_dict())
    adapter = Adapter()
    adapter.grow(network, 2, generator())
    adapter.double()
    with adapter.on(network):
        torch.testing.assert_close(answer(network), plain)
    for index, up in enumerate(adapter.up.values()):
        up.copy_(0.3 * random(*up.shape, seed=index))
    merged = copy.deepcopy(network)
    for key in adapter.down:
        merged.get_submodule(key.replace("/", ".")).weight += adapter.up[key] @ adapter.down[key]
    with adapter.on(network):
        adapted = answer(network)
    torch.testing.assert_close(adapted, answer(merged))
    assert (adapted - plain).abs().max() > 1e-2
    assert torch.equal(answer(network), plain)
    assert all(torch.equal(weights[name], tensor) for name, tensor in network.state_dict().items())


def test_gradients_reach_the_adapter_and_nothing_else(prior):
    law, x = Vsd(), random(5, 3, 1, 1).requires_grad_()
    law.attach(prior, generator())
    distillation(law).auxiliary_losses(x, conditioning(prior, 5), prior, 0.0, generator(1))["adapter"].backward()
    assert law.adapter.up["layer"].grad.abs().max() > 0
    assert x.grad is None
    assert prior.network.layer.weight.grad is None


def test_a_network_in_half_precision_is_adapted_in_single():
    network = nn.Linear(6, 4).to(torch.bfloat16).requires_grad_(False)
    adapter = Adapter()
    adapter.grow(network, 2, generator())
    with adapter.on(network):
        output = network(random(3, 6).to(torch.bfloat16))
    assert output.dtype == torch.bfloat16
    output.sum().backward()
    (up,) = adapter.up.values()
    assert up.dtype == up.grad.dtype == torch.float32


def test_a_prior_without_a_network_or_with_another_one_is_refused(prior):
    without = GaussianPrior(prior.means, STD, prior.schedule, 1)
    with pytest.raises(UserError, match=r"no network to adapt.*--distill"):
        Vsd().attach(without, generator())
    law = Vsd()
    law.attach(prior, generator())
    first = [parameter.clone() for parameter in law.parameters()]
    law.attach(prior, generator(1))
    assert all(torch.equal(a, b) for a, b in zip(first, law.parameters(), strict=True)), "made twice"
    other = Linear(1.0, 1.0)
    other.layer = nn.Linear(7, 4)
    with pytest.raises(UserError, match="another prior"):
        law.attach(replace(prior, network=other), generator())
    assert Vsd(VsdLaw(rank=1)).rank == 1


@dataclass(frozen=True, eq=False)
class MixingPrior(GaussianPrior):
    """Its estimate goes through a network that leaves it as it is, until it is adapted."""

    network: nn.Linear = field(kw_only=True)

    def predict_noise(self, noisy, t, text, known):
        return self.network(super().predict_noise(noisy, t, text, known).movedim(1, -1)).movedim(-1, 1)


@pytest.mark.parametrize(
    ("down", "up"),
    [
        (random(2, 7)[0], random(3, 2)),
        (random(2, 7), random(3, 2)[0]),
        (random(2, 7), random(3, 4)),
        (random(2, 7).long(), random(3, 2).long()),
    ],
    ids=["down is no matrix", "up is no matrix", "another rank", "whole numbers"],
)
def test_what_is_no_pair_of_low_rank_factors_is_no_adapter(down, up):
    with pytest.raises(ValueError, match="no pair of low-rank factors"):
        Adapter().adopt({"down.layer": down, "up.layer": up})


@pytest.fixture
def mixing_prior(disc_prior):
    network = nn.Linear(3, 3, bias=False).requires_grad_(False)
    network.weight.copy_(torch.eye(3))
    return MixingPrior(disc_prior.means, disc_prior.std, disc_prior.schedule, disc_prior.image_size, network=network)


@pytest.fixture
def config(tiny_config):
    return replace(tiny_config, distill=DistillConfig(VsdLaw(rank=2, rate=0.01), guidance_scale=2.0))


def everything(run) -> dict[str, torch.Tensor]:
    parameters = [*run.scene.parameters(), *run.distillation.law.parameters()]
    moments = {
        f"{index}.{name}": value.clone()
        for index, parameter in enumerate(parameters)
        for name, value in run.optimiser.state[parameter].items()
    }
    states = run.scene.state_dict() | run.distillation.law.state_dict()
    return {name: value.clone() for name, value in states.items()} | moments | {"draws": run.generator.get_state()}


def assert_same(a, b) -> None:
    left, right = everything(a), everything(b)
    assert left.keys() == right.keys()
    assert [name for name in left if not torch.equal(left[name], right[name])] == []


def gone(run, prior, until: int) -> list[dict[str, object]]:
    return [metrics.record() for metrics in optimise(run, prior, prompt_table(run.config, prior), until)]


def test_n_steps_and_m_steps_are_n_plus_m_steps_bit_for_bit(config, mixing_prior, tmp_path):
    whole, again = start(config, CPU), start(config, CPU)
    told = gone(whole, mixing_prior, 8)
    told_first = gone(again, mixing_prior, 5)
    save(again, tmp_path)
    resumed = load(tmp_path, CPU)
    assert_same(resumed, again)
    assert told_first + gone(resumed, mixing_prior, 8) == told
    assert_same(resumed, whole)
    assert resumed.distillation.law.adapter.up["/"].abs().max() > 0


def test_each_layer_keeps_its_own_moments_whatever_the_order_of_layers(config, mixing_prior, tmp_path):
    """A network has its layers in any order, and so has what is read of a file."""
    layers = OrderedDict((name, copy.deepcopy(mixing_prior.network)) for name in "zmaykbtc")
    prior = replace(mixing_prior, network=nn.Sequential(layers))
    whole, again = start(config, CPU), start(config, CPU)
    gone(whole, prior, 8), gone(again, prior, 5)
    save(again, tmp_path)
    resumed = load(tmp_path, CPU)
    gone(resumed, prior, 8)
    assert_same(resumed, whole)


def test_a_run_before_its_first_step_has_no_adapter_and_loads(config, mixing_prior, tmp_path):
    run = start(config, CPU)
    save(run, tmp_path)
    again = load(tmp_path, CPU)
    assert again.distillation.law.adapter.empty
    gone(run, mixing_prior, 2), gone(again, mixing_prior, 2)
    assert_same(run, again)


def test_a_gradient_of_the_adapter_that_is_no_number_stops_the_run(config, mixing_prior):
    run = start(config, CPU)
    gone(run, mixing_prior, 2)
    run.distillation.law.adapter.up["/"].register_hook(lambda gradient: gradient * torch.inf)
    before = everything(run)
    with pytest.raises(Diverged, match="step 3"):
        gone(run, mixing_prior, 3)
    after = everything(run)
    del before["draws"], after["draws"]
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_one_seed_is_one_run_and_rates_follow_the_schedule_of_all(config, mixing_prior):
    config = replace(config, optimise=replace(config.optimise, lr_schedule=Constant(0.5)))
    one, other = start(config, CPU), start(config, CPU)
    assert gone(one, mixing_prior, 4) == gone(other, mixing_prior, 4)
    assert_same(one, other)
    assert one.optimiser.param_groups[-1]["lr"] == pytest.approx(0.5 * 0.01)


def test_a_run_whose_adapter_belongs_to_another_prior_stops_before_its_first_step(config, mixing_prior, tmp_path):
    run = start(config, CPU)
    gone(run, mixing_prior, 2)
    save(run, tmp_path)
    resumed = load(tmp_path, CPU)
    other = replace(mixing_prior, network=nn.Sequential(mixing_prior.network, nn.Linear(3, 3)))
    before = everything(resumed)
    with pytest.raises(UserError, match="another prior"):
        advance(resumed, other, prompt_table(config, other))
    assert all(torch.equal(before[name], tensor) for name, tensor in everything(resumed).items())
