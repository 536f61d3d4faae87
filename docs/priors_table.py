"""Writes the tables of docs/reference/priors.md: `python docs/priors_table.py`.

The first comes from the code, memory for one well-known model of each kind (tests/published, no weights are needed);
the second from benchmarks/results/full_size.json.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from dreamfusion.config.presets import FOR_PIPELINES, preset
from dreamfusion.diffusion.priors.folder import PipelineFolder, read_pipeline
from dreamfusion.diffusion.priors.kinds import KINDS, Kind
from dreamfusion.diffusion.priors.memory_plan import plan
from dreamfusion.diffusion.priors.opening import image_size
from dreamfusion.diffusion.priors.options import PriorOptions

PAGE = Path(__file__).parent / "reference" / "priors.md"
MEASURED = Path(__file__).parents[1] / "benchmarks" / "results" / "full_size.json"
BEGIN, END = "<!-- table: python docs/priors_table.py -->", "<!-- end of table -->"
BEGIN_FULL, END_FULL = "<!-- table: full size -->", "<!-- end of table: full size -->"

PUBLISHED = Path(__file__).parents[1] / "tests" / "published"
PICTURE = "text, a guided step and the estimate of the picture equal the pipeline's"
LATENTS = "text, a guided step and latents equal the pipeline's"


@dataclass(frozen=True)
class Example:
    """A published model of a kind."""

    name: str
    layout: str
    """folder of its configuration files"""
    prediction: str
    tested: str = LATENTS
    """in miniature, besides what holds for all kinds"""

    @property
    def folder(self) -> PipelineFolder:
        """Its configuration files alone."""
        return read_pipeline(PUBLISHED / self.layout)


NO_VARIANCE = "epsilon; learned variance dropped"
EXAMPLES: dict[str, Example] = {
    "StableDiffusionPipeline": Example("Stable Diffusion 1.5", "stable-diffusion-1.5", "epsilon; v in 2.x"),
    "StableDiffusionXLPipeline": Example("Stable Diffusion XL", "stable-diffusion-xl", "epsilon"),
    "IFPipeline": Example("DeepFloyd IF-I-XL", "if-i-xl", NO_VARIANCE, PICTURE),
    "StableDiffusion3Pipeline": Example("Stable Diffusion 3 medium", "stable-diffusion-3-medium", "flow"),
    "FluxPipeline": Example("Flux.1-dev", "flux.1-dev", "flow; told guidance 1"),
    "PixArtAlphaPipeline": Example("PixArt-alpha XL/2 1024", "pixart-alpha", NO_VARIANCE),
    "PixArtSigmaPipeline": Example("PixArt-sigma XL/2 1024", "pixart-sigma", NO_VARIANCE),
}


HEADS = ("class", "prediction", "space", "pixels", "preset", "tested in miniature",
         "example, 10^9 parameters", "a step of the preset",
         "text, GB", "then weights + encoding + denoising, GB")  # fmt: skip


def facts(name: str, kind: Kind) -> list[str]:
    """The first cells of a kind's row: what it is."""
    size = image_size(EXAMPLES[name].folder, kind)
    space = "latents" if kind.latent else "pixels"
    return [f"`{name}`", EXAMPLES[name].prediction, space, f"{size}", f"`{FOR_PIPELINES[name]}`", EXAMPLES[name].tested]


def memory(name: str, kind: Kind) -> list[str]:
    """The last cells: what its example needs."""
    example, config = EXAMPLES[name], preset(FOR_PIPELINES[name])
    memory = config.memory
    options = PriorOptions(torch.device("cuda"), None, memory.size, vae_slicing=memory.vae_slicing)
    needs, size = plan(example.folder, options, config.views), options.size or image_size(example.folder, kind)
    return [
        f"{example.name}, {needs.parameters / 1e9:.2f}",
        f"{config.views} x {size}, {str(kind.half).removeprefix('torch.')}",
        f"{needs.text / 1e9:.1f}",
        f"{needs.weights / 1e9:.1f} + {needs.encode / 1e9:.1f} + {needs.denoise / 1e9:.1f}",
    ]


def line(cells: Sequence[str]) -> str:
    """A row of the table."""
    return f"| {' | '.join(cells)} |"


def table() -> str:
    """All lines."""
    rows = [line([*facts(name, kind), *memory(name, kind)]) for name, kind in KINDS.items()]
    return "\n".join([line(HEADS), "|---" * len(HEADS) + "|", *rows])


STAGES = {
    "opening": "opening", "text": "text", "step": "step", "encode": "encode", "encoder backward": "and back",
    "evaluations": "evaluations", "step without the encoder": "step without encoder",
}  # fmt: skip
"""of `seconds` in the results, and their names on the page"""


def full_size() -> str:
    """All lines of the table of what was measured."""
    heads = ("layout", "10^9 parameters", "a step", *(f"{name}, s" for name in STAGES.values()),
             "measured, GB", "estimated, GB", "measured / estimated")  # fmt: skip
    rows = [
        line([name, *measurement(found)])
        for name, found in json.loads(MEASURED.read_text(encoding="utf-8"))["priors"].items()
        if "left_out" not in found
    ]
    return "\n".join([line(heads), "|---" * len(heads) + "|", *rows])


def measurement(found: dict[str, Any]) -> list[str]:
    """The cells of a layout, but for its name."""
    views, size = found["pictures"]
    seconds = [f"{found['seconds'][stage]:.1f}" if stage in found["seconds"] else "" for stage in STAGES]
    memory = [f"{found[kind]['step']:.1f}" for kind in ("measured_gb", "estimated_gb")]
    step = f"`{found['preset']}`: {views} x {size}, {found['precision']}"
    return [f"{found['parameters'] / 1e9:.2f}", step, *seconds, *memory, f"{found['step_measured_over_estimated']:.2f}"]


def page(text: str) -> str:
    """The page with new tables."""
    for begin, made, end in ((BEGIN, table, END), (BEGIN_FULL, full_size, END_FULL)):
        before, rest = text.split(begin)
        text = f"{before}{begin}\n{made()}\n{end}{rest.split(end)[1]}"
    return text


if __name__ == "__main__":
    torch.set_num_threads(1)
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
