import pytest
import torch

from dreamfusion.lights import Light, albedo_only
from dreamfusion.nerf.fields import FieldOutput
from dreamfusion.nerf.shading import lambert

pytestmark = pytest.mark.processor

ALBEDO = torch.tensor([[0.2, 0.4, 0.8]])
UP = torch.tensor([[0.0, 1.0, 0.0]])


def lit(position, white=False):
    one = torch.ones(1)
    return Light(torch.tensor([position]), ambient=0.1 * one, diffuse=0.9 * one, textureless=torch.tensor([white]))


def shade(light, normal=UP, place=(0.0, 0.0, 0.0), view=(0,)):
    matter = FieldOutput(density=torch.ones(1), albedo=ALBEDO, normal=normal)
    return lambert(matter, torch.tensor([place]), light, torch.tensor(view))


def test_albedo_only_shows_the_albedo():
    assert torch.equal(shade(albedo_only(1)), ALBEDO)
    assert torch.equal(shade(albedo_only(1), normal=None), ALBEDO)


def test_light_at_sixty_degrees_halves_the_diffuse_part():
    position = [3**0.5 / 2 * 4, 0.5 * 4, 0.0]
    assert torch.allclose(shade(lit(position)), ALBEDO * (0.1 + 0.9 * 0.5))


def test_white_light_replaces_the_albedo():
    assert torch.allclose(shade(lit([0.0, 5.0, 0.0], white=True)), torch.ones(1, 3))


def test_light_from_behind_leaves_the_ambient_part():
    assert torch.allclose(shade(lit([0.3, -2.0, 0.0])), ALBEDO * 0.1)


def test_light_has_a_place_not_only_a_direction():
    # From (3, 1, 0), a light at (0, 5, 0) lies 3-4-5 away.
    assert torch.allclose(shade(lit([0.0, 5.0, 0.0]), place=(3.0, 1.0, 0.0)), ALBEDO * (0.1 + 0.9 * 0.8))


def test_every_sample_is_lit_by_the_light_of_its_view():
    light = Light(
        position=torch.tensor([[0.0, 1.0, 0.0], [0.0, 1.0, 0.0]]),
        ambient=torch.tensor([1.0, 0.1]),
        diffuse=torch.tensor([0.0, 0.9]),
        textureless=torch.tensor([False, True]),
    )
    matter = FieldOutput(density=torch.ones(3), albedo=ALBEDO.expand(3, 3), normal=-UP.expand(3, 3))
    colour = lambert(matter, torch.zeros(3, 3), light, torch.tensor([1, 0, 1]))
    assert torch.allclose(colour, torch.stack([torch.full((3,), 0.1), ALBEDO[0], torch.full((3,), 0.1)]))
