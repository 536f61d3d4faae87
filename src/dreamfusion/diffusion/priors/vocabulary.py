"""The vocabulary of a small prior, checked before any work starts."""

import re
from collections.abc import Set
from difflib import get_close_matches

from dreamfusion.diffusion.priors.protocol import PromptEncoder
from dreamfusion.errors import UserError


def words_of(prompt: str) -> list[str]:
    """The words of a text in order: lower case, without punctuation; a hyphen or an apostrophe separates two words."""
    return re.findall(r"[^\W_]+", prompt.lower())


def unknown_words(prompt: str, vocabulary: Set[str]) -> list[str]:
    """The distinct words of `prompt` that are not in `vocabulary` (lower case words), in the order of the prompt."""
    return [word for word in dict.fromkeys(words_of(prompt)) if word not in vocabulary]


def require_known(prior: PromptEncoder, prompt: str) -> None:
    """Raises UserError if the prior lists the words it knows and the prompt has others."""
    if prior.vocabulary is None:
        return
    unknown = unknown_words(prompt, prior.vocabulary)
    if unknown:
        described = "; ".join(_described(word, prior.vocabulary) for word in unknown)
        raise UserError(
            f"the prior {prior.name!r} does not know {described}:"
            " use words it knows (`dreamfusion prior info` lists them), or a larger prior with --prior FOLDER"
        )


def _described(word: str, vocabulary: Set[str]) -> str:
    known = sorted(vocabulary)
    if near := get_close_matches(word, known, n=3):
        return f"{word!r} (nearest: {', '.join(near)})"
    return f"{word!r} (it knows, for example, {', '.join(get_close_matches(word, known, n=3, cutoff=0.0))})"
