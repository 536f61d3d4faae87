"""From a configuration to the parts of a run. Degrees become radians here, names become types; nothing is decided."""

import math
from dataclasses import dataclass

import torch
from torch import Generator

from dreamfusion import config as c
from dreamfusion.background import Background, ColourRange, Environment, EnvironmentOptions, RandomSolid, Solid
from dreamfusion.cameras import OrbitSampler
from dreamfusion.config_check import require_device_name
from dreamfusion.distill import AlphaSigma, Sds, SigmaSquared, Uniform, Weighting
from dreamfusion.errors import UserError
from dreamfusion.fields import Field
from dreamfusion.fields.density import Activation, Exp, GaussianBlob, Softplus
from dreamfusion.fields.grid import GridField, GridFieldOptions
from dreamfusion.fields.mip_mlp import MipMlp, MipMlpOptions
from dreamfusion.lights import LightSampler
from dreamfusion.occupancy import Occupancy, OccupancyOptions
from dreamfusion.priors import PriorOptions
from dreamfusion.render import RenderOptions
from dreamfusion.scene import Scene


@dataclass(frozen=True)
class Recipe:
    """The parts of a step that hold no state."""

    cameras: OrbitSampler
    lights: LightSampler
    look: RenderOptions
    """of the steps"""
    show: RenderOptions
    """of pictures for people"""
    sds: Sds
    weights: c.RegulariseConfig


def recipe(config: c.Config) -> Recipe:
    """The samplers, the renderer's options and the distillation. Raises UserError for values that they refuse."""
    cameras, lights = _cameras(config.camera), _lights(config.light)
    look, show = _look(config.render), RenderOptions(samples=config.output.samples, chunk=config.render.chunk)
    return Recipe(cameras, lights, look, show, _sds(config.sds), config.regularise)


def scene(config: c.SceneConfig, generator: Generator) -> Scene:
    """A scene on the CPU, its first weights drawn from `generator`."""
    cells = config.occupancy
    options = OccupancyOptions(cells=cells.cells, threshold=cells.threshold, decay=cells.decay, margin=cells.margin)
    field, background = _field(config, generator), _background(config.background, generator)
    return Scene(field, background, Occupancy(options, config.radius), config.radius)


def optimiser(config: c.OptimiseConfig, scene: Scene) -> torch.optim.Adam:
    """Adam with one group per kind of parameter; each group remembers its own learning rate as `base`."""
    rates = {"grid": config.grid, "network": config.network, "background": config.background}
    groups = [
        {"params": parameters, "lr": rates[name], "base": rates[name]}
        for name, parameters in scene.parameter_groups().items()
    ]
    fused = scene.occupancy.density.device.type in ("cpu", "cuda")
    return torch.optim.Adam(groups, betas=config.betas, eps=config.epsilon, fused=fused)


def prior_options(config: c.Config, device: torch.device) -> PriorOptions:
    """How the prior is put into memory."""
    large = config.large
    return PriorOptions(
        device=device,
        dtype=None if config.half else torch.float32,
        size=large.size,
        attention_slicing=large.attention_slicing,
        vae_slicing=large.vae_slicing,
        vae_tiling=large.vae_tiling,
        offload=large.offload,
        texts=not large.embeddings,
    )


def device_of(name: str) -> torch.device:
    """The device that `--device` means; "auto" is CUDA where there is one, else the CPU.

    Raises UserError if it is not there, or if the name means none.
    """
    require_device_name(name)
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(name)
    there = {
        "cpu": True,
        "cuda": torch.cuda.is_available() and (device.index or 0) < torch.cuda.device_count(),
        "mps": torch.backends.mps.is_available(),
    }
    if not there[device.type]:
        raise UserError(f"--device {name} is not on this machine: use --device cpu, or see `dreamfusion doctor`")
    return device


def _cameras(config: c.CameraConfig) -> OrbitSampler:
    return OrbitSampler(
        elevation=_radians(config.elevation_deg),
        elevation_uniform_in_angle=config.elevation_uniform_in_angle,
        azimuth=_radians(config.azimuth_deg),
        distance=config.distance,
        fov_y=_radians(config.fov_deg),
        position_jitter=config.position_jitter,
        look_at_jitter=config.look_at_jitter,
        up_jitter=config.up_jitter,
        stratified=config.stratified,
    )


def _lights(config: c.LightConfig) -> LightSampler:
    return LightSampler(
        albedo_until=config.albedo_until,
        shaded=config.shaded,
        textureless=config.textureless,
        ambient=config.ambient,
        diffuse=config.diffuse,
        distance=config.distance,
        spread=config.spread,
    )


def _look(config: c.RenderConfig) -> RenderOptions:
    return RenderOptions(
        samples=config.samples,
        chunk=config.chunk,
        weight_threshold=config.weight_threshold,
        colour_threshold=config.colour_threshold,
        normals=config.normals,
    )


def _sds(config: c.SdsConfig) -> Sds:
    weightings: dict[str, Weighting] = {"sigma2": SigmaSquared(), "uniform": Uniform(), "alpha-sigma": AlphaSigma()}
    return Sds(
        guidance_scale=config.guidance_scale,
        t_min=config.t_min,
        t_max=config.t_max,
        weighting=weightings[config.weighting],
        draws=config.draws,
        max_norm=config.max_norm or None,
        rescale=config.rescale or None,
    )


def _field(config: c.SceneConfig, generator: Generator) -> Field:
    activations: dict[str, Activation] = {"exp": Exp(config.shift, config.limit), "softplus": Softplus(config.shift)}
    activation, blob = activations[config.activation], GaussianBlob(config.blob.height, config.blob.width)
    match config.field:
        case c.GridField() as grid:
            sizes = GridFieldOptions(
                radius=config.radius,
                cells=grid.cells,
                detail=grid.detail,
                colour_cells=grid.colour_cells,
                features=grid.features,
                hidden=grid.hidden,
                activation=activation,
                blob=blob,
            )
            return GridField(sizes, generator)
        case c.MlpField(levels, blocks, width):
            options = MipMlpOptions(levels=levels, blocks=blocks, width=width, activation=activation, blob=blob)
            return MipMlp(options, generator)


def _background(config: c.BackgroundConfig, generator: Generator) -> Background:
    match config:
        case c.SolidBackground(colour):
            return Solid(colour)
        case c.RandomBackground(low, high, grey):
            return RandomSolid(ColourRange(low, high, grey))
        case c.LearnedBackground(levels, layers, width):
            return Environment(EnvironmentOptions(levels, layers, width), generator)


def _radians(span: c.Span) -> c.Span:
    return math.radians(span[0]), math.radians(span[1])
