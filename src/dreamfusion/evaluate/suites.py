"""Prompt suites: fixed lists of prompts, chosen by a rule before there were results."""

from importlib import resources
from pathlib import Path

from dreamfusion.errors import UserError
from dreamfusion.files import read_lines

SUITES = ("plain", "seen", "unseen")
"""40 nouns; 20 nouns in a colour that the prior learnt them in; the same 20 in a colour that it never saw them in"""


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
