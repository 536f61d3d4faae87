"""How often the contrastive model is right about views that it never saw."""

from dataclasses import replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor

from dreamfusion.contrastive.toybox import ToyboxClip
from dreamfusion.embedded.world import COLOURS
from dreamfusion.evaluate.captions import meaning, without_colour
from dreamfusion.evaluate.suites import pool
from dreamfusion.words import with_article
from training.clip.captions import NONE, Facts, Words
from training.clip.pictures import SIMPLE, Look, draw
from training.mesh_views import Views

CHUNK = 128
KINDS = {
    "colour": replace(SIMPLE, textureless=0.0),
    "textureless": replace(SIMPLE, textureless=1.0),
    "colour, textured backgrounds": replace(SIMPLE, textureless=0.0, plain=0.0),
    "textureless, textured backgrounds": replace(SIMPLE, textureless=1.0, plain=0.0),
    "colour, blurred and thin": replace(SIMPLE, textureless=0.0, soft=1.0),
}


def accuracies(model: ToyboxClip, words: Words, views: Views, seed: int = 99) -> dict[str, dict[str, float | int]]:
    """Of each of the `KINDS`: shares in [0, 1] of one picture of each view.

    "noun": "a <noun>" of its own is the nearest of all. "colour": of pictures painted with a colour word, its own is
    the nearest of "a <colour> <noun>" with its noun.
    """
    nouns = model.embed_text([with_article(noun) for noun in words.nouns])
    coloured = model.embed_text([with_article(f"{colour} {noun}") for noun in words.nouns for colour in COLOURS])
    coloured = coloured.view(len(words.nouns), len(COLOURS), -1)
    found: dict[str, dict[str, float | int]] = {}
    for kind, look in KINDS.items():
        seen, facts = _pictures(model, words, views, look, seed)
        right = (seen @ nouns.T).argmax(1) == facts.noun
        found[kind] = {"pictures": len(right), "noun": _share(right)}
        painted = facts.colour != NONE
        if painted.any():
            near = (coloured[facts.noun] @ seen[:, :, None]).squeeze(2).argmax(1)
            found[kind]["colour"] = _share((near == facts.colour)[painted])
    return found


def retrieval(model: ToyboxClip, words: Words, views: Views, seed: int = 99) -> dict[str, dict[str, float | int]]:
    """R-Precision: the share of pictures of a suite's prompts whose own caption is the nearest of all the suites'.

    Pictures are all views of a prompt's noun, painted as the prompt says. Without texture, captions have no colours;
    those that are then the same are one.
    """
    said = {prompt: meaning(prompt, words.nouns) for prompt in pool()}
    known = {prompt: one for prompt, one in said.items() if one}
    prompts, rows = list(known), [(views.noun == words.nouns.index(one.noun)).nonzero()[:, 0] for one in known.values()]
    chosen = views[torch.cat(rows)]
    own = torch.cat([torch.full_like(row, number) for number, row in enumerate(rows)])
    numbers = [list(COLOURS).index(one.colour) if one.colour else NONE for one in known.values()]
    colour = torch.tensor(numbers)[own]
    found: dict[str, dict[str, float | int]] = {}
    for kind, name in (("colour", lambda prompt: prompt), ("textureless", without_colour)):
        captions = list(dict.fromkeys(name(prompt) for prompt in prompts))
        seen, _ = _pictures(model, words, chosen, KINDS[kind], seed, colour)
        best = (seen @ model.embed_text(captions).T).argmax(1)
        right = best == torch.tensor([captions.index(name(prompt)) for prompt in prompts])[own]
        found[kind] = {"captions": len(captions), "pictures": len(right), "right": _share(right)}
    return found


@torch.no_grad()
def _pictures(
    model: ToyboxClip, words: Words, views: Views, look: Look, seed: int, colour: Int[Tensor, " n"] | None = None
) -> tuple[Float[Tensor, "n d"], Facts]:
    """Embeddings of one picture of each view, and what is known of it."""
    generator, seen, facts = Generator().manual_seed(seed), list[Tensor](), list[Facts]()
    for start in range(0, len(views), CHUNK):
        own = slice(start, start + CHUNK)
        image, known = draw(views[own], words.adjective_of, look, generator, None if colour is None else colour[own])
        seen.append(model.embed_images(image.permute(0, 2, 3, 1)))
        facts.append(known)
    return torch.cat(seen), facts[0].joined(*facts[1:])


def _share(right: Bool[Tensor, " n"]) -> float:
    return round(right.float().mean().item(), 4)
