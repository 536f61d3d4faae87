"""The stability term of refine: against closed forms, finite differences, and what `mesh` says of standing."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import trimesh
from torch import Generator, Tensor

from dreamfusion import refine
from dreamfusion.loop import start
from dreamfusion.mesh.refined import taken_from
from dreamfusion.mesh.stance import stance
from dreamfusion.nerf.scene import Scene
from dreamfusion.surface import MeshScene
from dreamfusion.surface.regularise import bending, laplacian
from dreamfusion.surface.scene import Void
from dreamfusion.surface.stability import LEANS, MARGIN, SIDES, centre_of_mass, lever_arms, stability
from test_refine import CPU, TOLD, go, state
from test_surface import scene_of, together

pytestmark = pytest.mark.processor


def leaning(slope: float, fine: int = 2) -> trimesh.Trimesh:
    """A square tower, 0.4 wide and 1 high, whose middle goes aside by `slope` per unit of height."""
    body = trimesh.creation.box((0.4, 1.0, 0.4))
    for _ in range(fine):
        body = body.subdivide()
    body.vertices[:, 0] += slope * (body.vertices[:, 1] + 0.5)
    return body


def value(scene: MeshScene) -> float:
    found = stability(scene)
    assert found is not None
    return found.item()


def test_the_centre_of_mass_is_that_of_closed_forms():
    cone, ball = trimesh.creation.cone(0.3, 1.2, sections=64), trimesh.creation.icosphere(3, 0.2)
    cone.apply_translation([5.0, 0.0, -2.0])  # its base is at z = -2, and its centre of mass a quarter of the way up
    ball.apply_translation([4.0, 3.0, 1.0])
    shares = np.array([cone.volume, ball.volume])
    expected = shares @ np.array([[5.0, 0.0, -1.7], [4.0, 3.0, 1.0]]) / shares.sum()
    both = together(cone, ball)
    found = centre_of_mass(torch.tensor(both.vertices), torch.tensor(np.asarray(both.faces), dtype=torch.long))
    assert np.allclose(found.numpy(), expected, atol=1e-9)


def test_the_lever_arms_of_a_box_are_half_its_width_but_for_what_its_centre_moves_aside():
    """Half width w, centre at height h: leaning by a towards a side, the centre is w cos a - h sin a inside."""
    vertices = torch.tensor(leaning(0.0, 0).vertices)
    found = lever_arms(vertices, torch.zeros(3).double(), torch.tensor(1e-5))
    assert found.shape == (len(LEANS), SIDES)
    for row, lean in zip(found, LEANS, strict=True):
        assert math.isclose(row[0].item(), 0.2 * math.cos(lean) - 0.5 * math.sin(lean), rel_tol=1e-6)
        corner = SIDES // 8  # towards an edge that stands upright
        assert math.isclose(
            row[corner].item(), 0.2 * math.sqrt(2) * math.cos(lean) - 0.5 * math.sin(lean), rel_tol=1e-6
        )
        assert torch.allclose(row, row.roll(SIDES // 4))


def test_it_is_nothing_for_what_stands_firmly_and_grows_as_it_leans():
    assert value(scene_of(leaning(0.0))) == 0
    leans = [value(scene_of(leaning(slope))) for slope in (0.4, 0.6, 0.8)]
    assert 0 < leans[0] < leans[1] < leans[2]
    body = leaning(0.6)
    body.apply_scale(0.5)
    assert math.isclose(value(scene_of(body)), leans[1], rel_tol=1e-6)
    upright = [stance(taken_from(scene_of(leaning(slope)))).margin for slope in (0.0, 0.3)]
    assert upright[0] > upright[1] > MARGIN


def test_its_gradient_is_that_of_finite_differences():
    scene = scene_of(leaning(0.6))
    way = torch.randn(scene.offset.shape, generator=Generator().manual_seed(0), dtype=torch.float64)
    level = scene.start[:, 1]
    way[(level == level.min()) | (level == level.max()), 1] = 0  # its height is a unit, and has no gradient
    term = stability(scene)
    assert term is not None
    term.backward()
    assert scene.offset.grad is not None
    slope = (scene.offset.grad * way).sum().item()

    def at(step: float) -> float:
        with torch.no_grad():
            scene.offset.copy_(step * way)
        return value(scene)

    assert math.isclose(slope, (at(1e-6) - at(-1e-6)) / 2e-6, rel_tol=1e-4)
    assert abs(slope) > 1e-4


@pytest.mark.parametrize("slope", [0.5, 0.8])
def test_what_leans_too_far_comes_to_stand(slope: float):
    scene = scene_of(leaning(slope), dtype=torch.float32)
    assert not stance(taken_from(scene)).stands
    adam = torch.optim.Adam([scene.offset], lr=2e-3, betas=(0.9, 0.99))
    for _ in range(120):
        parts = [1e6 * stability(scene), 3000 * laplacian(scene), 300 * bending(scene)]  # pyright: ignore
        torch.stack(parts).sum().backward()
        adam.step()
        adam.zero_grad()
    assert stance(taken_from(scene)).stands
    assert scene.offset.norm(dim=-1).max() < 0.25


def test_without_its_weight_it_is_not_asked_and_with_it_the_shape_differs(tiny_config, disc_prior, monkeypatch):
    first = start(tiny_config, CPU)
    mesh = refine.first_mesh(first, TOLD)
    mesh = replace(mesh, vertices=mesh.vertices + mesh.vertices[:, 1:2] * np.array([[1.5, 0, 0]], np.float32))

    def made(weight: float) -> tuple[Tensor, str]:
        run = refine.second_run(first, replace(TOLD, stability=weight), mesh)
        told = str(go(run, disc_prior, 2))
        return state(run)["scene.offset"], told

    weighted, told = made(1e6)
    assert "stability" in told
    asked = list[Scene]()
    monkeypatch.setattr("dreamfusion.build.stability", asked.append)
    plain, told = made(0.0)
    assert not asked
    assert "stability" not in told
    assert not torch.equal(plain, weighted)


def test_it_says_nothing_of_what_cannot_move():
    scene = scene_of(leaning(0.6))
    assert stability(Scene(Void(), scene.background, scene.occupancy, 1.0)) is None
    scene.offset.requires_grad_(False)
    assert stability(scene) is None
