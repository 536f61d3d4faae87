"""The embedded prior: its pictures tell the truth, its training resumes exactly, its folder opens as any other."""

import json
import math
import signal
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from itertools import product

import numpy as np
import pytest
import torch
import trimesh
from torch import Generator
from torch.nn import functional as F

from dreamfusion import runtime
from dreamfusion.cameras import orbit
from dreamfusion.diffusion.ddim import caption_conditioning, ddim
from dreamfusion.diffusion.priors import ViewCondition, open_prior
from dreamfusion.diffusion.view_words import ViewWords
from dreamfusion.embedded import world
from dreamfusion.embedded.sketch import SKETCH
from dreamfusion.embedded.unet import GROUPS, STEPS, known_features, pooled, signal_share
from dreamfusion.errors import UserError
from dreamfusion.lights import Light
from dreamfusion.nerf.rays import cast
from gaussian_prior import GaussianPrior, cosine_schedule
from training import __main__ as cli
from training import views
from training.meshes import BALL, MeshRenderer, barycentric, load, main_colour
from training.nouns import Assets, Noun, holdout_rule, learned, names, nouns, shares
from training.prior import data as dataset
from training.prior import train
from training.prior.card import make_card
from training.prior.parts import new_parts, write
from training.prior.train import TrainOptions, advance, learning_rate, new_training, pictures_seen
from training.prior.views import Views, build, open_views, random_cameras


def generator(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def ball(tmp_path_factory):
    """A smooth ball whose upper half is linear 0.5 red and lower half green, saved as a .glb, loaded by our reader."""
    sphere = trimesh.creation.icosphere(subdivisions=4)
    upper = sphere.triangles_center[:, 1] > 0
    scene = trimesh.Scene()
    for mask, factor in ((upper, (0.5, 0.0, 0.0, 1.0)), (~upper, (0.0, 0.5, 0.0, 1.0))):
        part = sphere.submesh([mask], append=True)
        part.visual = trimesh.visual.TextureVisuals(
            material=trimesh.visual.material.PBRMaterial(baseColorFactor=factor)
        )
        scene.add_geometry(part)
    path = tmp_path_factory.mktemp("meshes") / "ball.glb"
    scene.export(path)
    return load(path)


def views_of_noise(count: int) -> Views:
    colours = torch.randint(0, 128, (3, count, 64, 64, 3), generator=generator(), dtype=torch.uint8)
    return Views(
        mesh=torch.arange(count) % len(learned(nouns())),
        pose=random_cameras(count, generator(1)).pose,
        paint=colours[0],
        rest=colours[1],
        normal=colours[2] + 64,
        alpha=torch.full((count, 64, 64), 255, dtype=torch.uint8),
    )


def test_barycentric_weights_give_the_point_back():
    rng = np.random.default_rng(0)
    corners, weights = rng.normal(size=(50, 3, 3)), rng.dirichlet((1, 1, 1), size=50)
    points = np.einsum("nk,nkd->nd", weights, corners)
    assert np.allclose(barycentric(corners, points), weights, atol=1e-9)


def test_a_ball_is_seen_as_a_disc_of_the_right_size_with_radial_normals(ball):
    camera = orbit(torch.tensor([0.7]), torch.tensor([0.3]), torch.tensor([3.0]), torch.tensor([math.radians(40)]), 128)
    rays = cast(camera)
    seen = MeshRenderer(ball).buffers(rays.origin.double().numpy(), rays.direction.double().numpy(), 64, 2)
    # A ball of radius r at distance d fills a disc of tangent radius r / sqrt(d^2 - r^2) of the picture's half height.
    radius = BALL / math.sqrt(9 - BALL**2) / math.tan(math.radians(20)) * 32
    assert seen.alpha.sum() / 255 == pytest.approx(math.pi * radius**2, rel=0.01)
    centre = seen.normal[31:33, 31:33].mean((0, 1)) / 127 - 1
    assert np.allclose(centre, camera.position[0].numpy() / 3, atol=0.05)


def test_linear_base_colours_become_srgb_and_sides_stay_where_they_are(ball):
    camera = orbit(torch.tensor([0.0]), torch.tensor([0.0]), torch.tensor([3.0]), torch.tensor([math.radians(40)]), 128)
    rays = cast(camera)
    seen = MeshRenderer(ball).buffers(rays.origin.double().numpy(), rays.direction.double().numpy(), 64, 2)
    albedo = (seen.paint.astype(int) + seen.rest)[:, 32]
    assert albedo[16].tolist() == pytest.approx([188, 0, 0], abs=2)  # linear 0.5 is 0.735 in sRGB
    assert albedo[48].tolist() == pytest.approx([0, 188, 0], abs=2)


def test_yaw_turns_the_object_about_the_vertical(tmp_path):
    trimesh.Trimesh([[0, 0, 0], [1, 0, 0], [0, 0.1, 0]], [[0, 1, 2]]).export(tmp_path / "t.glb")
    straight, turned = load(tmp_path / "t.glb").triangles[0], load(tmp_path / "t.glb", yaw_deg=90.0).triangles[0]
    assert np.allclose(turned[1] - turned[0], [0, 0, -(straight[1] - straight[0])[0]], atol=1e-9)


def test_the_main_colour_is_the_paint_not_the_wheels():
    colour = np.array([[0.8, 0.1, 0.1], [0.78, 0.12, 0.1], [0.3, 0.3, 0.3]])
    assert main_colour(colour, np.array([40.0, 10.0, 70.0])).tolist() == [True, True, False]


def test_three_lights_give_their_closed_forms():
    albedo, alpha = torch.tensor([0.2, 0.4, 0.6]).expand(3, 1, 1, 3), torch.ones(3, 1, 1, 1)
    normal = torch.tensor([0.0, 1.0, 0.0]).expand(3, 1, 1, 3)
    ambient, diffuse = torch.tensor([1.0, 0.3, 0.3]), torch.tensor([0.0, 0.7, 0.7])
    position = torch.tensor([[0.0, 5.0, 0.0], [0.0, 3.0, 4.0], [0.0, -1.0, 0.0]])
    image = dataset.shade(albedo, normal, alpha, Light(position, ambient, diffuse, torch.tensor([False, False, True])))
    expected = torch.stack([albedo[0, 0, 0], albedo[0, 0, 0] * (0.3 + 0.7 * 0.6), torch.full((3,), 0.3)])
    assert torch.allclose(image[:, 0, 0], expected, atol=1e-6)


def test_pictures_of_half_the_size_are_those_of_the_whole_size_seen_from_further_away():
    noise = views_of_noise(32)
    noise = replace(noise, paint=torch.full_like(noise.paint, 90))  # of one brightness: repainting saturates nothing
    edge = torch.arange(64)[None, :, None] >= 31  # runs through a pair of rows
    cut = {"alpha": noise.alpha * edge}
    for key, nothing in (("paint", 0), ("rest", 0), ("normal", 127)):
        smooth = getattr(noise, key)[:, ::8, ::8].repeat_interleave(8, 1).repeat_interleave(8, 2)
        cut[key] = torch.where(edge[..., None], smooth, nothing)
    pictures = dataset.Pictures(replace(noise, **cut), nouns())
    whole, half = (pictures.batch(32, generator(), halve=halve) for halve in (False, True))
    assert whole.captions == half.captions
    assert half.image.shape[-2:] == (32, 32)
    assert torch.allclose(half.image, F.interpolate(whole.image, (32, 32), mode="area"), atol=0.01)


def test_every_noun_is_learned_as_often_however_many_views_it_has():
    pictures = dataset.Pictures(views_of_noise(58), nouns())
    rows = [pictures.table[mesh].noun for mesh in pictures.views.mesh]
    chosen = pictures._any_views(20_000, generator()).bincount(minlength=58)
    assert len(set(rows)) < 40
    for noun in set(rows):
        own = chosen[[row == noun for row in rows]]
        assert own.sum().item() == pytest.approx(20_000 / len(set(rows)), rel=0.2)
        assert own.min().item() == pytest.approx(own.max().item(), rel=0.5)


def test_every_variety_of_a_noun_means_one_of_its_meshes_and_every_mesh_is_meant():
    rows = [Noun("apple", f"{i}.glb", 0.0) for i in range(3)] + [Noun("tree", f"t{i}.glb", 0.0) for i in range(6)]
    many = [Noun("car", f"c{i}.glb", 0.0) for i in range(14)]
    assert dataset.meant_by([Noun("box", "box.glb", 0.0)]) == [list(range(12))]
    assert dataset.meant_by(rows)[:3] == [[0, 3, 6, 9], [1, 4, 7, 10], [2, 5, 8, 11]]
    assert dataset.meant_by(rows)[3:] == [[0, 6], [1, 7], [2, 8], [3, 9], [4, 10], [5, 11]]
    assert dataset.meant_by(many) == [[i % 12] for i in range(14)]
    told = known_features(torch.zeros(2, 3, 64, 64), variety=torch.tensor([1, 13])).split(GROUPS, dim=1)[3]
    assert told.tolist() == [[1, 0, 1] + [0] * 10] * 2  # counted round and round


def test_captions_name_the_side_that_the_prompt_table_would_name():
    poses = random_cameras(500, generator()).pose
    cameras = orbit(*(torch.zeros(1) for _ in range(2)), torch.ones(1), torch.ones(1), 8)
    words = ViewWords("front", "left", "back", "right", "overhead", math.radians(dataset.OVERHEAD_ABOVE_DEG))
    cameras = type(cameras)(poses, torch.ones(500), 8, 8)
    chosen = words.weights(cameras.azimuth, cameras.elevation).argmax(1)
    assert [words.words[i] for i in chosen] == [dataset.side(pose[:3, 3]) for pose in poses]


def test_held_out_pairs_are_a_seventh_and_never_in_a_caption():
    table = nouns()
    pairs = [(colour, noun) for colour in world.COLOURS for noun in names(table)]
    assert 0.12 < sum(dataset.held_out(*pair) for pair in pairs) / len(pairs) < 0.18
    held = {
        dataset.described(row, colour, with_adjective)
        for row, colour, with_adjective in product(table, world.COLOURS, (False, True))
        if dataset.held_out(colour, row.noun)
    }
    pictures, draw = dataset.Pictures(views_of_noise(len(learned(table))), table), generator()
    captions = [caption for _ in range(20) for caption in pictures.batch(64, draw).captions]
    subjects = {caption.split(", ")[0] for caption in captions}
    assert any(f"{c} " in subject for subject in subjects for c in world.COLOURS)
    assert not [subject for subject in subjects for name in held if f" {subject}".endswith(f" {name}")]
    words = {word.strip(",") for caption in captions for word in caption.split()}
    assert words <= set(dataset.vocabulary(nouns()))


def test_an_adjective_is_in_half_of_the_captions_and_never_contradicts_a_colour():
    crown = Noun("crown", "crown.glb", 0.0, adjective="golden")
    chair = Noun("chair", "chair.glb", 0.0, adjective="wooden")
    assert dataset.described(crown, None, with_adjective=True) == "golden crown"
    assert dataset.described(crown, "blue", with_adjective=True) == "blue crown"
    assert dataset.described(chair, "blue", with_adjective=True) == "blue wooden chair"
    assert dataset.described(chair, None, with_adjective=False) == "chair"
    index = [row.adjective for row in learned(nouns())].index("cartoon")
    noise = views_of_noise(4)
    pictures, draw = dataset.Pictures(replace(noise, mesh=torch.full_like(noise.mesh, index)), nouns()), generator()
    said = ["cartoon" in caption for _ in range(10) for caption in pictures.batch(40, draw).captions]
    assert sum(said) / len(said) == pytest.approx(0.5, abs=0.08)  # three standard deviations of 400 draws


def test_an_article_fits_its_noun():
    assert dataset.with_article("a photo of a {}", "orange pig") == "a photo of an orange pig"
    assert dataset.with_article("a {}", "pig") == "a pig"


def test_turning_camera_and_light_together_changes_only_the_azimuth():
    """What is said about the light is said in the camera's axes."""
    like, angle = torch.zeros(1, 3, 64, 64), torch.tensor([0.4])
    lights = []
    for azimuth in (angle, angle + 1.1):
        pose = orbit(azimuth, torch.tensor([0.5]), torch.tensor([3.0]), torch.tensor([0.7]), 64).pose
        position = pose[:, :3, :3] @ torch.tensor([1.0, 2.0, 3.0])
        light = Light(position, torch.tensor([0.2]), torch.tensor([0.8]), torch.tensor([False]))
        lights.append(known_features(like, pose, torch.rand(1, 3), light).split(GROUPS, dim=1)[2])
    assert torch.allclose(lights[0], lights[1], atol=1e-5)
    assert known_features(like).abs().sum() == 0


def test_learning_rate_warms_up_stays_and_falls_to_zero():
    options = TrainOptions(steps=1000, warm_up=100, cool_down=0.2, learning_rate=1.0, sketch_first=300)
    rates = [learning_rate(step, options) for step in (49, 400, 500, 800, 900, 1000)]
    assert rates == pytest.approx([1, 1, 1, 1, 0.5, 0])


def test_training_resumed_is_training_uninterrupted(tmp_path):
    options, pictures = (
        TrainOptions(steps=10, batch=2, sketch_batch=16, sketch_first=1),
        dataset.Pictures(views_of_noise(58), nouns()),
    )
    whole = new_training(nouns(), options)
    losses = [advance(whole, pictures, options) for _ in range(4)]
    first = new_training(nouns(), options)
    assert [advance(first, pictures, options) for _ in range(2)] == losses[:2]
    first.state.save(tmp_path)
    second = new_training(nouns(), options)
    second.state.restore(tmp_path)
    assert [advance(second, pictures, options) for _ in range(2)] == losses[2:]
    tensors = second.state.tensors()
    assert all(torch.equal(tensor, tensors[name]) for name, tensor in whole.state.tensors().items())


@pytest.fixture(scope="module")
def assets(tmp_path_factory):
    """Two meshes on disk; a third of the table below is not there."""
    folder = tmp_path_factory.mktemp("assets")
    (folder / "meshes").mkdir()
    for name, shape in (("ball", trimesh.creation.icosphere(subdivisions=2)), ("box", trimesh.creation.box())):
        shape.export(folder / "meshes" / f"{name}.glb")
    return Assets(folder, TABLE)


TABLE = [
    Noun("apple", "ball.glb", 0.0),
    Noun("apple", "kept.glb", 0.0, kept_from="prior"),
    Noun("chest", "box.glb", 90.0),
]
MANIFEST = """noun,file,yaw_deg,kept_from
apple,ball.glb,,
chest,box.glb,90,
apple,kept.glb,0,prior
"""


def in_this_process(mp_context):
    """In place of processes, each of which would import torch for seconds."""
    return ThreadPoolExecutor(1)


def test_a_rendering_goes_on_where_it_stopped_and_never_opens_what_is_kept_from_the_prior(
    assets, tmp_path, monkeypatch
):
    build(assets, tmp_path / "whole", 3, 7, str)
    monkeypatch.setattr(views, "ProcessPoolExecutor", in_this_process)

    def leave(line: str):
        raise KeyboardInterrupt(line)

    with pytest.raises(KeyboardInterrupt, match="ball"):
        build(assets, tmp_path / "views", 3, 7, leave)
    assert not (tmp_path / "views").exists()
    rendered: list[str] = []
    build(assets, tmp_path / "views", 3, 7, rendered.append)
    assert rendered == ["rendered box.glb (2/2)"]
    whole, again = (open_views(tmp_path / name, TABLE) for name in ("whole", "views"))
    assert whole.mesh.tolist() == [0, 0, 0, 1, 1, 1]
    assert all(torch.equal(value, getattr(again, name)) for name, value in vars(whole).items())
    with pytest.raises(UserError, match="another table of nouns"):
        open_views(tmp_path / "views", TABLE[2:])


def test_views_are_shared_evenly_by_the_meshes_of_a_noun_unless_these_are_too_many():
    table = learned(nouns())
    counts = shares(table, 100, 30)
    for noun in names(table):
        own = [count for row, count in zip(table, counts, strict=True) if row.noun == noun]
        assert max(own) - min(own) <= 1
        assert sum(own) == 100 if len(own) <= 3 else set(own) == {30}


def test_the_table_is_clean_and_keeps_meshes_by_its_rule():
    table = nouns()
    assert len(names(table)) >= 200
    assert not set(names(table)) & {*world.COLOURS, *dataset.VIEW_WORDS.values()}
    assert len({row.file for row in table}) == len(table)
    assert {row.yaw_deg for row in table} <= {-90.0, 0.0, 90.0, 180.0}
    for noun in names(table):
        rows = [row for row in table if row.noun == noun]
        kept = {row.file: row.kept_from for row in rows if row.kept_from}
        assert kept == holdout_rule([row.file for row in rows])
    adjectives = Counter(row.adjective for row in table if row.adjective)
    assert min(adjectives.values()) >= 5
    assert set(dataset.COLOURED) <= set(adjectives)
    known = set(dataset.vocabulary(nouns()))
    assert all({*row.noun.split(), *row.adjective.split()} <= known for row in table)


def test_prior_train_goes_from_an_empty_folder_to_a_prior_that_opens_and_can_be_stopped(
    assets, tmp_path, monkeypatch, capsys
):
    """The whole command on two meshes; Ctrl-C after the third step, then the same command again."""
    (tmp_path / "manifest.csv").write_text(MANIFEST)
    monkeypatch.setattr(runtime, "configure_torch", lambda *_, **__: None)  # it would change torch for all other tests
    monkeypatch.setattr(train, "TrainOptions", partial(TrainOptions, sheet_every=4))
    monkeypatch.setattr(views, "ProcessPoolExecutor", in_this_process)
    real, steps = train.advance, []

    def advance_and_interrupt(*args):
        steps.append(real(*args))
        if len(steps) == 3:
            signal.raise_signal(signal.SIGINT)
        return steps[-1]

    monkeypatch.setattr(train, "advance", advance_and_interrupt)
    work, out = tmp_path / "work", tmp_path / "prior"
    command = ["prior", "--assets", str(assets.folder), "--work", str(work), "--out", str(out)]
    command += ["--steps", "5", "--sketch-first", "2", "--batch", "2", "--views", "3", "--threads", "1"]
    command += ["--manifest", str(tmp_path / "manifest.csv")]
    with pytest.raises(UserError, match="--licence"):
        cli.run(command)
    command += ["--licence", "Of nobody."]
    assert cli.run(command) == cli.INTERRUPTED
    assert "stopped after step 3" in capsys.readouterr().out
    assert not out.exists()
    assert cli.run(command) == 0
    assert len(steps) == 5
    assert "going on at step 3" in capsys.readouterr().out
    assert (work / "samples-000004.png").exists()
    prior = open_prior(str(out))
    assert {"apple", "chest"} <= prior.vocabulary
    assert "hamburger" not in prior.vocabulary
    assert prior.card.name == "toybox-3"
    assert json.loads((out / "card.json").read_text())["licence"] == "Of nobody."


def test_missing_meshes_are_said_before_anything_is_rendered(tmp_path):
    with pytest.raises(UserError, match="--assets"):
        build(Assets(tmp_path, nouns()), tmp_path / "views", 2, 0, print)


def test_the_written_folder_opens_and_predicts_what_was_trained(tmp_path):
    parts = new_parts(nouns(), 3)
    torch.nn.init.normal_(parts.unet.head[-1].weight, std=0.02, generator=generator())
    pose, background = random_cameras(2, generator()).pose, torch.rand(2, 3, generator=generator())
    light = dataset.random_lights(pose, generator())
    noisy, t = torch.randn(2, 3, 64, 64, generator=generator()), torch.tensor([100, 700])
    captions, variety = ["a red chair, front view", "the fire truck"], torch.tensor([2, 7])
    with torch.no_grad():
        clean = parts.unet(
            noisy, t, parts.embed(captions), pose=pose, background=background, light=light, variety=variety
        )
    write(parts, tmp_path, make_card(nouns(), 1, 2, 3.0))
    prior = open_prior(str(tmp_path))
    eps = prior.predict_noise(noisy, t, prior.embed(captions), ViewCondition(pose, background, light, variety))
    assert torch.allclose(prior.schedule.x0_from_eps(eps, noisy, t), clean, atol=0.02)  # half precision on disk
    assert prior.conditions == {"pose", "background", "light", "variety"}
    assert {"hamburger", "red", "the"} <= prior.vocabulary


def test_ddim_carries_noise_to_the_gaussian_it_stands_for():
    """For data N(mean, s^2) the probability flow takes z to mean + s z, whatever the guidance of equal captions."""
    mean = torch.full((3, 4, 4), 0.1)
    prior = GaussianPrior({"": mean}, 0.05, cosine_schedule(dtype=torch.float32), image_size=4)
    given = caption_conditioning(prior, ["a"] * 2, ViewCondition())
    start = torch.randn((2, 3, 4, 4), generator=generator(5))
    end = ddim(prior, given, 200, 1.0, generator(5))
    assert torch.allclose(end, mean + 0.05 * start, atol=0.02)


def test_the_network_runs_in_the_precision_it_is_given():
    """bfloat16 as on a GPU: conditions come in float32, the picture goes out close to the exact one."""
    unet = new_parts(nouns(), 0).unet
    torch.nn.init.normal_(unet.head[-1].weight, std=0.02, generator=generator())
    noisy, text = torch.randn(1, 3, 64, 64, generator=generator()), torch.randn(1, 5, 128, generator=generator())
    pose = random_cameras(1, generator()).pose
    light, t = dataset.random_lights(pose, generator()), torch.tensor([300])
    with torch.no_grad():
        exact = unet(noisy, t, text, pose=pose, light=light)
        coarse = unet.bfloat16()(noisy.bfloat16(), t, text.bfloat16(), pose=pose, light=light)
    assert coarse.dtype == torch.bfloat16
    assert (coarse.float() - exact).norm() < 0.05 * exact.norm()


def test_what_is_told_counts_pictures_not_steps():
    options = TrainOptions(batch=16, sketch_batch=256, sketch_first=100)
    assert pictures_seen(100, options) == 100 * 256
    assert pictures_seen(110, options) == 110 * 256 + 10 * 16


def test_the_network_knows_the_noise_schedule_of_its_scheduler():
    timestep = torch.arange(STEPS)
    assert torch.allclose(signal_share(timestep).flatten(), new_parts(nouns(), 0).scheduler.alphas_cumprod, atol=1e-5)


def test_an_untrained_denoiser_is_the_best_guess_that_a_pixel_can_make_from_its_sketch():
    """Where sketch and picture differ as the sketch says, the posterior mean of a Gaussian: slope and error."""
    unet, draw = new_parts(nouns(), 0).unet, generator()
    timestep, (text, known) = torch.full((64,), 300), (torch.zeros(64, 1, 128), torch.zeros(64, sum(GROUPS)))
    unet.sketch.look[-1].bias.data[-2:] = -4
    unet.sketch.draw.bias.data[-(SKETCH**2) :] = torch.linspace(-4, 0, SKETCH**2)
    with torch.no_grad():
        sketch = torch.cat(unet.sketch(pooled(text), known), dim=1)
        drawn, spread = F.interpolate(sketch, (64, 64), mode="bilinear").split((3, 1), dim=1)
        clean = drawn + spread * torch.randn(drawn.shape, generator=draw)
        share = signal_share(timestep)
        noisy = share.sqrt() * clean + (1 - share).sqrt() * torch.randn(drawn.shape, generator=draw)
        guess = unet.denoise(noisy, timestep, text, known)
    known_part = noisy - share.sqrt() * drawn
    left = (1 - share) / (share * spread.square() + 1 - share) * spread.square()  # the posterior's variance
    for some in (spread < spread.median(), spread > spread.median()):
        some = some.expand_as(drawn)
        told, wide = spread.expand_as(drawn)[some].square(), share.expand_as(drawn)[some]
        slope = (wide.sqrt() * told).mean() / (wide * told + 1 - wide).mean()  # a regression of clean on noisy
        found = (known_part * (guess - drawn))[some].mean() / known_part[some].square().mean()
        assert found.item() == pytest.approx(slope.item(), rel=0.01)
        error = (guess - clean)[some].square().mean().item()
        assert error == pytest.approx(left.expand_as(drawn)[some].mean().item(), rel=0.01)


def test_spoilt_pictures_differ_from_theirs_but_keep_a_plain_background():
    batch = dataset.Pictures(views_of_noise(58), nouns()).batch(100, generator())
    behind = (batch.background * 2 - 1)[:, :, None, None]
    empty = replace(batch, image=behind.expand_as(batch.image).contiguous())
    assert torch.allclose(dataset.degraded(empty, generator()), empty.image, atol=1e-6)
    half_way = replace(batch, image=empty.image + 0.1)  # one colour: nothing to blur
    gain = (dataset.degraded(half_way, generator()) - empty.image) / 0.1
    assert gain.amin() < 0
    assert gain.amax() > 1.1
    assert gain.mean().item() == pytest.approx(0.5, abs=0.1)
    assert gain[:, :, 1:].std((2, 3)).max() < 1e-5
    detail = (batch.image - behind).std((2, 3))
    assert ((dataset.degraded(batch, generator()) - behind).std((2, 3)) < detail).float().mean() > 0.8


def test_the_denoiser_learns_from_as_many_spoilt_pictures_as_asked_for(monkeypatch):
    pictures, shown = dataset.Pictures(views_of_noise(58), nouns()), []
    training = new_training(nouns(), TrainOptions(batch=64))
    denoise = training.parts.unet.denoise
    monkeypatch.setattr(dataset, "degraded", lambda batch, generator: torch.full_like(batch.image, 1e4))
    monkeypatch.setattr(
        training.parts.unet, "denoise", lambda noisy, *told: shown.append(noisy) or denoise(noisy, *told)
    )
    for share in (0.0, 0.25, 1.0):
        train.denoising_loss(training, pictures, TrainOptions(batch=64, degraded=share))
    counts = [(noisy.abs().amax((1, 2, 3)) > 10).sum().item() for noisy in shown]
    assert counts == [0, pytest.approx(16, abs=8), 64]


def test_a_manifest_needs_two_columns_and_its_rows_are_sorted_by_noun(tmp_path):
    file = tmp_path / "manifest.csv"
    file.write_text(MANIFEST)
    assert nouns(file) == TABLE


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "no columns"),
        ("noun,name\nchair,chair.glb\n", "no columns"),
        ("noun,file\n", "no mesh"),
        ("noun,file\nchair,\n", "line 2: noun or file is empty"),
        ("noun,file\nChair!,c.glb\n", "line 2: .*lower-case"),
        ("noun,file,yaw_deg\nchair,c.glb,0\nsofa,s.glb,nan\n", "line 3: yaw_deg"),
        ("noun,file,front\nchair,c.glb,maybe\n", "line 2: front"),
        ("noun,file,kept_from\nchair,c.glb,me\n", "line 2: kept_from"),
        ("noun,file,kept_from\nchair,c.glb,prior\n", "no mesh"),
    ],
)
def test_a_manifest_that_is_none_is_refused_by_line(tmp_path, content, message):
    (tmp_path / "manifest.csv").write_text(content)
    with pytest.raises(UserError, match=message):
        nouns(tmp_path / "manifest.csv")
