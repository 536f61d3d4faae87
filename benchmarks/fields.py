"""Which field is fast? Times candidates for the fast field; prints one JSON object.

    python benchmarks/fields.py [--points 32768] [--threads 2] [--runs 5]    least milliseconds of each query
    python benchmarks/fields.py --fit grid --seconds 15                      how well one candidate learns in that time

"grid" and "mip_mlp" are the package's fields; the others are an encoder with one small network for density and albedo.
"""

import argparse
import math
import time

import torch
import torch.nn.functional as F
from torch import nn

from dreamfusion.build import device_of
from dreamfusion.cameras import Cameras, orbit
from dreamfusion.config import GridFieldConfig, MlpFieldConfig, OccupancyConfig
from dreamfusion.lights import albedo_only
from dreamfusion.nerf.background import RandomSolid
from dreamfusion.nerf.fields import FieldOutput, Gaussians, surface
from dreamfusion.nerf.fields.grid import GridField
from dreamfusion.nerf.fields.mip_mlp import MipMlp
from dreamfusion.nerf.occupancy import Occupancy
from dreamfusion.nerf.render import RenderOptions, render, render_views
from dreamfusion.nerf.scene import Scene
from hash_field import LAW, Encoded, hash_field
from machine import as_json, machine


class DenseGrids(nn.Module):
    """Features of several dense grids, side by side."""

    def __init__(self, vertices, features):
        super().__init__()
        self.grids = nn.ParameterList(0.1 * torch.randn(1, features, v, v, v) for v in vertices)

    def forward(self, x):
        sampled = [F.grid_sample(g, x[None, None, None], align_corners=True)[0, :, 0, 0].T for g in self.grids]
        return torch.cat(sampled, dim=-1)


class TriPlane(nn.Module):
    """Features of the three coordinate planes, added."""

    def __init__(self, vertices, features):
        super().__init__()
        self.planes = nn.Parameter(0.1 * torch.randn(3, features, vertices, vertices))

    def forward(self, x):
        pairs = torch.stack([x[:, [0, 1]], x[:, [1, 2]], x[:, [2, 0]]])[:, None]
        return F.grid_sample(self.planes, pairs, align_corners=True)[:, :, 0].sum(0).T


def candidates():
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    return {
        "grid": GridField(GridFieldConfig(), LAW, 1.0, generator),
        "dense_levels": Encoded(DenseGrids((17, 33, 65), 4), 12),
        "dense_single": Encoded(DenseGrids((49,), 8), 8),
        "tri_plane": Encoded(TriPlane(128, 16), 16),
        "hash_grid": hash_field(),
        "mip_mlp": MipMlp(MlpFieldConfig(), LAW, generator),
    }


def least_ms(task, runs):
    times = []
    for _ in range(runs + 1):
        start = time.perf_counter()
        task()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return round(1e3 * min(times[1:]), 2)


def query_times(field, at, runs):
    def trained(query):
        def task():
            field.zero_grad()
            matter = query()
            loss = matter.density.sum() + matter.albedo.sum()
            (loss if matter.normal is None else loss + matter.normal.sum()).backward()

        return task

    def density():
        with torch.no_grad():
            field.density(at)

    return {
        "density": least_ms(density, runs),
        "matter_and_backward": least_ms(trained(lambda: field.evaluate(at)), runs),
        "normals_and_backward": least_ms(trained(lambda: surface(field, at, create_graph=True)), runs),
        "parameters": sum(p.numel() for p in field.parameters()),
    }


class Target(nn.Module):
    """Something to learn: a banded body on four thin legs, one ear missing."""

    uses_covariance = False

    def density(self, at):
        x, y, z = at.mean.unbind(-1)
        body = (x / 0.45) ** 2 + ((y - 0.1) / 0.35) ** 2 + (z / 0.65) ** 2 < 1
        legs = ((x.abs() - 0.25) ** 2 + (z.abs() - 0.4) ** 2 < 0.07**2) & (y > -0.7) & (y < 0)
        ear = (x - 0.2) ** 2 + (y - 0.5) ** 2 + (z - 0.4) ** 2 < 0.12**2
        return 100.0 * (body | legs | ear)

    def evaluate(self, at):
        x, y, z = at.mean.unbind(-1)
        bands = (torch.sin(z * 2 * math.pi / 0.3) > 0).float()
        albedo = torch.stack([0.2 + 0.7 * bands, 0.5 + 0.4 * torch.sin(4 * x), 0.8 - 0.7 * (y > 0.1)], dim=-1)
        return FieldOutput(density=self.density(at), albedo=albedo.clamp(0, 1))

    def parameter_groups(self):
        return {}


def views(count, generator):
    azimuth = 2 * math.pi * torch.rand(count, generator=generator)
    elevation = torch.rand(count, generator=generator) * 1.2 - 0.15
    one = torch.ones(count)
    return orbit(azimuth, elevation, 3 * one, math.radians(40) * one, 64)


def scene_of(field):
    return Scene(field, RandomSolid(), Occupancy(OccupancyConfig(), 1.0), 1.0)


def fit(field, seconds, noise, rate=0.06):
    """Learns the target from one random view a step, its error drowned in noise as SDS's is; held-out PSNR."""
    generator = torch.Generator().manual_seed(0)
    target, scene = scene_of(Target()), scene_of(field)
    target.occupancy.update(target.field, generator)
    exact = RenderOptions(samples=128, weight_threshold=0.0)
    stock, held = views(64, generator), views(12, generator)
    truth = render_views(target, stock, albedo_only(64), exact)
    rates = {"grid": rate, "network": 0.005}
    groups = [{"params": p, "lr": rates[name]} for name, p in field.parameter_groups().items()]
    optimiser = torch.optim.Adam(groups, betas=(0.9, 0.99), eps=1e-15)
    # CPU time, not the clock: other processes do not count.
    begin, step = time.process_time(), 0
    while time.process_time() - begin < seconds:
        if step % 16 == 0:
            scene.occupancy.update(field, generator, parts=1 if step == 0 else 4)
        i = step % 64
        plain = scene.background.draw(1, generator)
        camera = Cameras(stock.pose[i : i + 1], stock.fov_y[i : i + 1], 64, 64)
        shown = render(
            scene, camera, albedo_only(1), RenderOptions(samples=64, weight_threshold=3e-3), generator, plain
        )
        assert plain is not None
        goal = truth.rgb[i : i + 1] + (1 - truth.opacity[i : i + 1, ..., None]) * (plain - 0.5)
        error = shown.rgb.detach() - goal + noise * torch.randn(goal.shape, generator=generator)
        optimiser.zero_grad()
        (shown.rgb * error).sum().backward()
        optimiser.step()
        step += 1
    known, learned = (render_views(s, held, albedo_only(12), exact) for s in (target, scene))
    mse = (known.rgb - learned.rgb).square().mean()
    hollow = (known.opacity - learned.opacity).abs().mean()
    result = {"steps": step, "psnr": round(float(-10 * mse.log10()), 2), "opacity_error": round(float(hollow), 4)}
    return result, learned.rgb


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, default=32768)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--fit", choices=list(candidates()))
    parser.add_argument("--seconds", type=float, default=15.0)
    parser.add_argument("--noise", type=float, default=0.5)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.fit:
        result, _ = fit(candidates()[arguments.fit], arguments.seconds, arguments.noise)
        print(as_json({"machine": machine(torch.device("cpu")), arguments.fit: result}))
        return
    device = device_of("auto")
    mean = (torch.rand(arguments.points, 3, generator=torch.Generator().manual_seed(0)) * 2 - 1).to(device)
    at = Gaussians(mean=mean, var=torch.full_like(mean, 1e-4))
    times = {name: query_times(field.to(device), at, arguments.runs) for name, field in candidates().items()}
    print(as_json({"machine": machine(device), "points": arguments.points, "ms": times}))


if __name__ == "__main__":
    main()
