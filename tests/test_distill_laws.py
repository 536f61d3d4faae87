"""Every law against its closed form for a prior of Gaussians, and on the prior that ships."""

from dataclasses import replace

import pytest
import torch

from dreamfusion.cli.arguments import read_generate
from dreamfusion.config.check import require_bounds
from dreamfusion.config.distill import IsmLaw, NfsdLaw, VsdLaw
from dreamfusion.diffusion.distill import Csd, Distillation, Ism, Law, Nfsd, Sds, UniformTimesteps
from dreamfusion.diffusion.guidance import Guidance
from dreamfusion.diffusion.priors import Conditioning, ViewCondition, open_prior
from dreamfusion.errors import UserError
from dreamfusion.loop import advance, prompt_table, start
from dreamfusion.schedules import Constant
from gaussian_prior import GaussianPrior, cosine_schedule

SIZE, STD, SCALE, COUNT = 2, 0.4, 3.0, 2


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture
def prior():
    means = {word: random(3, SIZE, SIZE, seed=seed) for seed, word in enumerate(("", "chair", "ugly"), start=1)}
    return GaussianPrior(means, STD, cosine_schedule(), SIZE)


def conditioning(prior, negative: str | None = None, against: str | None = None, weight: float = 0.0) -> Conditioning:
    def embedded(word: str) -> torch.Tensor:
        return prior.embed([word]).expand(COUNT, -1, -1)

    text, k = embedded("chair"), 0 if against is None else 1
    return Conditioning(
        text=text,
        null_text=embedded(""),
        known=ViewCondition(),
        perp_neg_text=text.new_zeros(COUNT, 0, *text.shape[1:]) if against is None else embedded(against)[:, None],
        perp_neg_weight=text.new_full((COUNT, k), weight),
        negative=None if negative is None else embedded(negative),
    )


def pull(prior, law: Law, t: int, x: torch.Tensor, given: Conditioning, seed: int = 0, **knobs) -> torch.Tensor:
    """The gradient at one timestep, divided by its weight."""
    levels = UniformTimesteps(Constant((t + 0.5) / 1000), Constant((t + 0.5) / 1000))
    distillation = Distillation(law, Guidance(SCALE), levels, **knobs)
    weight = prior.schedule.sigma(torch.tensor([t])).item() ** 2
    return distillation(x, given, prior, 0.0, torch.Generator().manual_seed(seed)) / weight


def slope(prior, t: int) -> tuple[float, float, float]:
    """A, alpha and sigma: the prior's estimate is A (x_t - alpha mean)."""
    at = torch.tensor([t])
    alpha, sigma = prior.schedule.alpha(at).item(), prior.schedule.sigma(at).item()
    return sigma / (alpha**2 * prior.std**2 + sigma**2), alpha, sigma


def mode(prior, base: str = "") -> torch.Tensor:
    return prior.means[base] + SCALE * (prior.means["chair"] - prior.means[base])


@pytest.mark.parametrize("t", [50, 500, 900])
@pytest.mark.parametrize("negative", [None, "ugly"])
def test_csd_is_the_way_between_two_means_whatever_the_picture_and_the_noise(prior, t, negative):
    a, alpha, _ = slope(prior, t)
    wanted = SCALE * a * alpha * (prior.means[negative or ""] - prior.means["chair"]).expand(COUNT, -1, -1, -1)
    for seed in range(2):
        got = pull(prior, Csd(), t, random(COUNT, 3, SIZE, SIZE, seed=seed), conditioning(prior, negative), seed)
        torch.testing.assert_close(got, wanted)


def test_csd_and_a_scale_of_zero_want_nothing(prior):
    still = Distillation(Csd(), Guidance(0.0))
    gradient = still(random(COUNT, 3, SIZE, SIZE), conditioning(prior), prior, 0.0, torch.Generator().manual_seed(0))
    assert not gradient.any()


def test_csd_takes_nothing_of_guidance_back(prior):
    x, given = random(COUNT, 3, SIZE, SIZE), conditioning(prior)
    plain, rescaled = (
        Distillation(Csd(), Guidance(SCALE, share))(x, given, prior, 0.0, torch.Generator().manual_seed(0))
        for share in (None, 1.0)
    )
    assert plain.any()
    assert torch.equal(plain, rescaled)


def test_perp_neg_acts_in_every_law_as_in_guidance(prior):
    """It adds s times the weighted perpendicular part to the guided estimate; what laws subtract stays as it was."""
    plain, given = conditioning(prior), conditioning(prior, against="ugly", weight=-0.7)
    x, t = random(COUNT, 3, SIZE, SIZE, seed=9), 600
    changes = [pull(prior, law, t, x, given) - pull(prior, law, t, x, plain) for law in (Sds(), Csd(), Nfsd())]
    a, alpha, _ = slope(prior, t)
    main, other = (prior.means[word] - prior.means[""] for word in ("chair", "ugly"))
    aside = other - main * (main * other).sum() / (main * main).sum()
    for change in changes:
        torch.testing.assert_close(change, (0.7 * SCALE * a * alpha * aside).expand_as(change))


@pytest.mark.parametrize("negative", [None, "ugly"])
def test_nfsd_at_much_noise_leads_from_the_negative_mean_to_the_mode(prior, negative):
    t, x = 400, random(COUNT, 3, SIZE, SIZE, seed=9)
    a, alpha, _ = slope(prior, t)
    wanted = a * alpha * (prior.means[negative or ""] - mode(prior))
    for seed in range(2):
        got = pull(prior, Nfsd(), t, x, conditioning(prior, negative), seed)
        torch.testing.assert_close(got, wanted.expand_as(got))


def test_nfsd_at_little_noise_is_sds_without_its_noise(prior):
    """The expectation is that of SDS, A alpha (x - mode); the noise is A sigma eps instead of (A sigma - 1) eps."""
    t, draws, x = 100, 20_000, random(COUNT, 3, SIZE, SIZE, seed=9)
    a, alpha, sigma = slope(prior, t)
    got = pull(prior, Nfsd(), t, x, conditioning(prior, "ugly"), noise_samples=draws)
    assert (got - a * alpha * (x - mode(prior))).abs().max() < 5 * a * sigma / draws**0.5
    noise = pull(prior, Nfsd(), t, x, conditioning(prior, "ugly")) - pull(prior, Sds(), t, x, conditioning(prior))
    assert 0.4 < noise.std() < 1.6  # eps itself
    assert abs(a * sigma) < abs(a * sigma - 1)


def test_the_inversion_of_ism_is_the_flow_of_probability(prior):
    """In the limit of many DDIM steps, (x - alpha mean) / (spread of the noisy Gaussian) does not change on the way."""
    t, x = 700, random(COUNT, 3, SIZE, SIZE, seed=9)
    wanted = ism_closed_form(prior, t, 50, x)
    errors = [
        (pull(prior, Ism(IsmLaw(inversions, start=0.0)), t, x, conditioning(prior)) - wanted).abs().max()
        for inversions in (20, 80, 320)
    ]
    assert errors[0] > 3 * errors[1] > 9 * errors[2]  # a method of first order
    assert errors[2] < 0.01 * wanted.abs().max()


def ism_closed_form(prior, t: int, gap: int, x: torch.Tensor) -> torch.Tensor:
    (_, alpha_0, sigma_0), (a_s, alpha_s, sigma_s), (a_t, alpha_t, sigma_t) = (
        slope(prior, at) for at in (0, t - gap, t)
    )
    mean = prior.means[""]
    spread_0, spread_s = (
        (alpha**2 * STD**2 + sigma**2) ** 0.5 for alpha, sigma in ((alpha_0, sigma_0), (alpha_s, sigma_s))
    )
    x_s = alpha_s * mean + (x - alpha_0 * mean) * spread_s / spread_0
    eps_s = a_s * (x_s - alpha_s * mean)
    x_t = alpha_t * (x_s - sigma_s * eps_s) / alpha_s + sigma_t * eps_s
    return a_t * (x_t - alpha_t * mode(prior)) - eps_s


@pytest.mark.parametrize("inversions", [1, 3])
@pytest.mark.parametrize("start", [0.0, 0.1, 0.9])
def test_ism_of_a_sure_prior_is_exact_in_one_step(prior, inversions, start):
    """One noise leads from any level to any other, so that only guidance is left: alpha / sigma (mean - mode)."""
    sure, t, x = replace(prior, std=0.0), 300, random(COUNT, 3, SIZE, SIZE, seed=9)
    _, alpha, sigma = slope(sure, t)
    got = pull(sure, Ism(IsmLaw(inversions, start=start)), t, x, conditioning(sure))
    torch.testing.assert_close(got, (alpha / sigma * (sure.means[""] - mode(sure))).expand_as(got))


def test_ism_does_not_depend_on_luck_and_starts_at_the_first_timestep(prior):
    x = random(COUNT, 3, SIZE, SIZE, seed=9)
    for t in (0, 30, 800):
        one, other = (pull(prior, Ism(IsmLaw(start=0.0)), t, x, conditioning(prior), seed) for seed in (1, 2))
        assert torch.equal(one, other)
        assert bool(one.isfinite().all())


def test_a_path_of_ism_may_start_at_its_end_from_random_noise(prior):
    """One draw of noise at s, of which little is left in the difference of the two estimates."""
    x, t, gap, started = random(COUNT, 3, SIZE, SIZE, seed=9), 300, 50, Ism(IsmLaw(start=0.9))
    (a_s, alpha_s, sigma_s), (a_t, alpha_t, sigma_t) = slope(prior, t - gap), slope(prior, t)
    eps_s = a_s * alpha_s * (x - prior.means[""])  # in expectation
    x_t = alpha_t * (alpha_s * x - sigma_s * eps_s) / alpha_s + sigma_t * eps_s
    wanted = a_t * (x_t - alpha_t * mode(prior)) - eps_s
    draws = 5_000
    assert (
        pull(prior, started, t, x, conditioning(prior), noise_samples=draws) - wanted
    ).abs().max() < 5 * 0.1 / draws**0.5
    one, other = (pull(prior, started, t, x, conditioning(prior), seed) for seed in (1, 2))
    assert 0 < (one - other).std() < 0.1


@pytest.mark.parametrize(
    "law",
    [
        IsmLaw(inversions=0),
        IsmLaw(gap=0.0),
        IsmLaw(gap=1.0),
        IsmLaw(start=-0.1),
        IsmLaw(start=1.0),
        NfsdLaw(clean_below=-0.1),
        NfsdLaw(clean_below=1.1),
        VsdLaw(rank=0),
    ],
)
def test_senseless_knobs_are_refused(law):
    with pytest.raises(UserError, match="must be"):
        require_bounds(law)


def test_the_gap_of_ism_is_at_least_one_timestep(prior):
    x, t, given = random(COUNT, 3, SIZE, SIZE, seed=9), 300, conditioning(prior)
    least, one, two = (pull(prior, Ism(IsmLaw(gap=gap, start=0.0)), t, x, given) for gap in (1e-5, 1e-3, 2e-3))
    assert torch.equal(least, one)
    assert not torch.equal(one, two)


def test_the_negative_prompt_counts_in_nfsd_from_its_level_on(prior):
    """At that very timestep too; 0 is always, 1 is never."""
    x, t = random(COUNT, 3, SIZE, SIZE, seed=9), 250
    given = conditioning(prior, "ugly")
    never, always = (pull(prior, Nfsd(NfsdLaw(below)), t, x, given) for below in (1.0, 0.0))
    assert not torch.allclose(never, always)
    assert torch.equal(pull(prior, Nfsd(NfsdLaw(0.25)), t, x, given), always)
    assert torch.equal(pull(prior, Nfsd(NfsdLaw(0.251)), t, x, given), never)


@pytest.fixture(scope="module")
def embedded():
    return open_prior("embedded")


EVERYTHING = ["--negative", "a pizza", "--perp-neg", "1", "--blend-views", "--distill.timesteps", "dreamtime"]


@pytest.mark.parametrize(
    "options", [["sds"], ["csd"], ["nfsd", *EVERYTHING], ["ism"], ["dsd"], ["vsd", "--guidance-scale", "3"]], ids=str
)
def test_every_law_runs_on_the_prior_that_ships(embedded, options):
    law = options[0]
    config = read_generate(["a hamburger", "--size", "32", "--distill", law, *options[1:]]).settings
    run = start(config, torch.device("cpu"))
    prompts = prompt_table(config, embedded)
    before = [parameter.clone() for parameter in run.scene.parameters()]
    losses = [advance(run, embedded, prompts).losses for _ in range(3)]
    assert all(step["distillation"] > 0 for step in losses)
    assert all(("adapter" in step) == (law == "vsd") for step in losses)
    assert not all(torch.equal(a, b) for a, b in zip(before, run.scene.parameters(), strict=True))
    assert all(parameter.grad is None for parameter in embedded.network.parameters())
