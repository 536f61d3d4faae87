"""From a configuration to the parts of a run: names become types, and the parts take their records as they are."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from dreamfusion import config as c
from dreamfusion import runtime
from dreamfusion.cameras import OrbitSampler
from dreamfusion.config.check import require_device_name
from dreamfusion.config.distill import CsdLaw, DsdLaw, EsdLaw, IsmLaw, LawConfig, NfsdLaw, SdsLaw, VsdLaw
from dreamfusion.diffusion import distill
from dreamfusion.diffusion.guidance import Guidance
from dreamfusion.diffusion.priors import PriorOptions
from dreamfusion.distributed import launched
from dreamfusion.errors import UserError
from dreamfusion.lights import LightSampler
from dreamfusion.nerf import regularise
from dreamfusion.nerf.background import Background, Environment, RandomSolid, Solid
from dreamfusion.nerf.fields import Field
from dreamfusion.nerf.fields.density import Activation, DensityActivation, Exp, Softplus
from dreamfusion.nerf.fields.fourier_mlp import FourierMlp
from dreamfusion.nerf.fields.grid import GridField
from dreamfusion.nerf.fields.joint import JointField
from dreamfusion.nerf.fields.mip_mlp import MipMlp
from dreamfusion.nerf.occupancy import Occupancy
from dreamfusion.nerf.proposals import Proposal
from dreamfusion.nerf.regularise import WeightedRegulariser
from dreamfusion.nerf.render import Render, RenderOptions
from dreamfusion.nerf.scene import Scene
from dreamfusion.objectives import Objective
from dreamfusion.objectives.clip_mesh import ClipMesh
from dreamfusion.objectives.dream_fields import DreamFields
from dreamfusion.shampoo import Shampoo
from dreamfusion.surface import LimitScene, MeshScene
from dreamfusion.surface import regularise as surface
from dreamfusion.surface.stability import stability


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
    objective: Objective | None = None
    """in place of score distillation"""


def recipe(config: c.Config) -> Recipe:
    """The samplers, the renderer's options, the regularisers."""
    look = RenderOptions(**vars(config.render))
    show = RenderOptions(samples=config.output.samples, chunk=config.render.chunk)
    parts = OrbitSampler(config.camera), LightSampler(config.light), look, show, regularisers(config)
    return Recipe(*parts, objective(config.objective))


def objective(config: c.ObjectiveConfig) -> Objective | None:
    """What pictures are judged by; None for score distillation, which is made of a run's own parts."""
    match config:
        case c.DistillationObjective():
            return None
        case c.DreamFieldsObjective():
            return DreamFields(config)
        case c.ClipMeshObjective():
            return ClipMesh(config)


def regularisers(config: c.Config) -> dict[str, WeightedRegulariser]:
    """The configured ones. Orientation says nothing of pictures without normals, interlevel without proposals."""
    weights = config.regularise

    def pixels(render: Render) -> int:
        return render.opacity[0].numel() if weights.reduction == "sum" else 1

    def orientation(render: Render, scene: Scene) -> Float[Tensor, ""] | None:
        return None if render.along.normal is None else pixels(render) * regularise.orientation(render)

    return {
        "opacity": (weights.opacity, lambda render, scene: pixels(render) * regularise.opacity(render)),
        "entropy": (weights.entropy, lambda render, scene: pixels(render) * regularise.entropy(render)),
        "distortion": (weights.distortion, lambda render, scene: pixels(render) * regularise.distortion(render)),
        "orientation": (weights.orientation, orientation),
        "interlevel": (
            weights.interlevel,
            lambda render, scene: regularise.interlevel(render) if render.along.proposals else None,
        ),
        "smoothness": (weights.smoothness, lambda render, scene: regularise.smoothness(scene.field)),
        "laplacian": (weights.laplacian, lambda render, scene: surface.laplacian(scene)),
        "bending": (weights.bending, lambda render, scene: surface.bending(scene)),
        "stability": (weights.stability, lambda render, scene: stability(scene)),
    }


def scene(
    config: c.SceneConfig, generator: Generator, field: Field | None = None, background: Background | None = None
) -> Scene:
    """A scene on the CPU, its first weights drawn from `generator`; with a field or a background that there is."""

    def around() -> Background:
        return _background(config.background, generator) if background is None else background

    if isinstance(config.field, c.MeshConfig):
        return MeshScene(config.field, around(), config.radius)
    if isinstance(config.field, c.SphereFieldConfig):
        return LimitScene(config.field, around(), config.radius, generator)
    law = density_activation(config)
    field = _field(config.field, law, config.radius, generator) if field is None else field
    surrounding = around()
    proposal = Proposal(config.proposal, law, generator) if config.proposal.rounds else None
    occupancy = Occupancy(config.occupancy, config.radius)
    return Scene(field, surrounding, occupancy, config.radius, proposal, config.centre_memory)


def optimiser(config: c.OptimiseConfig, scene: Scene) -> torch.optim.Optimizer:
    """The optimiser, one group per kind of parameter; each group remembers its own learning rate as `base`.

    Raises UserError for a kind of parameters that has no rate, or if there are none.
    """
    rates = {
        "grid": config.grid,
        "network": config.network,
        "background": config.background,
        "vertices": config.vertices,
    }
    kinds = scene.parameter_groups()
    if not any(kinds.values()):
        raise UserError("the scene has no parameters: there is nothing to optimise")
    if unknown := kinds.keys() - rates.keys():
        raise UserError(f"parameter_groups must name {' or '.join(rates)}, not {', '.join(sorted(unknown))}")
    groups = [{"params": parameters, "lr": rates[name], "base": rates[name]} for name, parameters in kinds.items()]
    if config.method == "shampoo":
        return Shampoo(groups, config)
    fused = scene.occupancy.density.device.type in ("cpu", "cuda")
    return torch.optim.Adam(groups, betas=config.betas, eps=config.epsilon, fused=fused)


@dataclass(frozen=True)
class Threads:
    """CPU threads of a run."""

    each: int
    """threads per operator"""
    side: int
    """evaluations of the prior's network at the same time"""


def threads(config: c.Config, device: torch.device) -> Threads:
    """For `config.threads`, or if that is 0 for all cores, shared evenly with what torchrun started on this machine.

    The grid field and the embedded prior have operators too short to be shared (see `runtime`).
    """
    launch = launched()
    beside = 1 if launch is None else launch.local_size
    count = config.threads or max(1, runtime.available_cores() // beside)
    embedded = config.prior == "embedded" and isinstance(config.objective, c.DistillationObjective)
    short = embedded and not isinstance(config.scene.field, c.MlpFieldConfig | c.FourierFieldConfig)
    if not short or device.type != "cpu":
        return Threads(count, 1)
    return Threads(1, min(count, 2))


def prior_options(config: c.Config, device: torch.device) -> PriorOptions:
    """Device, precision and memory options of the prior."""
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


def follow(optimiser: torch.optim.Optimizer, scene: Scene) -> None:
    """Let the optimiser move the parameters that the scene has now; what it remembers of earlier ones stays."""
    for group, parameters in zip(optimiser.param_groups, scene.parameter_groups().values(), strict=False):
        group["params"] = list(parameters)


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


def _law(config: LawConfig) -> distill.Law:
    match config:
        case SdsLaw():
            return distill.Sds()
        case CsdLaw():
            return distill.Csd()
        case NfsdLaw():
            return distill.Nfsd(config)
        case IsmLaw():
            return distill.Ism(config)
        case EsdLaw():
            return distill.Esd(config)
        case DsdLaw():
            return distill.Dsd(config)
        case VsdLaw():
            return distill.Vsd(config)


def density_activation(config: c.SceneConfig) -> DensityActivation:
    """From logits to density, as the scene's field and its proposals have it."""
    activations: dict[str, Activation] = {
        "exp": Exp(config.density_bias, config.exp_clamp),
        "softplus": Softplus(config.density_bias),
    }
    return DensityActivation(activations[config.activation], config.blob)


def _field(
    config: c.GridFieldConfig | c.MlpFieldConfig | c.FourierFieldConfig | c.JointFieldConfig,
    law: DensityActivation,
    radius: float,
    generator: Generator,
) -> Field:
    match config:
        case c.GridFieldConfig():
            return GridField(config, law, radius, generator)
        case c.MlpFieldConfig():
            return MipMlp(config, law, generator)
        case c.FourierFieldConfig():
            return FourierMlp(config, law, generator)
        case c.JointFieldConfig(each, things, places):
            return JointField([_field(each, law, radius, generator) for _ in range(things)], places, radius)


def _background(config: c.BackgroundConfig, generator: Generator) -> Background:
    match config:
        case c.SolidBackground():
            return Solid(config)
        case c.RandomBackground():
            return RandomSolid(config)
        case c.LearnedBackground():
            return Environment(config, generator)
