import math
from dataclasses import fields, replace

import pytest
import torch

from dreamfusion.cameras import Cameras, OrbitSampler, evaluation_ring, orbit, turntable
from dreamfusion.config import CameraConfig
from dreamfusion.config.check import require_bounds
from dreamfusion.config.presets import PAPER
from dreamfusion.errors import UserError

pytestmark = pytest.mark.processor

STEADY = CameraConfig(position_jitter=0.0, look_at_jitter=0.0, up_jitter=0.0)
MANY = 20_000


def draw(config: CameraConfig, count: int = MANY, seed: int = 0) -> Cameras:
    return OrbitSampler(config)(count, 64, torch.Generator().manual_seed(seed))


def uniform_distance(values: torch.Tensor, low: float, high: float) -> float:
    """Kolmogorov-Smirnov distance between the values and the uniform law on [low, high]."""
    place = (values.double().sort().values - low) / (high - low)
    ideal = torch.arange(len(values) + 1).double() / len(values)
    return max((place - ideal[:-1]).abs().max().item(), (place - ideal[1:]).abs().max().item())


SAME_LAW = 1.95 / math.sqrt(MANY)  # exceeded by chance once in a thousand


def test_paper_angles_distances_and_focal_lengths_follow_their_laws() -> None:
    cameras = draw(STEADY)
    focal = 0.5 / torch.tan(0.5 * cameras.fov_y)
    assert uniform_distance(cameras.azimuth.remainder(2 * math.pi), 0, 2 * math.pi) < SAME_LAW
    assert uniform_distance(cameras.position.norm(dim=-1), 1.0, 1.5) < SAME_LAW
    assert uniform_distance(focal, 0.7, 1.35) < SAME_LAW
    assert math.degrees(cameras.fov_y.min()) > 40.6
    assert math.degrees(cameras.fov_y.max()) < 71.2


def test_elevation_is_uniform_in_angle_or_in_area_or_a_mixture() -> None:
    low, high = map(math.radians, STEADY.elevation_deg)
    by_angle = draw(replace(STEADY, elevation_uniform_in_angle=1.0)).elevation
    by_area = draw(replace(STEADY, elevation_uniform_in_angle=0.0)).elevation
    assert uniform_distance(by_angle, low, high) < SAME_LAW
    assert uniform_distance(by_area.sin(), math.sin(low), math.sin(high)) < SAME_LAW
    # Half of each: the share above 60 degrees is the mean of the two laws' shares.
    shares = 0.3, (1 - math.sin(math.radians(60))) / (math.sin(high) - math.sin(low))
    above = (draw(STEADY).elevation > math.radians(60)).double().mean().item()
    assert above == pytest.approx(0.5 * sum(shares), abs=0.01)


def test_jitters_have_the_papers_sizes() -> None:
    jittered, steady = draw(PAPER.camera), draw(STEADY)
    moved = (jittered.position - steady.position).flatten()
    assert uniform_distance(moved[:MANY], -0.1, 0.1) < SAME_LAW
    # The point of the view nearest to the origin is the part of the look-at point across the view: two normal axes.
    only_target = draw(replace(STEADY, look_at_jitter=0.2, distance=(50.0, 50.0)))
    forward = -only_target.pose[:, :3, 2]
    missed = torch.linalg.cross(only_target.position, forward).square().sum(-1)
    assert missed.mean().item() == pytest.approx(2 * 0.2**2, rel=0.03)


def test_up_jitter_rolls_level_cameras_by_its_standard_deviation() -> None:
    level = draw(replace(STEADY, elevation_deg=(0.0, 0.0), up_jitter=0.02))
    roll = torch.atan2(level.pose[:, 1, 0], level.pose[:, 1, 1])
    assert roll.std().item() == pytest.approx(0.02, rel=0.03)
    assert draw(replace(STEADY, elevation_deg=(0.0, 0.0))).pose[:, 1, 0].abs().max() < 1e-6


def test_without_jitter_all_views_go_through_the_origin_also_at_the_pole() -> None:
    cameras = draw(replace(STEADY, elevation_deg=(90.0, 90.0)), 50)
    torch.testing.assert_close(-cameras.pose[:, :3, 2] * cameras.position.norm(dim=-1)[:, None], -cameras.position)
    assert cameras.pose.isfinite().all()


def test_stratified_azimuths_fall_one_into_each_sector() -> None:
    azimuth = draw(replace(STEADY, stratified=True), 8).azimuth.remainder(2 * math.pi)
    assert (azimuth / (2 * math.pi / 8)).floor().tolist() == list(range(8))
    assert (azimuth.remainder(2 * math.pi / 8).std() > 0.05).item()  # not at equal angles


def test_the_number_of_draws_does_not_depend_on_the_ranges() -> None:
    states = []
    for config in (CameraConfig(), STEADY, CameraConfig(stratified=True, elevation_deg=(0.0, 0.0))):
        generator = torch.Generator().manual_seed(3)
        OrbitSampler(config)(3, 64, generator)
        states.append(generator.get_state())
    assert all(torch.equal(state, states[0]) for state in states)


@pytest.mark.parametrize(
    "wrong",
    [
        {"elevation_deg": (1.0, 0.0)},
        {"distance": (0.0, 1.0)},
        {"fov_deg": (30.0, 180.0)},
        {"fov_deg": (0.0, 60.0)},
        {"elevation_uniform_in_angle": 1.5},
    ],
)
def test_impossible_ranges_are_user_errors(wrong: dict) -> None:
    with pytest.raises(UserError, match=next(iter(wrong)).replace("_", "-")):
        require_bounds(CameraConfig(**wrong))


def test_orbit_is_where_it_was_asked_to_be_and_upright() -> None:
    azimuth, elevation = torch.tensor([0.0, 1.0, -2.0, 3.0]), torch.tensor([0.0, 0.5, -0.3, 1.4])
    cameras = orbit(azimuth, elevation, torch.full((4,), 3.0), torch.full((4,), 0.7), 64)
    torch.testing.assert_close(cameras.azimuth, azimuth)
    torch.testing.assert_close(cameras.elevation, elevation)
    torch.testing.assert_close(3 * cameras.pose[:, :3, 2], cameras.position)
    torch.testing.assert_close(cameras.pose[:, 1, 0], torch.zeros(4))  # the picture's x axis is level
    assert (cameras.pose[:, 1, 1] > 0).all()


def test_the_left_side_is_seen_from_azimuth_90_with_the_front_to_the_left() -> None:
    quarter = torch.tensor([math.pi / 2])
    pose = orbit(quarter, torch.zeros(1), torch.ones(1), torch.ones(1), 8).pose[0]
    front_in_camera = pose[:3, :3].T @ torch.tensor([0.0, 0.0, 1.0])
    torch.testing.assert_close(front_in_camera, torch.tensor([-1.0, 0.0, 0.0]), atol=1e-6, rtol=0)


@pytest.mark.parametrize("pole", [math.pi / 2, -math.pi / 2])
def test_orbit_is_continuous_at_the_poles(pole: float) -> None:
    azimuth = torch.linspace(-3, 3, 7)
    one = torch.ones(7)
    at, near = (orbit(azimuth, e * one, one, one, 8).pose for e in (pole, pole * (1 - 1e-4)))
    torch.testing.assert_close(at, near, atol=1e-3, rtol=0)


def test_turntable_goes_around_once_in_equal_turns() -> None:
    pose = turntable(12, 0.3, 2.0, 0.7, 32).pose
    turn = pose[1] @ torch.linalg.inv(pose[0])
    torch.testing.assert_close(torch.stack([turn @ p for p in pose]), pose.roll(-1, dims=0), atol=1e-5, rtol=0)
    torch.testing.assert_close(turn[:3, :3].trace(), torch.tensor(1 + 2 * math.cos(math.pi / 6)))
    assert pose[0, 2, 3] > 1.9 * math.cos(0.3)
    assert pose[1, 0, 3] > 0


def test_evaluation_ring_starts_at_the_front_at_the_given_elevation() -> None:
    ring = evaluation_ring(4, math.radians(30), 3.0, 0.7, 64)
    torch.testing.assert_close(ring.elevation, torch.full((4,), math.radians(30)))
    expected = torch.tensor([0.0, math.pi / 2, -math.pi, -math.pi / 2])
    torch.testing.assert_close((ring.azimuth - expected).cos(), torch.ones(4))


def test_a_sub_range_keeps_the_views_and_a_resize_keeps_the_shape() -> None:
    cameras = draw(STEADY, 5)
    part = cameras[1:3]
    assert len(part) == 2
    assert torch.equal(part.pose, cameras.pose[1:3])
    assert torch.equal(part.fov_y, cameras.fov_y[1:3])
    wide = replace(cameras, width=128).resized(32)
    assert (wide.height, wide.width) == (32, 64)
    assert torch.equal(wide.pose, cameras.pose)
    moved = cameras.to("cpu")
    assert all(getattr(moved, f.name) is getattr(cameras, f.name) for f in fields(Cameras))


def test_by_default_every_view_is_drawn_for_itself() -> None:
    sectors = [(draw(STEADY, 8, seed).azimuth.remainder(2 * math.pi) / (math.pi / 4)).floor() for seed in range(3)]
    assert not any(sector.tolist() == list(range(8)) for sector in sectors)


def test_ranges_may_be_one_number() -> None:
    one = replace(
        STEADY, elevation_deg=(20.0, 20.0), azimuth_deg=(60.0, 60.0), distance=(1.3, 1.3), fov_deg=(40.0, 40.0)
    )
    cameras = draw(one, 4)
    torch.testing.assert_close(cameras.elevation, torch.full((4,), math.radians(20)))
    torch.testing.assert_close(cameras.azimuth, torch.full((4,), math.radians(60)))
    torch.testing.assert_close(cameras.position.norm(dim=-1), torch.full((4,), 1.3))
    torch.testing.assert_close(cameras.fov_y, torch.full((4,), math.radians(40)))
