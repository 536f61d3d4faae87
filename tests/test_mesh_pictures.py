"""Triangles in pictures: against brute force, planes and balls in closed form."""

import math

import numpy as np
import pytest
import torch
import trimesh
from torch import Generator

from dreamfusion.cameras import turntable
from dreamfusion.geometry import intersect_ball
from dreamfusion.mesh import Mesh
from dreamfusion.mesh.agreement import hits, overlap, psnr, silhouettes
from dreamfusion.nerf.rays import cast
from dreamfusion.surface import cover

pytestmark = pytest.mark.processor


def test_a_pixel_is_covered_by_the_triangles_that_its_centre_is_in() -> None:
    triangles = 14 * torch.rand(40, 3, 2, generator=Generator().manual_seed(0)) - 1
    found = cover(triangles, 10, 12)
    pairs = set(zip(found.face.tolist(), found.pixel.tolist(), strict=True))
    expected = set()
    for face, corners in enumerate(triangles.numpy()):
        for row in range(10):
            for column in range(12):
                x, y = column + 0.5, row + 0.5
                edges = zip(corners, np.roll(corners, -1, 0), strict=True)
                sides = [(b[0] - a[0]) * (y - a[1]) - (b[1] - a[1]) * (x - a[0]) for a, b in edges]
                if min(sides) >= 0 or max(sides) <= 0:
                    expected.add((face, row * 12 + column))
    assert pairs == expected
    assert len(pairs) == len(found.face)


def test_weights_reproduce_places() -> None:
    triangles = 20 * torch.rand(30, 3, 2, generator=Generator().manual_seed(1))
    found = cover(triangles, 20, 20)
    centres = torch.stack([found.pixel % 20, found.pixel // 20], -1) + 0.5
    assert torch.allclose(found.blend(triangles), centres, atol=1e-3)
    assert torch.allclose(found.weights.sum(-1), torch.ones(len(found.face)))


def test_neighbouring_triangles_leave_no_gap() -> None:
    generator = Generator().manual_seed(2)
    middle = 4 + 24 * torch.rand(50, 2, generator=generator)  # four triangles about a point fill the square
    square = torch.tensor([[0.0, 0.0], [32.0, 0.0], [32.0, 32.0], [0.0, 32.0]])
    for point in middle:
        fan = torch.stack([torch.stack([square[i], square[(i + 1) % 4], point]) for i in range(4)])
        assert len(cover(fan, 32, 32).pixel.unique()) == 32 * 32


def test_a_triangle_without_an_area_covers_nothing() -> None:
    assert len(cover(torch.tensor([[[0.0, 0.5], [4.0, 0.5], [9.0, 0.5]]]), 8, 8).face) == 0


def ball_mesh(radius: float, offset: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> Mesh:
    body = trimesh.creation.icosphere(5, radius)
    return Mesh((body.vertices + np.array(offset)).astype(np.float32), np.asarray(body.faces, np.int64))


def test_a_ball_is_seen_where_its_rays_meet_it_and_as_far_away() -> None:
    cameras = turntable(3, 0.4, 3.0, 0.7, 40)
    rays = cast(cameras)
    near, far = intersect_ball(rays.origin, rays.direction, 0.8)
    seen, distance = hits(ball_mesh(0.8), cameras)
    expected = (far > near).nonzero()[:, 0]
    assert len(set(seen.pixel.tolist()) ^ set(expected.tolist())) <= 0.01 * len(expected)
    inner = near[seen.pixel] < 2.7  # at the rim a chord's height is a long way along the ray
    assert float((distance - near[seen.pixel])[inner].abs().max()) < 5e-3
    assert seen.pixel.diff().min() > 0  # one each, in order


def test_distances_on_a_slanted_face_are_those_along_the_rays() -> None:
    """One large triangle seen askew: interpolation must be the perspective's, not the picture's."""
    vertices = np.array([[-3, -2, -2.5], [3, -2, 1.0], [0, 3, 0.5]], np.float32)
    mesh = Mesh(vertices, np.array([[0, 1, 2]]))
    cameras = turntable(1, 0.0, 4.0, 0.8, 24)
    seen, distance = hits(mesh, cameras)
    rays = cast(cameras)
    normal = torch.from_numpy(np.cross(vertices[1] - vertices[0], vertices[2] - vertices[0]))
    along = ((torch.from_numpy(vertices[0]) - rays.origin) * normal).sum(-1) / (rays.direction * normal).sum(-1)
    assert len(seen.face) > 100
    assert torch.allclose(distance, along[seen.pixel], rtol=1e-4)


def test_the_nearer_of_two_bodies_hides_the_other() -> None:
    near, far = ball_mesh(0.3, (0.0, 0.0, 1.0)), ball_mesh(0.6, (0.0, 0.0, -1.0))
    both = Mesh(np.r_[far.vertices, near.vertices], np.r_[far.faces, near.faces + len(far.vertices)])
    cameras = turntable(1, 0.0, 4.0, 0.8, 48)
    seen, _ = hits(both, cameras)
    in_front = set(seen.pixel[seen.face >= len(far.faces)].tolist())
    assert in_front == set(hits(near, cameras)[0].pixel.tolist())
    assert len(seen.pixel) > 1.2 * len(in_front)


def test_overlap_of_discs_is_the_ratio_of_their_areas() -> None:
    cameras = turntable(2, 0.2, 50.0, 0.045, 128)  # from so far away that a ball's outline is its radius
    small, large = (silhouettes(ball_mesh(radius), cameras) for radius in (0.6, 0.9))
    assert math.isclose(overlap(small, large), (0.6 / 0.9) ** 2, rel_tol=0.02)
    assert overlap(large, large) == 1
    nothing = large & False
    assert overlap(nothing, nothing) == 0
    seen_once = torch.tensor([True, False])[:, None, None]
    assert overlap(small & seen_once, large & seen_once) == overlap(small[:1], large[:1])  # an empty view has no say
    assert overlap(small & seen_once, nothing) == 0


def test_the_error_of_some_pixels_is_not_thinned_by_the_others() -> None:
    disc = torch.zeros(3, 8, 8, dtype=torch.bool)
    disc[:2, 2:6, 2:6] = True  # a quarter of two pictures; the third one shows nothing
    difference = 0.1 * disc[..., None].expand(-1, -1, -1, 3)
    assert math.isclose(psnr(difference, disc), 20, abs_tol=1e-4)
    frame = torch.ones_like(disc)
    assert math.isclose(psnr(difference[:2], frame[:2]), 20 + 10 * math.log10(4), abs_tol=1e-4)
    assert math.isclose(psnr(0 * difference, frame), 100, abs_tol=1e-4)
    assert psnr(difference, disc & False) == 0
