"""What leaving samples out does to pictures and gradients: settings of the renderer against dense sampling.

    python benchmarks/accuracy.py [--prompt "a hamburger"] [--warm-steps 250] [--threads 2]

One scene, a run of the fast preset at half time; one view with plain colours and one that is lit. The reference cuts
each ray into 192 even bins and leaves nothing out; its picture gets a distillation gradient from the prior, which every
setting then sends back to the parameters, as the mean of 8 draws of the jitter. For comparison: the reference's own
gradients for other noise in the distillation. Prints JSON: samples with gradients and with colour, PSNR of the picture
in dB, cosine of the gradients of the density grids and of the colour grids.
"""

import argparse
import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Generator, Tensor

from dreamfusion.build import device_of
from dreamfusion.cameras import Cameras
from dreamfusion.config.presets import preset
from dreamfusion.diffusion.priors import Prior, PriorOptions, open_prior
from dreamfusion.lights import Light, LightSampler
from dreamfusion.loop import Run, prompt_table
from dreamfusion.nerf.render import RenderOptions, render
from dreamfusion.runtime import configure_torch
from machine import as_json, machine
from measure import middle_of_run

DENSE = RenderOptions(samples=192, weight_threshold=0.0)
DRAWS = 8
SETTINGS = {
    f"{samples} bins, seen {seen}, coloured {coloured}": RenderOptions(samples, seen, coloured)
    for samples, seen, coloured in (
        (64, 0.0, 0.0),
        (64, 3e-3, 3e-3),
        (32, 0.0, 0.0),
        (24, 0.0, 0.0),
        (24, 1e-2, 1e-2),
        (24, 1e-2, 3e-2),
        (24, 1e-2, 1e-1),
        (12, 1e-2, 3e-2),
    )
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompt", default="a hamburger")
    parser.add_argument("--warm-steps", type=int, default=250)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    configure_torch(arguments.threads, repeatable=True)
    device = device_of("cpu")
    config = replace(preset("fast"), prompt=arguments.prompt)
    prior = open_prior(config.prior, PriorOptions(device=device))
    run = middle_of_run(config, device, prior, arguments.warm_steps)
    result = {"lit" if lit else "plain": dict(_rows(run, prior, lit)) for lit in (False, True)}
    print(as_json(result | {"machine": machine(device)}))


def _rows(run: Run, prior: Prior, lit: bool) -> Iterator[tuple[str, dict[str, Any]]]:
    """One line for each setting."""
    generator = Generator().manual_seed(1)
    camera = run.recipe.cameras(1, run.config.size, generator)
    law = replace(run.config.light, shaded=float(lit), albedo_until=0.0, textureless=0.0)
    light = LightSampler(law)(camera, 1.0, generator)
    background = run.scene.background.draw(1, generator)
    told = prompt_table(run.config, prior)(camera, light, background)
    picture = render(run.scene, camera, light, DENSE, None, background).rgb
    x = prior.encode(picture).detach()
    pull, other = (run.distillation(x, told, prior, 0.5, Generator().manual_seed(seed)) for seed in (2, 3))
    wanted = _gradients(run, prior, picture, pull)
    yield "dense, other noise in the distillation", _agreement(_gradients(run, prior, picture, other), wanted)
    for name, options in SETTINGS.items():
        mine, coloured = _mean_picture(run, camera, light, options, background)
        row = {"coloured": coloured, "psnr_db": round(_psnr(mine, picture), 1)}
        yield name, row | _agreement(_gradients(run, prior, mine, pull), wanted)


def _mean_picture(
    run: Run, camera: Cameras, light: Light, options: RenderOptions, background: Tensor | None
) -> tuple[Tensor, int]:
    """The mean of several draws, and how many samples got a colour in the last one."""
    generator = Generator().manual_seed(4)
    pictures = [render(run.scene, camera, light, options, generator, background) for _ in range(DRAWS)]
    return torch.stack([picture.rgb for picture in pictures]).mean(0), len(pictures[-1].along.row)


def _gradients(run: Run, prior: Prior, picture: Tensor, pull: Tensor) -> list[Tensor]:
    """What a pull on the picture does to density and colour grids."""
    field: Any = run.scene.field
    groups = [list(field.logits), list(field.features)]
    flat = torch.autograd.grad((prior.encode(picture) * pull).sum(), [*groups[0], *groups[1]], retain_graph=True)
    cut = len(groups[0])
    return [torch.cat([g.flatten() for g in part]) for part in (flat[:cut], flat[cut:])]


def _agreement(mine: list[Tensor], wanted: list[Tensor]) -> dict[str, float]:
    cosines = [float(torch.cosine_similarity(a, b, dim=0)) for a, b in zip(mine, wanted, strict=True)]
    return {"density_cosine": round(cosines[0], 3), "colour_cosine": round(cosines[1], 3)}


def _psnr(a: Tensor, b: Tensor) -> float:
    return -10 * math.log10(float((a - b).detach().square().mean()))


if __name__ == "__main__":
    main()
