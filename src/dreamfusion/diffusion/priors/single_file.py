"""Files that are given where a pipeline's folder is meant: what they are, and how one comes to a folder."""

from pathlib import Path

from safetensors import SafetensorError, safe_open

from dreamfusion.places import PICKLES

_LAYOUTS = {
    "conditioner.embedders.": "StableDiffusionXLPipeline",
    "model.diffusion_model.joint_blocks.": "StableDiffusion3Pipeline",
    "joint_blocks.": "StableDiffusion3Pipeline",
    "model.diffusion_model.double_blocks.": "FluxPipeline",
    "double_blocks.": "FluxPipeline",
    "model.diffusion_model.": "StableDiffusionPipeline",
}
"""How tensors of a whole model in one file are called, the more telling names first, and its class in diffusers"""


def describe(path: Path) -> str:
    """What a file is that was given as a prior, and what to give instead; the text of a UserError.

    Of pickles nothing is read.
    """
    suffix = path.suffix.lower()
    for folder in (path.parent, path.parent.parent):
        if (folder / "model_index.json").is_file():
            return f"{path} is one file of a pipeline: give its folder, --prior {folder}"
    if suffix in PICKLES:
        advice = _conversion(path, "StableDiffusionPipeline")
        return f"{path} is a single file and a pickle, which can run code: if you trust it, {advice}"
    if suffix != ".safetensors":
        return f"{path} is a file, no prior: give the folder of a diffusers pipeline, which holds model_index.json"
    try:
        with path.open("rb"), safe_open(path, framework="pt") as file:
            names = list(file.keys())
    except PermissionError:
        raise
    except (SafetensorError, OSError) as error:
        return f"{path} is damaged or cut short ({error}): download or restore it"
    return _of_tensors(path, names)


def _of_tensors(path: Path, names: list[str]) -> str:
    if any("lora" in name for name in names):
        return f"{path} is a LoRA, which changes a model and is none: give the folder of a whole diffusers pipeline"
    for beginning, pipeline in _LAYOUTS.items():
        if any(name.startswith(beginning) for name in names):
            return f"{path} is a single-file checkpoint of a {pipeline}: {_conversion(path, pipeline)}"
    return (
        f"{path} is a single file, its {len(names)} tensors have names of no known model: give the folder of a"
        " diffusers pipeline, which holds model_index.json"
    )


def _conversion(path: Path, pipeline: str) -> str:
    folder = path.with_suffix("")
    code = f"from diffusers import {pipeline} as P; P.from_single_file({str(path)!r}).save_pretrained({str(folder)!r})"
    return f'convert it once, by python -c "{code}", and give --prior {folder}'
