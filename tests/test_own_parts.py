"""Own parts train, are named and resume bit for bit; what would train nothing is refused."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from dreamfusion import checkpoint, generate, stepping
from dreamfusion.cli.arguments import read_generate
from dreamfusion.config import LearnedBackground
from dreamfusion.config.serialise import from_json, to_json
from dreamfusion.errors import UserError
from dreamfusion.loop import Run, advance, optimise, prompt_table, start
from dreamfusion.nerf.background import Environment, Solid
from dreamfusion.schedules import Constant
from examples.own_field import Ball, symmetric
from examples.own_law import Baseline, clipped
from gaussian_prior import GaussianPrior

CPU = torch.device("cpu")


class Remembering(nn.Module):
    """A regulariser with state: the mean opacity of all steps so far is to be small."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.zeros(()))

    def forward(self, render, scene):
        opacity = render.opacity.mean()
        self.mean.lerp_(opacity.detach(), 0.5)
        return (self.mean + opacity).square()


def environment() -> Environment:
    return Environment(LearnedBackground(levels=2, layers=1, width=8), torch.Generator().manual_seed(7))


def parts() -> dict:
    """Fresh ones of all kinds."""
    regularisers = {"symmetric": (Constant(0.5), symmetric), "remembering": (lambda progress: 1.0, Remembering())}
    return {"field": Ball(), "background": environment(), "law": Baseline(), "regularisers": regularisers}


def go(run: Run, prior, until: int) -> list[dict[str, object]]:
    return [metrics.record() for metrics in optimise(run, prior, prompt_table(run.config, prior), until)]


def state(run: Run) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in checkpoint._tensors(run).items()}


def test_own_parts_train_are_named_and_resume_bit_for_bit(tiny_config, disc_prior, tmp_path):
    whole, first = start(tiny_config, CPU, **parts()), start(tiny_config, CPU, **parts())
    fresh = state(whole)
    told = go(whole, disc_prior, 6)
    assert whole.config.custom == ("field", "background", "law", "regularisers.remembering", "regularisers.symmetric")
    assert {"distillation", "symmetric", "remembering", "baseline"} <= set(told[0]["losses"])
    after = state(whole)
    own = ("scene.field.", "scene.background.", "law.", "regularisers.remembering.")
    assert {name for name in fresh if name.startswith(own) and torch.equal(fresh[name], after[name])} == set()

    told_first = go(first, disc_prior, 3)
    checkpoint.save(first, tmp_path)
    second = checkpoint.load(tmp_path, CPU, **parts())
    assert told_first + go(second, disc_prior, 6) == told
    resumed = state(second)
    assert [name for name in after if not torch.equal(after[name], resumed[name])] == []


@pytest.mark.parametrize("missing", ["field", "background", "law", "regularisers"])
def test_a_run_without_the_parts_that_it_was_made_with_is_refused(tiny_config, tmp_path, missing):
    checkpoint.save(start(tiny_config, CPU, **parts()), tmp_path)
    with pytest.raises(UserError, match=rf"{missing}.*{missing}=\.\.\."):
        checkpoint.load(tmp_path, CPU, **{name: part for name, part in parts().items() if name != missing})


def test_parts_that_a_run_was_made_without_are_refused(tiny_config, tmp_path):
    checkpoint.save(start(tiny_config, CPU, field=Ball()), tmp_path)
    with pytest.raises(UserError, match="without own law"):
        checkpoint.load(tmp_path, CPU, field=Ball(), law=clipped)


def test_what_was_custom_is_in_the_file_and_no_option(tiny_config):
    config = start(tiny_config, CPU, law=clipped).config
    assert from_json(type(config), to_json(config)) == config
    with pytest.raises(UserError, match="law"):
        start(config, CPU)
    with pytest.raises((SystemExit, UserError)):
        read_generate(["a chair", "--custom", "law"])


def test_a_function_is_a_law(tiny_config, disc_prior):
    (own,) = go(start(tiny_config, CPU, law=clipped), disc_prior, 1)
    (sds,) = go(start(tiny_config, CPU), disc_prior, 1)
    assert 0 < own["losses"]["distillation"] < sds["losses"]["distillation"]


def put_field(run: Run) -> None:
    run.scene.field = Ball()


def put_background(run: Run) -> None:
    run.scene.background = environment()


def put_parameter(run: Run) -> None:
    run.scene.field.more = nn.Parameter(torch.zeros(3))


def put_copy(run: Run) -> None:
    run.scene.field.logits[0] = nn.Parameter(run.scene.field.logits[0].detach().clone())


def take_optimiser(run: Run) -> None:
    run.optimiser = torch.optim.Adam([nn.Parameter(torch.zeros(3))])


def freeze(run: Run) -> None:
    run.scene.requires_grad_(False)


@pytest.mark.parametrize(
    "change", [put_field, put_background, put_parameter, put_copy, take_optimiser, freeze], ids=lambda f: f.__name__
)
def test_what_would_train_nothing_is_refused_at_the_next_step(tiny_config, disc_prior, change):
    run = start(tiny_config, CPU)
    prompts = prompt_table(tiny_config, disc_prior)
    advance(run, disc_prior, prompts)
    change(run)
    with pytest.raises(UserError, match=r"nothing would train|no longer the run's"):
        advance(run, disc_prior, prompts)
    assert run.step == 1


class Untrained(nn.Module):
    """Callable as a law and as a regulariser, with parameters that nobody would train."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, at, scene=None):
        return self.scale


class Halfway(Ball):
    """Keeps a parameter to itself."""

    def parameter_groups(self):
        return {"network": [self.centre, self.radius]}


class Sorted(Ball):
    def parameter_groups(self):
        return {"networks": list(self.parameters())}


class Nothing(nn.Module):
    pass


@pytest.mark.parametrize(
    ("own", "said"),
    [
        ({"law": Untrained()}, "law.*LearnedLaw"),
        ({"law": 3}, "law must be callable"),
        ({"regularisers": {"mine": (Constant(1.0), Untrained())}}, "regularisers.mine.*LearnedLaw"),
        ({"regularisers": {"distillation": (Constant(1.0), symmetric)}}, "distillation"),
        ({"regularisers": {"mine": (1.0, symmetric)}}, "'mine' must be a schedule"),
        ({"field": Nothing()}, "own field must be a torch.nn.Module"),
        ({"background": Nothing()}, "own background must be a torch.nn.Module"),
        ({"field": Halfway()}, "nothing would train scene.field.colour"),
        ({"field": Sorted()}, "parameter_groups must name grid or network"),
        ({"field": Ball().requires_grad_(False)}, "nothing"),
    ],
)
def test_parts_that_cannot_be_trained_are_refused_at_the_start(tiny_config, own, said):
    with pytest.raises(UserError, match=said):
        start(tiny_config, CPU, **own)


@pytest.mark.parametrize("term", [lambda r, s: r.opacity.detach().mean(), lambda r, s: r.opacity])
def test_a_regulariser_that_is_no_number_with_a_graph_is_refused(tiny_config, disc_prior, term):
    run = start(tiny_config, CPU, regularisers={"mine": (Constant(1.0), term)})
    with pytest.raises(UserError, match="regulariser mine"):
        go(run, disc_prior, 1)


def test_a_regulariser_of_a_configured_name_takes_its_place_and_a_weight_of_zero_asks_nobody(tiny_config, disc_prior):
    asked = []

    def constant(render, scene):
        asked.append(1)
        return render.opacity.mean() * 0 + 2

    (told,) = go(start(tiny_config, CPU, regularisers={"opacity": (Constant(3.0), constant)}), disc_prior, 1)
    assert told["losses"]["opacity"] == pytest.approx(6)
    (told,) = go(start(tiny_config, CPU, regularisers={"opacity": (Constant(0.0), constant)}), disc_prior, 1)
    assert "opacity" not in told["losses"]
    assert asked == [1]


class Detached(GaussianPrior):
    """Its `encode` forgets where the pictures come from."""

    def encode(self, image):
        return super().encode(image).detach()


def test_a_prior_through_which_no_gradient_comes_back_is_refused(tiny_config, disc_prior):
    prior = Detached(disc_prior.means, disc_prior.std, disc_prior.schedule, disc_prior.image_size)
    with pytest.raises(UserError, match="prior's encode"):
        go(start(tiny_config, CPU), prior, 1)


def test_a_run_with_a_prior_of_ones_own_resumes_with_it_only(tiny_config, disc_prior, tmp_path):
    prior, path = replace(disc_prior, name="disc"), tmp_path / "run"
    whole = generate.create_run(tiny_config, tmp_path / "whole", prior=prior, field=Ball())
    list(stepping.train(whole, lambda _: None))
    job = generate.create_run(tiny_config, path, prior=prior, field=Ball())
    assert (job.run.config.prior, job.run.config.custom) == ("disc", ("field", "prior"))
    steps = stepping.train(job, lambda _: None)
    next(steps), next(steps)
    steps.close()
    with pytest.raises(UserError, match=r"prior.*prior=\.\.\."):
        generate.resume_run(path, "cpu", field=Ball())
    with pytest.raises(UserError, match="prior"):
        generate.resume_run(path, "cpu", prior_now="embedded", field=Ball())
    with pytest.raises(UserError, match=r"field=\.\.\."):
        generate.open_run(path, "cpu")
    assert generate.open_run(path, "cpu", field=Ball())[1].step == 2
    job = generate.resume_run(path, "cpu", prior_now=prior, field=Ball())
    list(stepping.train(job, lambda _: None))
    one, other = state(whole.run), state(job.run)
    assert [name for name in one if not torch.equal(one[name], other[name])] == []


def test_parameters_that_are_no_longer_the_runs_are_not_trained(tiny_config, disc_prior):
    scene = replace(tiny_config.scene, background=LearnedBackground(levels=1, layers=1, width=4))
    run = start(replace(tiny_config, scene=scene), CPU)
    run.scene.background = Solid()
    with pytest.raises(UserError, match="no longer the run's"):
        go(run, disc_prior, 1)
