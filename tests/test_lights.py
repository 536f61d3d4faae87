import math
from dataclasses import replace

import pytest
import torch

from dreamfusion.cameras import Cameras, orbit, turntable
from dreamfusion.config import LightConfig
from dreamfusion.config.check import require_bounds
from dreamfusion.errors import UserError
from dreamfusion.geometry import normalise
from dreamfusion.lights import Light, LightSampler, albedo_only, key_light

pytestmark = pytest.mark.processor

MANY = 20_000


def above_front(count: int = MANY) -> Cameras:
    one = torch.ones(count)
    return orbit(0.3 * one, 0.5 * one, 1.25 * one, one, 8)


def draw(config: LightConfig, progress: float = 1.0, count: int = MANY) -> Light:
    return LightSampler(config)(above_front(count), progress, torch.Generator().manual_seed(0))


def test_the_run_begins_with_albedo_only() -> None:
    early = draw(LightConfig(), 999 / 15000)
    assert early.ambient.eq(1).all()
    assert early.diffuse.eq(0).all()
    assert not early.textureless.any()
    assert draw(LightConfig(), 1000 / 15000).diffuse.gt(0).any()


def test_later_the_three_kinds_of_picture_have_the_papers_shares() -> None:
    light = draw(LightConfig())
    lit = light.diffuse > 0
    torch.testing.assert_close(light.ambient, torch.where(lit, 0.1, 1.0))
    torch.testing.assert_close(light.diffuse, torch.where(lit, 0.9, 0.0))
    assert not (light.textureless & ~lit).any()
    assert lit.double().mean().item() == pytest.approx(0.75, abs=0.012)
    assert light.textureless.double().mean().item() == pytest.approx(0.375, abs=0.012)


def test_every_number_is_a_field() -> None:
    light = draw(LightConfig(albedo_until=0.0, shaded=1.0, textureless=0.0, ambient=0.4, diffuse=0.6), 0.0, 100)
    assert not light.textureless.any()
    torch.testing.assert_close(light.ambient, torch.full((100,), 0.4))
    torch.testing.assert_close(light.diffuse, torch.full((100,), 0.6))


def test_distances_are_uniform_and_independent_of_the_kind() -> None:
    light = draw(LightConfig())
    distance = light.position.norm(dim=-1)
    place = (distance.sort().values - 0.8) / 0.7
    assert (place - torch.linspace(0, 1, MANY)).abs().max() < 1.95 / math.sqrt(MANY)
    assert distance[light.textureless].mean().item() == pytest.approx(
        distance[~light.textureless].mean().item(), abs=0.02
    )


def test_directions_are_normal_about_the_camera() -> None:
    # Against an independent draw of the law: both means estimate the same vector.
    oracle = normalise(above_front().position + torch.randn(MANY, 3, generator=torch.Generator().manual_seed(9)))
    direction = normalise(draw(LightConfig()).position)
    torch.testing.assert_close(direction.mean(0), oracle.mean(0), atol=0.02, rtol=0)
    torch.testing.assert_close(direction.T.cov(), oracle.T.cov(), atol=0.02, rtol=0)
    narrow = draw(replace(LightConfig(), spread=0.0), count=10)
    torch.testing.assert_close(normalise(narrow.position), normalise(above_front(10).position))


def test_the_random_draws_do_not_depend_on_progress_or_fields() -> None:
    outcomes = []
    for config, progress in ((LightConfig(), 0.0), (LightConfig(), 1.0), (LightConfig(shaded=0.0), 1.0)):
        generator = torch.Generator().manual_seed(5)
        light = LightSampler(config)(above_front(7), progress, generator)
        outcomes.append(torch.cat([light.position.flatten(), generator.get_state()]))
    assert all(torch.equal(outcome, outcomes[0]) for outcome in outcomes)


@pytest.mark.parametrize(
    "wrong", [{"shaded": 1.5}, {"albedo_until": -0.1}, {"distance": (1.5, 0.8)}, {"distance": (0.0, 1.0)}]
)
def test_impossible_laws_are_user_errors(wrong: dict) -> None:
    with pytest.raises(UserError, match=next(iter(wrong)).replace("_", "-")):
        require_bounds(LightConfig(**wrong))


def test_albedo_only_leaves_the_albedo_as_it_is() -> None:
    light = albedo_only(3)
    # colour of a surface with albedo a whose normal makes any angle with the light
    cosine = torch.linspace(-1, 1, 3)
    shown = 0.37 * (light.ambient + light.diffuse * cosine.clamp_min(0))
    torch.testing.assert_close(shown, torch.full((3,), 0.37))
    assert not light.textureless.any()
    assert not light.lit


@pytest.mark.parametrize("white", [False, True])
def test_headlight_stands_above_and_to_the_right_of_each_camera_and_never_overexposes(white: bool) -> None:
    cameras = turntable(8, 0.4, 3.0, 0.7, 16)
    light = key_light(cameras, white)
    in_camera = torch.einsum("bji,bj->bi", cameras.pose[:, :3, :3], light.position - cameras.position)
    assert (in_camera[:, :2] > 0.5).all()
    assert in_camera[:, 2].abs().max() < 1e-5
    torch.testing.assert_close(light.ambient + light.diffuse, torch.ones(8))
    assert light.textureless.tolist() == [white] * 8


def test_a_sub_range_keeps_the_views() -> None:
    light = draw(LightConfig(), count=9)
    part = light[2:5].to("cpu")
    assert len(part) == 3
    assert torch.equal(part.textureless, light.textureless[2:5])
    assert torch.equal(part.position, light.position[2:5])
    assert torch.equal(part.ambient, light.ambient[2:5])


def test_a_distance_may_be_one_number() -> None:
    light = draw(LightConfig(distance=(1.2, 1.2)), count=10)
    torch.testing.assert_close(light.position.norm(dim=-1), torch.full((10,), 1.2))


def test_lit_promises_what_the_diffuse_parts_hold() -> None:
    one_in_three = LightSampler(LightConfig(albedo_until=0.5, shaded=0.3))
    for sampler, progress in ((one_in_three, 0.4), (one_in_three, 0.6), (LightSampler(LightConfig(shaded=0.0)), 1.0)):
        for seed in range(20):
            light = sampler(above_front(1), progress, torch.Generator().manual_seed(seed))
            assert light.lit == bool((light.diffuse > 0).any())
    some = one_in_three(above_front(100), 0.6, torch.Generator().manual_seed(0))
    assert some.lit
    assert (some.diffuse == 0).any()


def test_the_key_light_leaves_little_in_the_dark() -> None:
    """Seen from the origin it stands less than 40 degrees off the camera."""
    cameras = turntable(4, 0.4, 3.0, 0.7, 16)
    beside = normalise(key_light(cameras, textureless=False).position) * normalise(cameras.position)
    assert (beside.sum(-1) > math.cos(math.radians(40))).all()
