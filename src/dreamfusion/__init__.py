"""Text to 3D by score distillation. The names below load their modules when they are first used.

from dreamfusion import Config, export, make_mesh, open_prior, preset, prompt_table, start
from dreamfusion.optimise import optimise

config = replace(preset("fast"), prompt="a red chair")
run, prior = start(config, torch.device("cpu")), open_prior(config.prior)
for metrics in optimise(run, prior, prompt_table(config, prior), config.steps):
    print(metrics.step, metrics.opacity)
mesh, report = make_mesh(run.scene, run.recipe.eval_render)
export(mesh, Path("chair.glb"), {"prompt": config.prompt})
"""

from importlib import import_module
from typing import Any

from dreamfusion.version import VERSION

__version__ = VERSION

# No name here may be that of a module: `dreamfusion.optimise` and `dreamfusion.nerf.render` are modules.
_HOMES = {
    "config": ("Config",),
    "config.presets": ("preset",),
    "errors": ("UserError",),
    "cameras": ("Cameras", "OrbitSampler", "orbit", "turntable"),
    "lights": ("Light", "LightSampler", "albedo_only", "key_light"),
    "nerf.scene": ("Scene",),
    "nerf.render": ("RenderOptions", "render_views"),
    "diffusion.priors": ("Conditioning", "ViewCondition", "NoiseSchedule", "Prior", "open_prior"),
    "diffusion.distill": ("Csd", "Distillation", "Ism", "Nfsd", "Sds", "Vsd", "surrogate"),
    "diffusion.prompts": ("PromptTable", "PromptOptions"),
    "optimise": ("Diverged", "Metrics", "Run", "advance", "prompt_table", "start"),
    "mesh": ("Mesh", "MeshOptions", "export", "make_mesh"),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME_OF[name]}"), name)


def __dir__() -> list[str]:
    return ["__version__", *sorted(_HOME_OF)]
