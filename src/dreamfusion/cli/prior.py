"""The commands `prior info` and `prior sample`. Whatever is slow to load is imported by them."""

import sys
from dataclasses import replace
from pathlib import Path

from dreamfusion.claims import new_files
from dreamfusion.cli import arguments as a
from dreamfusion.errors import UserError
from dreamfusion.files import listed, replacing, require_new_file

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")


def info(name: str, given: list[str]) -> int:
    """Say what the embedded prior is."""
    a.read(a.PriorInfo, name, given)
    from dreamfusion.embedded.model_card import describe

    print(describe())
    return 0


def sample(name: str, given: list[str]) -> int:
    """Draw pictures from a prior into a file."""
    arguments = a.read(a.PriorSample, name, given)
    if not arguments.captions:
        raise UserError('say what to draw: dreamfusion prior sample "a red chair"')
    out = arguments.out or Path("samples.png")
    require_new_file(out, PICTURE_SUFFIXES, or_next=arguments.out is None)
    with new_files([out], or_next=arguments.out is None) as [place]:
        _draw(arguments, place)
    print(listed([place]))
    return 0


def _draw(arguments: a.PriorSample, out: Path) -> None:
    from dreamfusion.build import device_of
    from dreamfusion.diffusion.priors import PriorOptions, open_prior, open_prompt_encoder, understood
    from dreamfusion.embedded.sheet import samples, save_sheet, sides

    options = PriorOptions(device=device_of(arguments.device))
    options = replace(options, dtype=None) if arguments.half else options
    reader = open_prompt_encoder(arguments.prior, options)
    said = [understood(reader, caption) for caption in arguments.captions]
    for notes in filter(None, (each.notes for each in said)):
        print("; ".join(notes), file=sys.stderr)
    told = sides(reader, [each.caption for each in said], options.device, arguments.conditions, arguments.seed)
    prior = open_prior(arguments.prior, options)  # after its text encoders have left the memory
    scale = arguments.guidance_scale
    pictures = samples(prior, told, steps=arguments.steps, guidance_scale=scale, seed=arguments.seed)
    with replacing(out) as part:
        save_sheet(pictures, part)
