import pytest
import torch

from dreamfusion.config import LearnedBackground, RandomBackground, SolidBackground
from dreamfusion.geometry import normalise
from dreamfusion.nerf.background import Background, Environment, RandomSolid, Solid

pytestmark = pytest.mark.processor


def directions(count=200):
    return normalise(torch.randn(count, 3, generator=torch.Generator().manual_seed(0)))


def test_all_backgrounds_satisfy_the_protocol():
    environment = Environment(LearnedBackground(), torch.Generator().manual_seed(0))
    assert all(isinstance(one, Background) for one in (Solid(), RandomSolid(), environment))


def test_solid_shows_its_colour_and_draws_nothing():
    generator = torch.Generator().manual_seed(3)
    before = generator.get_state()
    drawn = Solid(SolidBackground((0.1, 0.2, 0.3))).draw(2, generator)
    assert torch.equal(drawn, torch.tensor([[0.1, 0.2, 0.3]] * 2))
    assert torch.equal(generator.get_state(), before)
    assert torch.equal(Solid(SolidBackground((0.1, 0.2, 0.3))).colour(directions(2)), drawn)


def test_random_colours_fill_their_box_uniformly_and_follow_the_generator():
    colours = RandomSolid(RandomBackground(low=(0.0, 0.2, 0.5), high=(0.4, 1.0, 0.5)))
    drawn = colours.draw(4000, torch.Generator().manual_seed(0))
    assert torch.allclose(drawn.mean(0), torch.tensor([0.2, 0.6, 0.5]), atol=0.02)
    assert torch.allclose(drawn.std(0), torch.tensor([0.4, 0.8, 0.0]) / 12**0.5, atol=0.01)
    assert torch.equal(drawn, colours.draw(4000, torch.Generator().manual_seed(0)))
    assert not torch.equal(drawn, colours.draw(4000, torch.Generator().manual_seed(1)))
    assert torch.allclose(colours.colour(directions(1)), torch.tensor([[0.2, 0.6, 0.5]]))


def test_grey_colours_are_grey_and_differ():
    drawn = RandomSolid(RandomBackground(grey=True)).draw(100, torch.Generator().manual_seed(0))
    assert torch.equal(drawn, drawn[:, :1].expand_as(drawn))
    assert drawn[:, 0].std() > 0.2


def test_environment_starts_near_grey_and_learns_the_sky():
    generator = torch.Generator().manual_seed(0)
    environment = Environment(LearnedBackground(), generator)
    assert environment.draw(2, generator) is None
    d = directions()
    assert (environment.colour(d) - 0.5).abs().max() < 0.2
    sky = torch.stack([(d[:, 1] > 0).float()] * 3, dim=-1)
    optimiser = torch.optim.Adam(environment.parameter_groups()["network"], 1e-2)
    for _ in range(100):
        optimiser.zero_grad()
        error = (environment.colour(d) - sky).square().mean()
        error.backward()
        optimiser.step()
    assert error < 0.02


def test_environment_is_reproducible():
    first, second = (Environment(LearnedBackground(), torch.Generator().manual_seed(5)) for _ in range(2))
    assert torch.equal(first.colour(directions()), second.colour(directions()))
