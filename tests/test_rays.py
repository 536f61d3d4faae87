import math
from dataclasses import replace

import pytest
import torch

from dreamfusion.cameras import Cameras, OrbitSampler, orbit
from dreamfusion.geometry import look_at, normalise
from dreamfusion.nerf.rays import Rays, cast, means, stratified, variances

pytestmark = pytest.mark.processor


def some_cameras(height: int = 6, width: int = 9) -> Cameras:
    cameras = OrbitSampler()(3, height, torch.Generator().manual_seed(0))
    return Cameras(cameras.pose.double(), cameras.fov_y.double(), height, width)


def project(cameras: Cameras, points: torch.Tensor) -> torch.Tensor:
    """Pixel coordinates (column, row) of points "b h w 3", written independently: through the inverse pose and OpenGL's
    projection, with the picture from -1 to 1 from bottom to top.
    """
    ones = torch.ones_like(points[..., :1])
    x, y, z, _ = torch.einsum("bij,bhwj->bhwi", torch.linalg.inv(cameras.pose), torch.cat([points, ones], -1)).unbind(
        -1
    )
    half = torch.tan(cameras.fov_y / 2)[:, None, None]
    across, up = x / (-z * half * cameras.width / cameras.height), y / (-z * half)
    return torch.stack([(1 + across) / 2 * cameras.width, (1 - up) / 2 * cameras.height], dim=-1)


def test_pixel_to_ray_to_pixel() -> None:
    cameras = some_cameras()
    rays = cast(cameras)
    far_out = torch.linspace(0.5, 3, len(rays), dtype=torch.float64)[:, None]
    points = (rays.origin + far_out * rays.direction).reshape(3, 6, 9, 3)
    row, column = torch.meshgrid(torch.arange(6) + 0.5, torch.arange(9) + 0.5, indexing="ij")
    expected = torch.stack([column, row], dim=-1).double().expand(3, 6, 9, 2)
    torch.testing.assert_close(project(cameras, points), expected)
    torch.testing.assert_close(rays.direction.norm(dim=-1), torch.ones(len(rays), dtype=torch.float64))


def test_the_middle_of_an_odd_picture_looks_along_the_view() -> None:
    cameras = some_cameras(5, 7)
    rays = cast(cameras)
    middle = rays.direction.reshape(3, 5, 7, 3)[:, 2, 3]
    torch.testing.assert_close(middle, -cameras.pose[:, :3, 2])
    torch.testing.assert_close(rays.origin.reshape(3, 35, 3), cameras.position[:, None].expand(3, 35, 3))


def test_casting_commutes_with_rotations() -> None:
    cameras = some_cameras()
    turn = look_at(torch.zeros(1, 3).double(), torch.tensor([[1.0, 2.0, 3.0]]).double(), torch.eye(3)[:1].double())[0]
    still, turned = cast(cameras), cast(replace(cameras, pose=turn @ cameras.pose))
    torch.testing.assert_close(turned.direction, still.direction @ turn[:3, :3].T)
    torch.testing.assert_close(turned.origin, still.origin @ turn[:3, :3].T)
    torch.testing.assert_close(turned.radius, still.radius)


def test_the_footprint_has_the_variance_of_a_pixel_in_the_picture_plane() -> None:
    cameras = some_cameras(64, 64)
    rays = cast(cameras)
    depth = (rays.direction.reshape(3, -1, 3) * -cameras.pose[:, None, :3, 2]).sum(-1)  # of a point at distance 1
    at_depth_one = rays.radius.reshape(3, -1) / depth
    pixel = 2 * torch.tan(cameras.fov_y / 2)[:, None] / 64
    disc_variance, square_variance = at_depth_one.square() / 4, pixel.square() / 12
    torch.testing.assert_close(disc_variance, square_variance.expand_as(disc_variance))


def test_neighbouring_footprints_are_one_pixel_apart() -> None:
    one = torch.ones(1, dtype=torch.float64)
    rays = cast(orbit(0 * one, 0 * one, one, one, 201))
    centre = 100 * 201 + 100
    step = (rays.direction[centre + 1] - rays.direction[centre]).norm()
    torch.testing.assert_close(rays.radius[centre], step * 2 / math.sqrt(12), rtol=1e-4, atol=0)


def test_bins_cover_the_whole_way_in_order() -> None:
    near, far = torch.tensor([0.0, 1.0, 2.5]), torch.tensor([2.0, 1.5, 2.5])
    for generator in (None, torch.Generator().manual_seed(0)):
        t = stratified(near, far, 7, generator)
        assert (t.diff(dim=-1) >= 0).all()
        torch.testing.assert_close(t[:, 0], near)
        torch.testing.assert_close(t[:, -1], far)
        assert (t[2] == 2.5).all()


def test_without_a_generator_bins_are_equal() -> None:
    t = stratified(torch.tensor([1.0]), torch.tensor([3.0]), 4, None)
    torch.testing.assert_close(t, torch.tensor([[1.0, 1.5, 2.0, 2.5, 3.0]]))


def test_inner_edges_are_uniform_about_their_regular_places() -> None:
    zero = torch.zeros(4000)
    t = stratified(zero, zero + 1, 5, torch.Generator().manual_seed(0))
    offset = t[:, 1:-1] * 5 - torch.arange(1, 5)
    assert offset.abs().max() <= 0.5 + 1e-5
    place = offset.flatten().sort().values + 0.5
    assert (place - torch.linspace(0, 1, 16000)).abs().max() < 1.95 / math.sqrt(16000)
    torch.testing.assert_close(offset.T.corrcoef(), torch.eye(4), atol=0.06, rtol=0)


def test_the_same_seed_gives_the_same_bins_and_rays_differ() -> None:
    zero = torch.zeros(3)
    first, again = (stratified(zero, zero + 1, 8, torch.Generator().manual_seed(4)) for _ in range(2))
    assert torch.equal(first, again)
    assert not torch.equal(first[0], first[1])


def one_ray(radius: float) -> Rays:
    direction = normalise(torch.tensor([[1.0, -2.0, 0.5]], dtype=torch.float64))
    return Rays(torch.tensor([[0.3, 0.1, -0.7]], dtype=torch.float64), direction, torch.full((1,), radius).double())


def frustum_samples(ray: Rays, low: float, high: float, count: int) -> torch.Tensor:
    """Points uniform in the piece of the cone, by rejection from the cylinder around it."""
    u = torch.rand(count, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    t = low + (high - low) * u[:, 0]
    offset = (2 * u[:, 1:] - 1) * ray.radius * high
    kept = offset.norm(dim=-1) <= ray.radius * t
    basis = torch.linalg.svd(ray.direction).Vh[1:]
    return (ray.origin + t[:, None] * ray.direction + offset @ basis)[kept]


def test_gaussians_are_the_moments_of_the_cone_frustum() -> None:
    for radius, low, high in ((0.3, 0.5, 1.5), (0.05, 0.0, 1.0), (0.8, 2.0, 2.2)):
        ray = one_ray(radius)
        mean, var = (
            means(ray, torch.tensor([[low, high]], dtype=torch.float64)),
            variances(ray, torch.tensor([[low, high]], dtype=torch.float64)),
        )
        samples = frustum_samples(ray, low, high, 400_000)
        noise = 5 * samples.std(0).max().item() / math.sqrt(len(samples))
        torch.testing.assert_close(mean[0, 0], samples.mean(0), atol=noise, rtol=0)
        torch.testing.assert_close(var[0, 0], samples.var(0), atol=0, rtol=0.015)


def test_gaussians_equal_the_quotients_of_powers_where_those_are_exact() -> None:
    ray, low, high = one_ray(0.2), 0.7, 1.9
    mean, var = (
        means(ray, torch.tensor([[low, high]], dtype=torch.float64)),
        variances(ray, torch.tensor([[low, high]], dtype=torch.float64)),
    )
    moment = [(high ** (k + 3) - low ** (k + 3)) / (k + 3) for k in range(3)]  # integrals of t^k t^2
    first, second = moment[1] / moment[0], moment[2] / moment[0]
    torch.testing.assert_close(mean[0, 0], ray.origin[0] + first * ray.direction[0])
    along, across = second - first**2, 0.2**2 * second / 4
    torch.testing.assert_close(var[0, 0].sum(), torch.tensor(along + 2 * across, dtype=torch.float64))
    squared = ray.direction[0].square()
    torch.testing.assert_close(var[0, 0], along * squared + across * (1 - squared))


def test_thin_far_bins_stay_exact_in_single_precision() -> None:
    ray = one_ray(1e-3)
    single = Rays(ray.origin.float(), ray.direction.float(), ray.radius.float())
    t = 1000 + torch.arange(3, dtype=torch.float64)[None] / 64
    expected = variances(ray, t)
    var = variances(single, t.float())
    torch.testing.assert_close(var.double(), expected, rtol=1e-5, atol=0)


def test_gaussians_scale_with_the_scene() -> None:
    ray, t = one_ray(0.1), torch.tensor([[0.2, 0.5, 1.1]], dtype=torch.float64)
    mean, var = means(ray, t), variances(ray, t)
    larger_mean, larger_var = (
        means(replace(ray, origin=10 * ray.origin), 10 * t),
        variances(replace(ray, origin=10 * ray.origin), 10 * t),
    )
    torch.testing.assert_close(larger_mean, 10 * mean)
    torch.testing.assert_close(larger_var, 100 * var)


def test_bins_of_no_length_are_discs_with_finite_gradients() -> None:
    ray = one_ray(0.2)
    t = torch.tensor([[0.0, 0.0, 1.0, 1.0]], dtype=torch.float64, requires_grad=True)
    mean, var = means(ray, t), variances(ray, t)
    torch.testing.assert_close(mean[0, 0], ray.origin[0])
    assert var[0, 0].abs().max() == 0
    torch.testing.assert_close(mean[0, 2], ray.origin[0] + ray.direction[0])
    torch.testing.assert_close(var[0, 2], 0.2**2 / 4 * (1 - ray.direction[0].square()))
    (mean.sum() + var.sum()).backward()
    assert t.grad is not None
    assert t.grad.isfinite().all()
