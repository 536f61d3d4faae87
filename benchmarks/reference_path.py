"""What a plain, dense step costs beside ours: one process, one machine, one prior.

    python benchmarks/reference_path.py [--reference-steps 2] [--steps 60] [--threads 2]

The reference is DreamFusion's step the way one writes it first, and as open ports of the paper have it: one view, every
ray cut into stratified samples, the field asked at every one of them with gradients, normals from six more densities
each, Lambert's light, a plain random background, SDS and Adam. No memory of empty space, nothing left out, nothing
packed. Its field is a hashed grid or, dearer, the paper's MLP, both in eager torch; or our own fast field, which tells
what is owed to the field and what to the renderer. Prior, cameras, lights, conditions and distillation are
those of the fast preset; learning rates too.

Where a whole picture's graph would not fit in memory, the rays go through in chunks that are computed once more in the
backward pass (activation checkpointing); the first pass over them is then not counted: the ratio is what it would be
with enough memory. Two more things are in the reference's favour: it has no regularisers, and its sums may be in any
order (ours are repeatable on CPUs).

Prints JSON: milliseconds of a lit step, of one without a lamp, and of the mix of them that the preset draws, for the
reference and for ours in the middle of a run, and the ratios.
"""

import argparse
import statistics
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Generator, Tensor
from torch.utils.checkpoint import checkpoint

from dreamfusion import build
from dreamfusion.build import device_of
from dreamfusion.config import Config, GridFieldConfig, MlpFieldConfig
from dreamfusion.config.presets import preset
from dreamfusion.diffusion.distill import surrogate
from dreamfusion.diffusion.priors import Prior, PriorOptions, open_prior
from dreamfusion.geometry import intersect_ball
from dreamfusion.lights import Light
from dreamfusion.loop import prompt_table
from dreamfusion.nerf.fields import Field, Gaussians
from dreamfusion.nerf.fields.grid import GridField
from dreamfusion.nerf.fields.mip_mlp import MipMlp
from dreamfusion.nerf.rays import Rays, cast, stratified
from dreamfusion.runtime import configure_torch
from hash_field import LAW, Encoded, hash_field
from machine import as_json, machine, now, peak_memory
from measure import all_lit, middle_of_run, none_lit
from step import measured as measured_step

SomeField = Encoded | MipMlp | GridField
REACH = 1e-2
"""Half the distance between the two densities of a finite difference, in world units"""
PROGRESS = 0.5
"""Of the run, where light and noise depend on it"""
CHUNKS = {"hash": 128, "mlp": 128, "grid": 4096}
"""Rays that go through a CPU at a time: few enough for its caches and memory. GPUs take the whole picture at once."""


def main() -> None:
    arguments = _parser().parse_args()
    configure_torch(arguments.threads, repeatable=device_of(arguments.device).type == "cpu")
    device = device_of(arguments.device)
    config = replace(preset("fast"), prompt=arguments.prompt, size=arguments.size)
    prior = open_prior(config.prior, PriorOptions(device=device))
    run = middle_of_run(config, device, prior, arguments.warm_steps)
    ours = _with_mix(measured_step(run, prior, arguments.steps), config)
    result: dict[str, object] = {"ours": ours, "ours_memory": peak_memory(device)}
    for name in arguments.fields:
        chunk = arguments.chunk or (CHUNKS[name] if device.type == "cpu" else config.size**2)
        job = Job(name, config, prior, device, arguments.samples, chunk)
        plain = _with_mix(measured(job, arguments.reference_steps), config)
        result[name] = plain | {"ratio_to_ours": {kind: _ratio(plain, ours, kind) for kind in ("lit", "unlit", "mix")}}
    print(as_json(result | {"memory_with_reference": peak_memory(device), "machine": machine(device)}))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fields", nargs="+", choices=list(CHUNKS), default=list(CHUNKS), help="of the reference")
    parser.add_argument("--reference-steps", type=int, default=2, help="measured, of each kind; one more goes before")
    parser.add_argument("--samples", type=int, default=64, help="of the reference, per ray")
    parser.add_argument("--chunk", type=int, help=f"rays of the reference at a time (on CPUs {CHUNKS}, else all)")
    parser.add_argument("--steps", type=int, default=60, help="measured ones of ours")
    parser.add_argument("--warm-steps", type=int, default=250, help="of ours, before that")
    parser.add_argument("--prompt", default="a hamburger")
    parser.add_argument("--size", type=int, default=64, help="of the pictures, in pixels")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    return parser


@dataclass(frozen=True)
class Job:
    """What the reference is asked to do."""

    field: str
    """hash, mlp or grid"""
    config: Config
    prior: Prior
    device: torch.device
    samples: int
    chunk: int


@dataclass(frozen=True)
class PlainStep:
    """Seconds of one step of the reference."""

    whole: float
    first_pass: float
    """of the whole: what is computed a second time in the backward pass, for want of memory"""
    prior: float


def measured(job: Job, count: int) -> dict[str, object]:
    """Milliseconds of the reference's steps, by kind of light; a dense step costs the same at any time of a run."""
    result: dict[str, object] = {"samples": job.samples, "rays_at_a_time": job.chunk}
    for kind, told in {"lit": all_lit(job.config), "unlit": none_lit(job.config)}.items():
        with _any_order_of_sums():
            reference = Reference(replace(job, config=told))
            steps = [reference.step() for _ in range(count + 1)][1:]
        result[f"{kind}_step_ms"] = _median_ms(step.whole - step.first_pass for step in steps)
        result[f"{kind}_first_pass_ms"] = _median_ms(step.first_pass for step in steps)
        result[f"{kind}_prior_ms"] = _median_ms(step.prior for step in steps)
    return result


class Reference:
    """The plain step and its state."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.distillation = build.distillation(job.config.distill)
        self.recipe, self.prompts = build.recipe(job.config), prompt_table(job.config, job.prior)
        self.generator = Generator().manual_seed(job.config.seed)
        self.field = _field(job.field).to(job.device)
        rates = {"grid": job.config.optimise.grid, "network": job.config.optimise.network}
        groups = [{"params": group, "lr": rates[name]} for name, group in self.field.parameter_groups().items()]
        self.optimiser = torch.optim.Adam(groups)

    def step(self) -> PlainStep:
        """One view, one pull of the prior at it, one update."""
        begin = now(self.job.device)
        cameras = self.recipe.cameras(1, self.job.config.size, self.generator).to(self.job.device)
        light = self.recipe.lights(cameras, PROGRESS, self.generator)
        plain = torch.rand(1, 3, generator=self.generator).to(self.job.device)
        colour, first_pass = self._colours(cast(cameras), light, plain)
        x = self.job.prior.encode(colour.view(1, cameras.height, cameras.width, 3))
        before = now(self.job.device)
        given = self.prompts(cameras, light, plain)
        gradient = self.distillation(x, given, self.job.prior, PROGRESS, self.generator)
        after = now(self.job.device)
        self.optimiser.zero_grad()
        surrogate(x, gradient).backward()
        self.optimiser.step()
        return PlainStep(now(self.job.device) - begin, first_pass, after - before)

    def _colours(self, rays: Rays, light: Light, plain: Tensor) -> tuple[Tensor, float]:
        """Colours "n 3" of all rays, and the seconds of the pass if it will be repeated in the backward pass."""
        since, size = now(self.job.device), self.job.chunk
        near, far = intersect_ball(rays.origin, rays.direction, self.job.config.scene.radius)
        t = stratified(near, far, self.job.samples, self.generator)
        again = len(rays) > size
        shade = (
            partial(checkpoint, self._shaded, use_reentrant=False, preserve_rng_state=False) if again else self._shaded
        )
        pieces = [slice(start, start + size) for start in range(0, len(rays), size)]
        colour = torch.cat([shade(rays[piece], t[piece], light, plain) for piece in pieces])
        return colour, now(self.job.device) - since if again else 0.0

    def _shaded(self, rays: Rays, t: Tensor, light: Light, plain: Tensor) -> Tensor:
        """Colours of rays: all samples, all with gradients."""
        at = samples_along(rays, t)
        matter = self.field.evaluate(at)
        albedo = torch.ones_like(matter.albedo) if bool(light.textureless) else matter.albedo
        brightness = light.ambient.expand(len(at.mean))
        if bool(light.diffuse > 0):
            to_light = light.position - at.mean
            to_light = to_light / to_light.norm(dim=-1, keepdim=True)
            facing = (finite_difference_normals(self.field, at) * to_light).sum(-1).clamp(min=0)
            brightness = brightness + light.diffuse * facing
        weights = dense_weights(matter.density.view(len(t), -1), t)
        colour = (albedo * brightness[:, None]).view(len(t), -1, 3)
        return (weights[..., None] * colour).sum(1) + (1 - weights.sum(1, keepdim=True)) * plain


def samples_along(rays: Rays, t: Tensor) -> Gaussians:
    """The middles of all bins, "n*s" of them; as wide as a box of the bin's length and the ray's width."""
    middle, length = 0.5 * (t[:, 1:] + t[:, :-1]), t.diff(dim=-1)
    mean = rays.origin[:, None] + middle[..., None] * rays.direction[:, None]
    along, across = length.square() / 12, (rays.radius[:, None] * middle).square() / 4
    axis = rays.direction[:, None].square()
    var = along[..., None] * axis + across[..., None] * (1 - axis)
    return Gaussians(mean=mean.flatten(0, 1), var=var.flatten(0, 1))


def finite_difference_normals(field: Field, at: Gaussians) -> Tensor:
    """Unit normals "m 3" from two more densities along each axis, with gradients."""
    slopes = []
    for axis in torch.eye(3, device=at.mean.device):
        ahead, behind = (field.density(Gaussians(mean=at.mean + side * axis, var=at.var)) for side in (REACH, -REACH))
        slopes.append((ahead - behind) / (2 * REACH))
    slope = torch.stack(slopes, dim=-1)
    return -slope / (slope.square().sum(-1, keepdim=True) + 1e-10).sqrt()


def dense_weights(density: Tensor, t: Tensor) -> Tensor:
    """Weights "n s" of all samples, by the running product of what each lets through."""
    through = torch.exp(-density * t.diff(dim=-1))
    before = torch.cat([torch.ones_like(through[:, :1]), through[:, :-1]], dim=-1).cumprod(-1)
    return before * (1 - through)


def _field(name: str) -> SomeField:
    torch.manual_seed(0)
    makers: dict[str, Callable[[], SomeField]] = {
        "hash": hash_field,
        "grid": lambda: GridField(GridFieldConfig(), LAW, 1.0, Generator().manual_seed(0)),
        "mlp": lambda: MipMlp(MlpFieldConfig(), LAW, Generator().manual_seed(0)),
    }
    return makers[name]()


@contextmanager
def _any_order_of_sums() -> Iterator[None]:
    """Without torch's repeatable forms, which may be slower and which ports do not ask for."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(False)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


def _with_mix(times: dict[str, object], config: Config) -> dict[str, object]:
    """Adds the mean step, with lamps as often as the preset lights them once its first, unlit part is over."""
    lit, unlit = times["lit_step_ms"], times["unlit_step_ms"]
    if not isinstance(lit, float) or not isinstance(unlit, float):
        return times | {"mix_step_ms": None}  # too few steps to see both kinds
    return times | {"mix_step_ms": round(config.light.shaded * lit + (1 - config.light.shaded) * unlit, 2)}


def _ratio(plain: dict[str, object], ours: dict[str, object], kind: str) -> float | None:
    dividend, divisor = plain[f"{kind}_step_ms"], ours[f"{kind}_step_ms"]
    return round(dividend / divisor, 2) if isinstance(dividend, float) and isinstance(divisor, float) else None


def _median_ms(seconds: Iterable[float]) -> float:
    return round(1e3 * statistics.median(seconds), 1)


if __name__ == "__main__":
    main()
