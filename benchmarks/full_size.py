"""Large priors at their full size, with random weights: seconds and memory of a step's stages, against the estimate.

    python benchmarks/full_size.py [NAME ...] [--limit 14] [--out benchmarks/results/full_size.json]

The layouts are those of tests/published. Each prior is written into a temporary folder and opened there like any other,
in a process of its own; what would need more than `--limit` gigabytes, or is not free, is left out and said. CLIP reads
the prompt; T5 of 4.7 x 10^9 parameters does not, random numbers take the place of what it would say. Results of other
names that the file already has stay.
"""

import argparse
import ctypes
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import miniatures  # type: ignore[import-not-found]  # noqa: E402
from dreamfusion import build, generate, memory  # noqa: E402
from dreamfusion.config import Config  # noqa: E402
from dreamfusion.config.presets import preset  # noqa: E402
from dreamfusion.diffusion.priors import PriorOptions, ViewCondition, open_prior, open_prompt_encoder  # noqa: E402
from dreamfusion.diffusion.priors.card import Card, Described  # noqa: E402
from dreamfusion.diffusion.priors.folder import PipelineFolder, class_of, read_pipeline  # noqa: E402
from dreamfusion.diffusion.priors.kinds import KINDS  # noqa: E402
from dreamfusion.diffusion.priors.memory_plan import MemoryPlan, empty, plan  # noqa: E402
from dreamfusion.diffusion.priors.pipeline import PipelinePrior  # noqa: E402
from dreamfusion.diffusion.prompts import PromptTable  # noqa: E402
from dreamfusion.loop import Run, advance, prompt_table, start  # noqa: E402
from machine import as_json, machine, now  # noqa: E402

CPU, GB = torch.device("cpu"), 1e9
PUBLISHED = ROOT / "tests" / "published"
PROMPT = "a fox"


@dataclass(frozen=True)
class Case:
    """A layout, and how it is run."""

    name: str
    preset: str
    dtype: torch.dtype = torch.float32
    steps: int = 2
    """with the auto-encoder, the last of which is told; then one without"""


CASES = {
    case.name: case
    for case in (
        Case("stable-diffusion-1.5", "sd"),
        Case("bk-sdm-tiny", "laptop"),
        Case("if-i-m", "if"),
        Case("pixart-alpha", "sdxl", torch.bfloat16, steps=1),
        Case("stable-diffusion-3-medium", "flux", torch.bfloat16, steps=1),
    )
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=list(CASES), metavar="NAME", help=f"of {', '.join(CASES)}")
    parser.add_argument("--limit", type=float, default=14.0, help="gigabytes of memory")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "full_size.json")
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)  # of a process that measures one
    arguments = parser.parse_args()
    if arguments.folder:
        print(json.dumps(measured(CASES[arguments.names[0]], arguments.folder)))
        return
    before = json.loads(arguments.out.read_text(encoding="utf-8"))["priors"] if arguments.out.exists() else {}
    for name in arguments.names:
        found = one(CASES[name], arguments.limit * GB)
        print(f"{name}: {json.dumps(found)}", file=sys.stderr)
        before[name] = found
        arguments.out.write_text(as_json({"machine": machine(CPU), "priors": before}) + "\n", encoding="utf-8")


def one(case: Case, limit: float) -> dict[str, Any]:
    """The measurement of a case in a process of its own, or why there is none."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(shutil.copytree(PUBLISHED / case.name, Path(place) / case.name))
        needs = estimate(case, read_pipeline(folder))
        most = min(limit, memory.available() or limit)
        if needs.step > most:
            return {"left_out": f"it needs {needs.step / GB:.1f} GB, and may have {most / GB:.1f}"}
        write(case, read_pipeline(folder))
        command = [sys.executable, __file__, case.name, "--folder", str(folder)]
        return json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)


def config_of(case: Case, folder: Path) -> Config:
    """The run of which steps are measured."""
    return replace(preset(case.preset), prompt=PROMPT, prior=str(folder), half=False, device="cpu")


def options_of(case: Case, folder: Path) -> PriorOptions:
    """The run's options in the precision of the case."""
    return replace(build.prior_options(config_of(case, folder), CPU), dtype=case.dtype)


def estimate(case: Case, folder: PipelineFolder) -> MemoryPlan:
    """What `dreamfusion generate` would say before the run."""
    return plan(folder, replace(options_of(case, folder.path), texts=reads(folder)), config_of(case, folder.path).views)


def reads(folder: PipelineFolder) -> bool:
    """Whether the prompt is read: whether CLIP is all that reads it."""
    return all(name.startswith("CLIP") for part, (_, name) in folder.classes.items() if "text_encoder" in part)


def write(case: Case, folder: PipelineFolder) -> None:
    """Random weights for all networks that are used, and a tokenizer of single letters."""
    kind = KINDS[folder.pipeline]
    for part in kind.components(texts=reads(folder)):
        if part.startswith("tokenizer"):
            miniatures.clip_tokenizer().save_pretrained(folder.path / part)
        elif part != "scheduler":
            stem = "model" if part.startswith("text_encoder") else "diffusion_pytorch_model"
            made = empty(folder, part, case.dtype).state_dict()
            weights = {name: filled(name, like) for name, like in made.items()}
            save_file(weights, folder.path / part / f"{stem}.safetensors", metadata={"format": "pt"})


TILE = torch.rand(2**20, generator=torch.Generator().manual_seed(0)) * 2 - 1


def filled(name: str, like: Tensor) -> Tensor:
    """Numbers that keep what goes through a layer at its size: the same million of random ones again and again."""
    if not like.is_floating_point():
        return torch.zeros(like.shape, dtype=like.dtype)
    if like.dim() < 2:
        return torch.full(like.shape, 0.0 if name.endswith("bias") else 1.0, dtype=like.dtype)
    scale = (3 / (like.numel() / len(like))) ** 0.5
    tile = (scale * TILE).to(like.dtype)
    return tile.repeat(-(-like.numel() // len(tile)))[: like.numel()].reshape(like.shape).contiguous()


# --- one measurement -------------------------------------------------------------------------------------------------


class Held:
    """Bytes that this process holds, and has held at most since it was asked to forget (proc(5)).

    What was freed is given back before they are counted: allocators keep it otherwise.
    """

    def __init__(self) -> None:
        self.most = 0
        self._libc = ctypes.CDLL(None)

    @property
    def now(self) -> int:
        self._libc.malloc_trim(0)
        return self._line("VmRSS:")

    def peak(self) -> int:
        """Since the last `forget`; `most` remembers the largest of all."""
        self.most = max(self.most, peak := self._line("VmHWM:"))
        return peak

    def forget(self) -> int:
        """Start counting anew; returns what is held now."""
        self.peak()
        held = self.now
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        return held

    def _line(self, name: str) -> int:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(name))


@dataclass(eq=False)
class Notes:
    """What was seen of the last step."""

    held: Held
    before: int = 0
    """bytes held when the auto-encoder begins: with the graph of the 3D half"""
    encode: float = 0.0
    kept: int = 0
    evaluations: float = 0.0
    denoise: int = 0
    backward: float = 0.0


@dataclass(frozen=True, eq=False)
class Watched(PipelinePrior):
    """A prior that takes notes."""

    notes: Notes = field(default_factory=lambda: Notes(Held()))

    def encode(self, image: Tensor) -> Tensor:
        notes = self.notes
        notes.before, since = notes.held.forget(), now(CPU)
        x = super().encode(image)
        notes.encode, notes.kept = now(CPU) - since, notes.held.now - notes.before
        began: list[float] = []
        x.register_hook(lambda _: began.append(now(CPU)))
        image.register_hook(lambda _: setattr(notes, "backward", now(CPU) - began[0]))
        return x

    def predict_noise(self, noisy: Tensor, t: Tensor, text: Tensor, known: ViewCondition) -> Tensor:
        before, since = self.notes.held.forget(), now(CPU)
        said = super().predict_noise(noisy, t, text, known)
        self.notes.evaluations, self.notes.denoise = now(CPU) - since, self.notes.held.peak() - before
        return said


@dataclass(frozen=True, eq=False)
class RandomText(Described):
    """Says something of every caption, without reading it."""

    shape: tuple[int, int]

    def embed(self, prompts: Sequence[str]) -> Tensor:
        return torch.randn(len(prompts), *self.shape, generator=torch.Generator().manual_seed(0))


def measured(case: Case, path: Path) -> dict[str, Any]:
    """Seconds and gigabytes of a run's stages, and the estimate."""
    folder, config, options = read_pipeline(path), config_of(case, path), options_of(case, path)
    generate.prepare_process(config)
    for part in (name for name in KINDS[folder.pipeline].components() if name in folder.classes):
        class_of(folder, part)
    warm(case.dtype)
    needs, held, latent = estimate(case, folder), Held(), KINDS[folder.pipeline].latent
    seconds, gigabytes = dict[str, float](), dict[str, int]()
    prompts = None
    if reads(folder):
        base, since = held.forget(), now(CPU)
        prompts = prompt_table(config, open_prompt_encoder(str(path), options))
        seconds["text"], gigabytes["text"] = now(CPU) - since, held.peak() - base
    run = start(config, CPU)
    base, since = held.forget(), now(CPU)
    opened = open_prior(str(path), options)
    seconds["opening"] = now(CPU) - since
    prior = Watched(**{each.name: getattr(opened, each.name) for each in fields(PipelinePrior)}, notes=Notes(held))
    prompts = prompts or prompt_table(config, RandomText(Card("random", prior.image_size), opened.denoiser.text_shape))
    notes, begun = prior.notes, 0
    for _ in range(case.steps):
        seconds["step"], begun = stepped(run, prior, prompts, 0.0)
    # Of the 3D half, what is alive while the prior works is not the prior's.
    gigabytes |= {"encode": notes.kept, "step": held.most - base - (notes.before - begun)}
    gigabytes["weights"] = held.now - base
    seconds |= {"encode": notes.encode, "evaluations": notes.evaluations, "encoder backward": notes.backward}
    if latent:
        prior.encode_linear(torch.rand(1, 8, 8, 3))  # the map is fitted once
        seconds["step without the encoder"], _ = stepped(run, prior, prompts, 1.0)
    gigabytes["denoise"] = notes.denoise
    return {
        "class": folder.pipeline,
        "preset": case.preset,
        "parameters": needs.parameters,
        "precision": str(case.dtype).removeprefix("torch."),
        "pictures": [config.views, options.size or prior.image_size],
        "seconds": {name: round(value, 2) for name, value in seconds.items()},
        "measured_gb": {name: round(value / GB, 2) for name, value in gigabytes.items()},
        "estimated_gb": {name: round(getattr(needs, name) / GB, 2) for name in (*gigabytes, "workspace")},
        "step_measured_over_estimated": round(gigabytes["step"] / needs.step, 3),
        "load": round(os.getloadavg()[0], 1),
    }


def warm(dtype: torch.dtype) -> None:
    """Have the libraries load what they need for a network: that is not what is measured."""
    x = torch.rand(2, 64, 32, 32, dtype=dtype, requires_grad=True)
    y = F.silu(F.group_norm(F.conv2d(x, torch.rand(64, 64, 3, 3, dtype=dtype)), 8)).flatten(2).mT[:, None]
    F.linear(F.scaled_dot_product_attention(y, y, y), torch.rand(64, 64, dtype=dtype)).sum().backward()


def stepped(run: Run, prior: Watched, prompts: PromptTable, latent_until: float) -> tuple[float, int]:
    """Seconds of a step, and bytes held before it; afterwards `most` is the peak within it."""
    run.config = replace(run.config, memory=replace(run.config.memory, latent_until=latent_until))
    held = prior.notes.held
    begun = held.forget()
    held.most, since = 0, now(CPU)
    advance(run, prior, prompts)
    taken = now(CPU) - since
    held.peak()
    return taken, begun


if __name__ == "__main__":
    main()
