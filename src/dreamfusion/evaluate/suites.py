"""Prompt suites: fixed lists of prompts, chosen by a rule before anything was seen of the results."""

import hashlib
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from dreamfusion.embedded.dataset import COLOURS, held_out, with_article
from dreamfusion.embedded.table import Noun, names
from dreamfusion.errors import UserError
from dreamfusion.reading import read_lines

SUITES = ("plain", "seen", "unseen")
"""40 nouns; 20 nouns in a colour that the prior learnt them in; the same 20 in a colour that it never saw them in"""
TUNED = ("hamburger", "taxi", "sofa", "frog", "chair", "car", "snowman")
"""nouns that somebody looked at while the prior or the fast preset was tuned: in no suite"""


def suite(name: str) -> list[str]:
    """The prompts of a suite file, one a line: `SUITES`, "ablation" (10) or "samples" (60)."""
    text = resources.files("dreamfusion.evaluate").joinpath(f"suites/{name}.txt").read_text(encoding="utf-8")
    return text.splitlines()


def pool() -> list[str]:
    """All 80 prompts of the three suites: the captions among which retrieval has to find the right one."""
    return [prompt for name in SUITES for prompt in suite(name)]


def read_prompts(path: Path) -> list[str]:
    """The distinct lines of a prompts file. Raises UserError if it cannot be read or is empty."""
    lines = read_lines(path, "give --prompts a text file, one prompt a line")
    prompts = list(dict.fromkeys(line.strip() for line in lines if line.strip()))
    if not prompts:
        raise UserError(f"--prompts {path} holds no prompt: give a text file, one prompt a line")
    return prompts


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
