"""From a configuration to the parts of a run. Degrees become radians here, names become types; nothing is decided."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from dreamfusion import config as c
from dreamfusion import runtime
from dreamfusion.cameras import OrbitSampler
from dreamfusion.config.check import require_device_name
from dreamfusion.config.distill import CsdLaw, IsmLaw, LawConfig, NfsdLaw, SdsLaw, VsdLaw
from dreamfusion.diffusion import distill
from dreamfusion.diffusion.guidance import Guidance
from dreamfusion.diffusion.priors import PriorOptions
from dreamfusion.distributed import launched
from dreamfusion.errors import UserError
from dreamfusion.lights import LightSampler
from dreamfusion.nerf import regularise
from dreamfusion.nerf.background import Background, ColourRange, Environment, EnvironmentOptions, RandomSolid, Solid
from dreamfusion.nerf.fields import Field
from dreamfusion.nerf.fields.density import Activation, DensityActivation, Exp, GaussianBlob, Softplus
from dreamfusion.nerf.fields.grid import GridField, GridFieldOptions
from dreamfusion.nerf.fields.mip_mlp import MipMlp, MipMlpOptions
from dreamfusion.nerf.occupancy import Occupancy, OccupancyOptions
from dreamfusion.nerf.proposals import Proposal, ProposalOptions
from dreamfusion.nerf.regularise import WeightedRegulariser
from dreamfusion.nerf.render import Render, RenderOptions
from dreamfusion.nerf.scene import Scene
from dreamfusion.shampoo import Shampoo, ShampooOptions


@dataclass(frozen=True)
class Recipe:
    """The parts of a step that hold no state."""

    cameras: OrbitSampler
    lights: LightSampler
    train_render: RenderOptions
    """of the steps"""
    eval_render: RenderOptions
    """of pictures for people"""
    regularisers: Mapping[str, WeightedRegulariser]
    """by the name under which they are logged"""


def recipe(config: c.Config) -> Recipe:
    """The samplers, the renderer's options, the regularisers. Raises UserError for values that they refuse."""
    cameras, lights = _cameras(config.camera), _lights(config.light)
    look, show = _look(config.render), RenderOptions(samples=config.output.samples, chunk=config.render.chunk)
    return Recipe(cameras, lights, look, show, regularisers(config))


def regularisers(config: c.Config) -> dict[str, WeightedRegulariser]:
    """The configured ones. Orientation says nothing of pictures without normals, interlevel without proposals."""
    weights = config.regularise
    pixels = config.size**2 if weights.reduction == "sum" else 1

    def orientation(render: Render, scene: Scene) -> Float[Tensor, ""] | None:
        return None if render.along.normal is None else pixels * regularise.orientation(render)

    return {
        "opacity": (weights.opacity, lambda render, scene: pixels * regularise.opacity(render)),
        "entropy": (weights.entropy, lambda render, scene: pixels * regularise.entropy(render)),
        "distortion": (weights.distortion, lambda render, scene: pixels * regularise.distortion(render)),
        "orientation": (weights.orientation, orientation),
        "interlevel": (
            weights.interlevel,
            lambda render, scene: regularise.interlevel(render) if render.along.proposals else None,
        ),
        "smoothness": (weights.smoothness, lambda render, scene: regularise.smoothness(scene.field)),
    }


def scene(
    config: c.SceneConfig, generator: Generator, field: Field | None = None, background: Background | None = None
) -> Scene:
    """A scene on the CPU, its first weights drawn from `generator`; with a field or a background that there is."""
    cells = config.occupancy
    options = OccupancyOptions(cells=cells.cells, threshold=cells.threshold, decay=cells.decay, margin=cells.margin)
    field = _field(config, generator) if field is None else field
    background = _background(config.background, generator) if background is None else background
    proposal = _proposal(config, generator) if config.proposal.rounds else None
    return Scene(field, background, Occupancy(options, config.radius), config.radius, proposal)


def optimiser(config: c.OptimiseConfig, scene: Scene) -> torch.optim.Optimizer:
    """The optimiser, one group per kind of parameter; each group remembers its own learning rate as `base`.

    Raises UserError for a kind of parameters that has no rate, or if there are none.
    """
    rates = {"grid": config.grid, "network": config.network, "background": config.background}
    kinds = scene.parameter_groups()
    if not any(kinds.values()):
        raise UserError("the scene has no parameters: there is nothing to optimise")
    if unknown := kinds.keys() - rates.keys():
        raise UserError(f"parameter_groups must name {' or '.join(rates)}, not {', '.join(sorted(unknown))}")
    groups = [{"params": parameters, "lr": rates[name], "base": rates[name]} for name, parameters in kinds.items()]
    if config.method == "shampoo":
        own = config.shampoo
        return Shampoo(
            groups,
            ShampooOptions(
                betas=config.betas,
                epsilon=config.epsilon,
                exponent=own.exponent,
                block=own.block,
                averaged=own.averaged,
                nesterov=own.nesterov,
                every=own.every,
            ),
        )
    fused = scene.occupancy.density.device.type in ("cpu", "cuda")
    return torch.optim.Adam(groups, betas=config.betas, eps=config.epsilon, fused=fused)


@dataclass(frozen=True)
class Threads:
    """How a run's cores are used."""

    each: int
    """threads that share an operator"""
    side: int
    """evaluations of the prior's network at the same time, each of them in so many threads"""


def threads(config: c.Config, device: torch.device) -> Threads:
    """For `config.threads`, or if that is 0 for all cores, shared evenly with what torchrun started on this machine.

    The grid field and the embedded prior have operators too short to be shared (see `runtime`).
    """
    launch = launched()
    beside = 1 if launch is None else launch.local_size
    count = config.threads or max(1, runtime.available_cores() // beside)
    short = config.prior == "embedded" and isinstance(config.scene.field, c.GridFieldConfig)
    if not short or device.type != "cpu":
        return Threads(count, 1)
    return Threads(1, min(count, 2))


def prior_options(config: c.Config, device: torch.device) -> PriorOptions:
    """How the prior is put into memory."""
    memory = config.memory
    return PriorOptions(
        device=device,
        dtype=None if config.half else torch.float32,
        size=memory.size,
        attention_slicing=memory.attention_slicing,
        vae_slicing=memory.vae_slicing,
        vae_tiling=memory.vae_tiling,
        offload=memory.offload,
        texts=not memory.embeddings,
        side=threads(config, device).side,
    )


def learn(optimiser: torch.optim.Optimizer, law: distill.Law) -> None:
    """Let the optimiser move the parameters of a law that learns, also those that it has got since the last call."""
    if not isinstance(law, distill.LearnedLaw):
        return
    held = {id(parameter) for group in optimiser.param_groups for parameter in group["params"]}
    new = [parameter for parameter in law.parameters() if id(parameter) not in held]
    if new:
        optimiser.add_param_group({"params": new, "lr": law.rate, "base": law.rate})


def distillation(config: c.DistillConfig) -> distill.Distillation:
    """The gradient of a step. Raises UserError for values that it refuses."""
    weightings: dict[str, distill.Weighting] = {
        "sigma2": distill.SigmaSquared(),
        "uniform": distill.Uniform(),
        "alpha-sigma": distill.AlphaSigma(),
    }
    kinds: dict[str, type[distill.TimestepSampler]] = {
        "uniform": distill.UniformTimesteps,
        "dreamtime": distill.DreamTime,
    }
    return distill.Distillation(
        law=_law(config.law),
        guidance=Guidance(config.guidance_scale, config.guidance_rescale or None),
        timesteps=kinds[config.timesteps](config.t_min, config.t_max),
        weighting=weightings[config.weighting],
        noise_samples=config.noise_samples,
        grad_clip=config.grad_clip or None,
    )


def device_of(name: str) -> torch.device:
    """The device that `--device` means; "auto" is CUDA where there is one, else the CPU.

    Under torchrun a GPU without a number is the process's own. Raises UserError if it is not there, if the name
    means none, or as `launched` does.
    """
    require_device_name(name)
    device = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name)
    launch = launched()
    if device == torch.device("cuda") and launch is not None:
        device = torch.device("cuda", launch.local_rank)
    there = {
        "cpu": True,
        "cuda": torch.cuda.is_available() and (device.index or 0) < torch.cuda.device_count(),
        "mps": torch.backends.mps.is_available(),
    }
    if not there[device.type]:
        raise UserError(
            f"--device {name}: {device} is not on this machine: use --device cpu, or see `dreamfusion doctor`"
        )
    return device


def _cameras(config: c.CameraConfig) -> OrbitSampler:
    spread = math.sqrt if config.jitter_is == "variance" else float
    return OrbitSampler(
        elevation=_radians(config.elevation_deg),
        elevation_uniform_in_angle=config.elevation_uniform_in_angle,
        azimuth=_radians(config.azimuth_deg),
        distance=config.distance,
        fov_y=_radians(config.fov_deg),
        position_jitter=config.position_jitter,
        look_at_jitter=spread(config.look_at_jitter),
        up_jitter=spread(config.up_jitter),
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
        checkpoint_rays=config.checkpoint_rays,
    )


def _law(config: LawConfig) -> distill.Law:
    match config:
        case SdsLaw():
            return distill.Sds()
        case CsdLaw():
            return distill.Csd()
        case NfsdLaw(clean_below):
            return distill.Nfsd(clean_below)
        case IsmLaw(inversions, gap, start):
            return distill.Ism(inversions, gap, start)
        case VsdLaw(rank, rate):
            return distill.Vsd(rank, rate)


def _density_law(config: c.SceneConfig) -> DensityActivation:
    activations: dict[str, Activation] = {
        "exp": Exp(config.density_bias, config.exp_clamp),
        "softplus": Softplus(config.density_bias),
    }
    blob = GaussianBlob(config.blob.height, config.blob.width)
    return DensityActivation(activations[config.activation], blob, config.blob.on)


def _field(config: c.SceneConfig, generator: Generator) -> Field:
    law = _density_law(config)
    match config.field:
        case c.GridFieldConfig() as grid:
            sizes = GridFieldOptions(
                radius=config.radius,
                cells=grid.cells,
                detail=grid.detail,
                colour_cells=grid.colour_cells,
                features=grid.features,
                hidden=grid.hidden,
                activation=law.activation,
                blob=law.blob,
            )
            return GridField(sizes, generator)
        case c.MlpFieldConfig(levels, blocks, width, order):
            options = MipMlpOptions(levels=levels, blocks=blocks, width=width, order=order, law=law)
            return MipMlp(options, generator)


def _proposal(config: c.SceneConfig, generator: Generator) -> Proposal:
    own = config.proposal
    options = ProposalOptions(
        rounds=own.rounds,
        levels=own.levels,
        layers=own.layers,
        width=own.width,
        dilation=own.dilation,
        slope=own.slope,
        law=_density_law(config),
    )
    return Proposal(options, generator)


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
