"""The rule that chose the prompts of the suites, before anything was seen of the results."""

import hashlib
from collections.abc import Sequence

from dreamfusion.embedded.world import COLOURS
from training.nouns import Noun, names
from training.prior.data import held_out, with_article

TUNED = ("hamburger", "taxi", "sofa", "frog", "chair", "car", "snowman")
"""nouns that somebody looked at while the prior or the fast preset was tuned: in no suite"""


def choose(table: Sequence[Noun]) -> dict[str, list[str]]:
    """The rule that made the suite files: nouns in the order of their SHA-256, those of `TUNED` left out.

    The first 40 are plain. The next 20 that were held out in some colour come twice: in the trained and in the held-out
    colour of the smallest hash. Of what is left, the first 10 that have a front are for the ablation, then 40 plain
    ones and 20 in a trained colour for samples.
    """
    order = iter(sorted((noun for noun in names(table) if noun not in TUNED), key=_hash))
    plain = [next(order) for _ in range(40)]
    pairs, rest = list[str](), list[str]()
    for noun in order:
        (pairs if len(pairs) < 20 and _colour(noun, held=True) else rest).append(noun)
    with_front = {row.noun for row in table if row.front} - {row.noun for row in table if not row.front}
    ablation = [noun for noun in rest if noun in with_front][:10]
    samples = [noun for noun in rest if noun not in ablation][:60]
    return {
        "plain": [_prompt(noun) for noun in plain],
        "seen": [_prompt(noun, _colour(noun, held=False)) for noun in pairs],
        "unseen": [_prompt(noun, _colour(noun, held=True)) for noun in pairs],
        "ablation": [_prompt(noun) for noun in ablation],
        "samples": [_prompt(n, _colour(n, held=False) if i >= 40 else "") for i, n in enumerate(samples)],
    }


def _prompt(noun: str, colour: str = "") -> str:
    return with_article("a {}", f"{colour} {noun}".strip())


def _colour(noun: str, held: bool) -> str:
    """The colour of the smallest hash among those that are, or are not, held out for this noun; "" if there is none."""
    fitting = [colour for colour in COLOURS if held_out(colour, noun) == held]
    return min(fitting, key=lambda colour: _hash(f"{colour} {noun}"), default="")


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
