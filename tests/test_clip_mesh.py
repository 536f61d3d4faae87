"""CLIP-Mesh: the limit surface, the sphere and its maps, each term of the loss, and a run of it."""

import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
import trimesh

from conformance import code, page, require_row, rows
from dreamfusion import checkpoint
from dreamfusion.cameras import OrbitSampler, orbit
from dreamfusion.config import ClipMeshObjective, Config, SolidBackground, SphereFieldConfig
from dreamfusion.config.check import validate
from dreamfusion.config.presets import CLIP_MESH, CLIP_MESH_FAST
from dreamfusion.errors import UserError
from dreamfusion.geometry import normalise
from dreamfusion.lights import LightSampler, albedo_only, key_light
from dreamfusion.loop import Run, optimise, start
from dreamfusion.mesh.refined import taken_from
from dreamfusion.mesh.triangles import closed
from dreamfusion.nerf.background import Solid
from dreamfusion.nerf.render import RenderOptions, render, render_views
from dreamfusion.objectives import Seen
from dreamfusion.objectives.clip_mesh import ClipMesh, uniform_laplacian
from dreamfusion.objectives.target import target_of
from dreamfusion.surface import LimitScene
from dreamfusion.surface.edges import edges_of
from dreamfusion.surface.limit import limit_matrix
from dreamfusion.surface.limit_scene import along_texture
from dreamfusion.surface.sphere import sphere
from linear_clip import LinearClip

CPU = torch.device("cpu")
NUMBERS = rows(page("baselines.md"), "CLIP-Mesh: every number")


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def scene_of(parts: int = 4, size: float = 0.6, texture_size: int = 64) -> LimitScene:
    config = SphereFieldConfig(parts, size, texture_size)
    return LimitScene(config, Solid(SolidBackground((0.0, 0.0, 0.0))), 1.0, seeded())


@pytest.fixture
def told(tiny_config) -> Config:
    """A tiny run of CLIP-Mesh."""
    field = SphereFieldConfig(parts=3, size=0.6, texture_size=64)
    scene = replace(tiny_config.scene, field=field, background=SolidBackground((0.0, 0.0, 0.0)))
    light, rates = CLIP_MESH_FAST.light, replace(CLIP_MESH_FAST.optimise, grid=0.3)  # for few steps
    kinds = {"objective": ClipMeshObjective(), "regularise": CLIP_MESH_FAST.regularise}
    return replace(tiny_config, scene=scene, light=light, optimise=rates, prompt="a ball", **kinds)


@pytest.mark.parametrize("row", NUMBERS, ids=[row[0] for row in NUMBERS])
def test_each_number_is_the_presets_and_has_its_test(row):
    _, _, value, ours, proof = row
    (path,) = code(ours)
    require_row(CLIP_MESH, path, value, proof)


# The limit surface


def subdivided(vertices: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """One step of Loop's subdivision, old vertices first, from its masks."""
    edges = edges_of(torch.from_numpy(faces)).vertices.numpy()
    number = {tuple(sorted(edge)): len(vertices) + at for at, edge in enumerate(edges)}
    opposite = {key: [] for key in number}
    for face in faces:
        for i in range(3):
            opposite[tuple(sorted((face[i], face[(i + 1) % 3])))].append(face[(i + 2) % 3])
    middles = [3 / 8 * vertices[list(key)].sum(0) + 1 / 8 * vertices[opposite[key]].sum(0) for key in number]
    neighbours = [set() for _ in vertices]
    for a, b in edges:
        neighbours[a].add(b)
        neighbours[b].add(a)
    moved = []
    for vertex, around in zip(vertices, neighbours, strict=True):
        n = len(around)
        beta = (5 / 8 - (3 / 8 + math.cos(2 * math.pi / n) / 4) ** 2) / n
        moved.append((1 - n * beta) * vertex + beta * vertices[list(around)].sum(0))
    split = []
    for a, b, c in faces:
        ab, bc, ca = (number[tuple(sorted(pair))] for pair in ((a, b), (b, c), (c, a)))
        split += [(a, ab, ca), (ab, b, bc), (ca, bc, c), (ab, bc, ca)]
    return np.array([*moved, *middles]), np.array(split)


@pytest.mark.parametrize("make", [trimesh.creation.icosahedron, trimesh.creation.box], ids=["icosahedron", "box"])
def test_limit_positions_are_where_subdivision_ends(make):
    body = make()
    start = np.array(body.vertices) * [1.0, 0.7, 1.3] + np.sin(5 * np.array(body.vertices)) * 0.1
    vertices, faces = start, np.array(body.faces)
    matrix = limit_matrix(edges_of(torch.from_numpy(faces)).vertices, len(start)).to_dense().double().numpy()
    distances = []
    for _ in range(4):
        vertices, faces = subdivided(vertices, faces)
        distances.append(np.abs(vertices[: len(start)] - matrix @ start).max())
    assert distances[-1] < 0.02 * distances[0] + 1e-6
    assert all(after < 0.6 * before for before, after in pairwise(distances))


def test_subdividing_once_leaves_the_limit_where_it_was():
    body = trimesh.creation.box()
    coarse, faces = np.array(body.vertices) * [1.0, 0.5, 2.0], np.array(body.faces)
    fine, split = subdivided(coarse, faces)
    one = limit_matrix(edges_of(torch.from_numpy(faces)).vertices, len(coarse)).to_dense().double().numpy()
    two = limit_matrix(edges_of(torch.from_numpy(split)).vertices, len(fine)).to_dense().double().numpy()
    np.testing.assert_allclose((two @ fine)[: len(coarse)], one @ coarse, atol=1e-6)


def test_rows_sum_to_one_and_are_those_of_the_neighbours():
    scene = scene_of()
    matrix = scene.limit.to_dense()
    torch.testing.assert_close(matrix.sum(1), torch.ones(len(matrix)))
    assert (matrix >= 0).all()
    valence = (matrix > 0).sum(1) - 1
    assert valence.unique(return_counts=True)[1].tolist() == [12, len(matrix) - 12]
    torch.testing.assert_close(matrix.diagonal()[valence == 6], torch.full((len(matrix) - 12,), 0.5))


def test_flat_regular_meshes_stay_where_they_are():
    side = 6  # a torus of triangles, flat but for the jump where it closes
    at = torch.arange(side**2).view(side, side)
    right, down, both = at.roll(-1, 1), at.roll(-1, 0), at.roll((-1, -1), (0, 1))
    edges = torch.cat([torch.stack([at, to], -1).flatten(0, 1) for to in (right, down, both)])
    place = torch.stack([at % side, at // side], -1).flatten(0, 1).float() @ torch.tensor([[1.0, 0.2], [0.3, 2.0]])
    moved = limit_matrix(edges, side**2) @ place
    inner = at[1:-1, 1:-1].flatten()
    torch.testing.assert_close(moved[inner], place[inner])


def test_the_limit_passes_its_gradient_back():
    scene = scene_of(parts=2)
    weights = torch.randn(len(scene.start), 3, generator=seeded())
    (scene.shape.vertices * weights).sum().backward()
    torch.testing.assert_close(scene.offset.grad, scene.limit.to_dense().T @ weights)


# The sphere and its maps


def test_the_sphere_has_the_papers_numbers_and_is_closed():
    ball = sphere(8, 1.0)
    assert (len(ball.vertices), len(ball.faces)) == (642, 1280)
    body = trimesh.Trimesh(ball.vertices.numpy(), ball.faces.numpy(), process=False)
    assert body.is_watertight
    assert body.volume == pytest.approx(4 / 3 * math.pi, rel=0.01)
    torch.testing.assert_close(ball.vertices.norm(dim=-1), torch.ones(642))


def test_no_two_triangles_share_a_place_of_the_texture():
    uv = sphere(4, 1.0).uv.double()
    assert uv.min() > 0
    assert uv.max() < 1
    a, b, c = uv.unbind(1)
    area = 0.5 * ((b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0])
    assert (area > 0).all()  # not mirrored
    place = torch.rand(20_000, 1, 2, generator=seeded(), dtype=torch.float64)
    sides = [
        (q - p)[:, 0] * (place - p)[..., 1] - (q - p)[:, 1] * (place - p)[..., 0] for p, q in ((a, b), (b, c), (c, a))
    ]
    covered = (torch.stack(sides) > 0).all(0).sum(1)
    assert covered.max() == 1
    assert covered.float().mean().item() == pytest.approx(area.sum().item(), abs=0.01)


def test_u_grows_along_the_tangent_and_v_to_its_left():
    ball = sphere(2, 1.0)
    tangent = normalise(along_texture(ball))
    a, b, c = ball.vertices[ball.faces].unbind(1)
    up = torch.linalg.cross(normalise(torch.linalg.cross(b - a, c - a)), tangent)
    # Where a face's texture coordinates change by (du, dv), the place does by du T + dv B; T is along the tangent.
    steps = torch.stack([ball.uv[:, 1] - ball.uv[:, 0], ball.uv[:, 2] - ball.uv[:, 0]], 1)
    across, along = torch.linalg.solve(steps, torch.stack([b - a, c - a], 1)).unbind(1)
    torch.testing.assert_close(normalise(across), tangent, atol=1e-4, rtol=0.0)
    assert ((along * up).sum(-1) > 0).all()


def test_a_flat_normal_map_changes_nothing_and_a_slope_leans_towards_growing_u():
    scene = scene_of()
    cameras = orbit(torch.zeros(1), torch.zeros(1), torch.full((1,), 3.0), torch.full((1,), 0.7), 32)
    light, none = key_light(cameras, textureless=True), torch.zeros(1, 3)
    flat = scene.draw(cameras, light, none, normals=True)
    assert flat.normal is not None
    with torch.no_grad():
        scene.bumps[:, 0] = 0.5
    leaning = scene.draw(cameras, light, none, normals=True)
    solid = flat.opacity[0] == 1
    cosine = torch.cosine_similarity(flat.normal[0][solid], leaning.normal[0][solid], dim=-1)
    torch.testing.assert_close(cosine, torch.full_like(cosine, 1 / math.sqrt(1.25)), atol=2e-3, rtol=0.0)
    assert (flat.rgb - leaning.rgb).abs().max() > 0.05


def test_pictures_move_vertices_texels_and_bumps():
    scene = scene_of(parts=2)
    cameras = orbit(torch.zeros(2), torch.zeros(2), torch.full((2,), 3.0), torch.full((2,), 0.7), 24)
    picture = scene.draw(cameras, key_light(cameras, textureless=False), torch.zeros(2, 3), normals=False)
    picture.rgb.square().sum().backward()
    assert all(part.grad.abs().sum() > 0 for part in (scene.offset, scene.texels, scene.bumps))


def test_the_mesh_is_the_limit_surface_with_both_maps():
    scene = scene_of()
    mesh = taken_from(scene)
    np.testing.assert_allclose(mesh.vertices, scene.shape.vertices.detach().numpy())
    assert closed(mesh)
    assert mesh.normal_map is not None
    assert (mesh.normal_map == [128, 128, 255]).all()
    assert mesh.texture.shape == (64, 64, 3)


# The loss


def test_the_laplacian_is_its_formula_and_has_its_gradient():
    edges = edges_of(torch.tensor([[0, 2, 1], [0, 1, 3], [1, 2, 3], [0, 3, 2]])).vertices
    corners = torch.rand(4, 3, generator=seeded(), dtype=torch.float64).requires_grad_()
    by_hand = [(corners[[j for j in range(4) if j != i]].mean(0) - corners[i]).square() for i in range(4)]
    torch.testing.assert_close(uniform_laplacian(corners, edges), torch.stack(by_hand).mean())
    assert torch.autograd.gradcheck(lambda x: uniform_laplacian(x, edges), corners)


def test_its_weight_falls_as_the_code_says():
    weight = ClipMesh(ClipMeshObjective()).laplacian_weight
    for k in (0, 500, 1000, 3000):
        theirs = 0.6 + 29.4 * 10 ** (-1e-6 * k * (k + 1) / 2)
        assert weight(k / 5000) == pytest.approx(theirs, rel=2e-3)


def test_half_of_the_views_are_grey_in_the_first_half():
    cameras = OrbitSampler(CLIP_MESH.camera)(400, 8, seeded())
    sampler = LightSampler(CLIP_MESH.light)
    early, late = sampler(cameras, 0.2, seeded()), sampler(cameras, 0.7, seeded())
    assert early.textureless.float().mean().item() == pytest.approx(0.5, abs=0.08)
    assert not late.textureless.any()
    torch.testing.assert_close(early.diffuse[early.textureless], 0.5 * late.diffuse[early.textureless])
    torch.testing.assert_close(early.ambient[~early.textureless], late.ambient[~early.textureless])


def test_backgrounds_are_a_third_each():
    pictures = ClipMesh(ClipMeshObjective()).backgrounds(600, 24, seeded())
    assert pictures.min() >= 0
    assert pictures.max() <= 1
    plain = (pictures - pictures[:, :1, :1]).abs().amax((1, 2, 3)) == 0
    assert plain.float().mean().item() == pytest.approx(1 / 3, abs=0.06)


def test_cameras_follow_the_codes_laws():
    config = replace(CLIP_MESH.camera, shift=0.0)
    cameras = OrbitSampler(config)(4000, 8, seeded())
    share = cameras.elevation / (math.pi / 2)
    assert share.mean().item() == pytest.approx(1 / 6, abs=0.01)  # of Beta(1, 5)
    assert share.var().item() == pytest.approx(5 / (36 * 7), abs=0.003)
    distance, fov = cameras.position.norm(dim=-1), torch.rad2deg(cameras.fov_y)
    for values, low, high in ((distance, 5, 12), (fov, 30, 90)):
        quarters = torch.histc(values, 4, low, high) / 4000
        torch.testing.assert_close(quarters, torch.full((4,), 0.25), atol=0.03, rtol=0.0)


def test_shifts_move_the_camera_with_what_it_looks_at():
    still, moved = (OrbitSampler(replace(CLIP_MESH.camera, shift=shift))(500, 8, seeded()) for shift in (0.0, 2.0))
    torch.testing.assert_close(still.pose[:, :3, :3], moved.pose[:, :3, :3])
    aside = moved.position - still.position
    assert aside[:, 2].abs().max() < 1e-6
    assert (aside[:, :2].amin().item(), aside[:, :2].amax().item()) == pytest.approx((-2, 2), abs=0.05)
    assert aside[:, :2].var(0).tolist() == pytest.approx([4 / 3, 4 / 3], abs=0.15)


# Runs


def test_the_presets_are_valid_and_need_their_mesh(told):
    for preset in (CLIP_MESH, CLIP_MESH_FAST):
        validate(replace(preset, prompt="a chair"))
    with pytest.raises(UserError, match="--field sphere"):
        validate(replace(told, scene=replace(told.scene, field=Config().scene.field)))


def similarity_now(run: Run, model: LinearClip) -> float:
    """Over many views, lights and backgrounds, always the same."""
    draws = seeded(5)
    cameras = run.recipe.cameras(64, 24, draws)
    light, behind = run.recipe.lights(cameras, 0.6, draws), run.scene.background.draw(64, draws)
    picture = render(run.scene, cameras, light, run.recipe.train_render, None, behind)
    seen = Seen(picture, cameras, light, behind, run.scene, 0.6)
    return -run.objective(seen, model, target_of("a ball", model), draws).terms["similarity"].item()


def test_a_run_gets_nearer_to_its_caption_and_goes_on_bit_for_bit(told, tmp_path):
    model = LinearClip()
    target = target_of("a ball", model)
    told = replace(told, steps=40, size=24)
    run = start(told, CPU)
    begun, before = run.scene.control.detach().clone(), similarity_now(run, model)
    for metrics in optimise(run, model, target, 40):
        if metrics.step == 20:
            checkpoint.save(run, tmp_path)
    assert similarity_now(run, model) > before + 0.02
    assert metrics.losses["laplacian"] > 0
    assert (run.scene.control - begun).abs().max() > 0.01
    again = checkpoint.load(tmp_path, CPU)
    list(optimise(again, model, target, 40))
    state, other = run.scene.state_dict(), again.scene.state_dict()
    assert {"offset", "texels", "bumps"} <= state.keys()
    assert all(torch.equal(state[name], other[name]) for name in state)


def test_pictures_of_it_are_whole(told):
    run = start(told, CPU)
    cameras = orbit(torch.zeros(1), torch.zeros(1), torch.full((1,), 3.0), torch.full((1,), 0.7), 48)
    picture = render_views(run.scene, cameras, albedo_only(1), RenderOptions(normals=True), torch.ones(1, 3))
    radius = run.scene.shape.vertices.norm(dim=-1).mean().item()
    share = math.pi * (radius / (2 * 3 * math.tan(0.35))) ** 2
    assert picture.opacity.mean().item() == pytest.approx(share, rel=0.08)
    assert picture.normal is not None
    solid = picture.opacity[0] == 1
    assert (normalise(picture.normal[0][solid])[:, 2] > 0).all()
