import math

import pytest
import torch

from dreamfusion.geometry import angles_of, intersect_ball, intersect_box, look_at, normalise, spherical

pytestmark = pytest.mark.processor


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_normalise_gives_unit_vectors_at_any_scale() -> None:
    v = randn(50, 3).float()
    for scale in (1e-8, 1.0, 1e8):
        unit = normalise(v * scale)
        torch.testing.assert_close(unit.norm(dim=-1), torch.ones(50))
        torch.testing.assert_close(unit, normalise(v))


def test_normalise_of_zero_is_zero_with_finite_first_and_second_gradients() -> None:
    v = torch.zeros(1, 3, requires_grad=True)
    (first,) = torch.autograd.grad((normalise(v) * torch.tensor([1.0, 2.0, 3.0])).sum(), v, create_graph=True)
    (second,) = torch.autograd.grad(first.square().sum(), v)
    assert normalise(v).abs().max() == 0
    assert first.isfinite().all()
    assert second.isfinite().all()


def test_normalise_has_the_right_gradients_twice() -> None:
    v = randn(4, 3).requires_grad_()
    assert torch.autograd.gradcheck(normalise, v)
    assert torch.autograd.gradgradcheck(normalise, v)


def test_spherical_names_the_world_axes() -> None:
    quarter = math.pi / 2
    azimuth = torch.tensor([0.0, quarter, 2 * quarter, 0.3], dtype=torch.float64)
    elevation = torch.tensor([0.0, 0.0, 0.0, quarter], dtype=torch.float64)
    points = spherical(azimuth, elevation, torch.full_like(azimuth, 2.0))
    expected = torch.tensor([[0, 0, 2], [2, 0, 0], [0, 0, -2], [0, 2, 0]], dtype=torch.float64)
    torch.testing.assert_close(points, expected)


def test_angles_and_distance_invert_spherical() -> None:
    point = randn(200, 3)
    azimuth, elevation = angles_of(point)
    torch.testing.assert_close(spherical(azimuth, elevation, point.norm(dim=-1)), point)
    assert azimuth.min() >= -math.pi
    assert azimuth.max() < math.pi
    assert elevation.abs().max() <= math.pi / 2


def test_straight_behind_has_azimuth_minus_pi_on_either_side_of_zero() -> None:
    behind = torch.tensor([[0.0, 0.0, -1.0], [-0.0, 0.0, -1.0]], dtype=torch.float64)
    assert angles_of(behind)[0].tolist() == [-math.pi, -math.pi]


def test_look_at_is_a_rigid_motion_that_puts_the_target_on_the_view() -> None:
    eye, target, up = randn(50, 3), randn(50, 3, seed=1), randn(50, 3, seed=2)
    pose = look_at(eye, target, up)
    rotation = pose[:, :3, :3]
    torch.testing.assert_close(rotation @ rotation.mT, torch.eye(3, dtype=torch.float64).expand(50, 3, 3))
    torch.testing.assert_close(torch.linalg.det(rotation), torch.ones(50, dtype=torch.float64))
    homogeneous = torch.cat([target, torch.ones(50, 1, dtype=torch.float64)], dim=-1)
    seen = (torch.linalg.inv(pose) @ homogeneous[..., None])[..., 0]
    expected = torch.zeros(50, 4, dtype=torch.float64)
    expected[:, 2], expected[:, 3] = -(target - eye).norm(dim=-1), 1.0
    torch.testing.assert_close(seen, expected)


def test_up_lies_in_the_upper_half_of_the_pictures_vertical_plane() -> None:
    eye, target, up = randn(50, 3), randn(50, 3, seed=1), randn(50, 3, seed=2)
    in_camera = (look_at(eye, target, up)[:, :3, :3].mT @ up[..., None])[..., 0]
    torch.testing.assert_close(in_camera[:, 0], torch.zeros(50, dtype=torch.float64))
    assert in_camera[:, 1].min() > 0


def test_look_at_commutes_with_rigid_motions() -> None:
    eye, target, up = randn(20, 3), randn(20, 3, seed=1), randn(20, 3, seed=2)
    turn = torch.linalg.qr(randn(3, 3, seed=3)).Q
    turn = turn * torch.linalg.det(turn)
    shift = randn(3, seed=4)
    moved = look_at(eye @ turn.T + shift, target @ turn.T + shift, up @ turn.T)
    motion = torch.eye(4, dtype=torch.float64)
    motion[:3, :3], motion[:3, 3] = turn, shift
    torch.testing.assert_close(moved, motion @ look_at(eye, target, up))


@pytest.mark.parametrize("height", [2.0, -2.0])
def test_a_vertical_view_is_the_limit_of_views_that_come_from_the_front(height: float) -> None:
    up = torch.tensor([[0.0, 1.0, 0.0]], dtype=torch.float64)
    at_pole = look_at(torch.tensor([[0.0, height, 0.0]], dtype=torch.float64), torch.zeros_like(up), up)
    nearly = look_at(torch.tensor([[0.0, height, 1e-5]], dtype=torch.float64), torch.zeros_like(up), up)
    torch.testing.assert_close(at_pole, nearly, atol=2e-5, rtol=0)


def test_look_at_refuses_what_has_no_answer() -> None:
    eye, up = torch.tensor([[0.0, 0.0, 2.0]]), torch.tensor([[0.0, 1.0, 0.0]])
    with pytest.raises(ValueError, match="apart"):
        look_at(eye, eye, up)
    with pytest.raises(ValueError, match="parallel"):
        look_at(eye, torch.zeros(1, 3), eye)


def test_ball_entry_and_exit_lie_on_the_ball() -> None:
    # From outside towards points inside, so that every ray hits.
    inside = 0.9 * normalise(randn(100, 3)) * torch.linspace(0, 1, 100, dtype=torch.float64)[:, None]
    origin = 3 * normalise(randn(100, 3, seed=1))
    direction = normalise(inside - origin)
    near, far = intersect_ball(origin, direction, 0.9)
    for t in (near, far):
        torch.testing.assert_close((origin + t[:, None] * direction).norm(dim=-1), torch.full_like(t, 0.9))
    halfway = origin + (0.5 * (near + far))[:, None] * direction
    assert (near <= far).all()
    assert (halfway.norm(dim=-1) <= 0.9).all()


def test_ball_from_inside_starts_at_the_origin_of_the_ray() -> None:
    origin, direction = 0.4 * normalise(randn(50, 3)), normalise(randn(50, 3, seed=1))
    near, far = intersect_ball(origin, direction, 1.0)
    assert (near == 0).all()
    torch.testing.assert_close((origin + far[:, None] * direction).norm(dim=-1), torch.ones_like(far))


def test_misses_have_zero_length() -> None:
    origin = torch.tensor([[0.0, 2.0, -3.0], [0.0, 0.0, 3.0]])  # passes beside the ball; leaves it behind
    near, far = intersect_ball(origin, torch.tensor([[0.0, 0.0, 1.0]]).expand(2, 3), 1.0)
    assert near.tolist() == far.tolist() == [3.0, 0.0]


def test_ball_is_exact_from_far_away_in_single_precision() -> None:
    origin, direction = torch.tensor([[0.6, 0.0, 1000.0]]), torch.tensor([[0.0, 0.0, -1.0]])
    near, far = intersect_ball(origin, direction, 1.0)
    torch.testing.assert_close(far - near, torch.tensor([1.6]), atol=2e-4, rtol=0)


def test_box_is_entered_and_left_where_slabs_say():
    low, high = torch.tensor([-1.0, -0.5, 0.0]), torch.tensor([1.0, 0.5, 2.0])
    origin = torch.tensor([[0.0, 0.0, 5.0], [0.0, 0.0, 1.0], [3.0, 0.0, 1.0], [0.0, 0.6, 5.0], [0.0, 0.0, 5.0]])
    towards = torch.tensor([[0.0, 0.0, -1.0], [0.0, 1.0, 0.0], [-1.0, 0.0, 0.0], [0.0, 0.0, -1.0], [0.0, 0.0, 1.0]])
    near, far = intersect_box(origin, towards, low, high)
    assert torch.allclose(near[:3], torch.tensor([3.0, 0.0, 2.0]))
    assert torch.allclose(far[:3], torch.tensor([5.0, 0.5, 4.0]))
    assert (near[3:] >= far[3:]).all()  # one passes by, one has it behind


def test_points_between_near_and_far_are_the_points_in_the_box():
    generator = torch.Generator().manual_seed(0)
    low, high = torch.tensor([-0.7, -0.2, -0.9]), torch.tensor([0.3, 0.8, 0.1])
    origin = torch.randn(400, 3, generator=generator)
    direction = normalise(torch.randn(400, 3, generator=generator))
    near, far = intersect_box(origin, direction, low, high)
    t = 4 * torch.rand(400, 50, generator=generator)
    points = origin[:, None] + t[..., None] * direction[:, None]
    inside = ((points >= low) & (points <= high)).all(-1)
    between = (t >= near[:, None]) & (t <= far[:, None])
    on_a_face = torch.stack([points - low, points - high]).abs().amin((0, -1)) < 1e-5  # rounding decides there
    assert (on_a_face | (inside == between)).all()
    assert (inside & ~on_a_face).any()
