"""The words of a prompt against those that a small prior knows. Imports nothing slow."""

import re
from collections.abc import Set
from difflib import get_close_matches

from dreamfusion.errors import UserError


def words_of(prompt: str) -> list[str]:
    """The words of a text in order: lower case, without punctuation; a hyphen or an apostrophe separates two words."""
    return re.findall(r"[^\W_]+", prompt.lower())


def unknown_words(prompt: str, vocabulary: Set[str]) -> list[str]:
    """The distinct words of `prompt` that are not in `vocabulary` (lower case words), in the order of the prompt."""
    return [word for word in dict.fromkeys(words_of(prompt)) if word not in vocabulary]


def nearest(word: str, vocabulary: Set[str], cutoff: float = 0.6) -> list[str]:
    """Up to three known words that are written like this one, the most similar first; `cutoff` 0..1: how alike."""
    return get_close_matches(word, sorted(vocabulary), n=3, cutoff=cutoff)


def require_words(name: str, vocabulary: Set[str] | None, prompt: str) -> None:
    """Raises UserError if the prior of this name lists the words it knows and the prompt has others."""
    if vocabulary is None:
        return
    unknown = unknown_words(prompt, vocabulary)
    if unknown:
        described = "; ".join(_described(word, vocabulary) for word in unknown)
        raise UserError(
            f"the prior {name!r} does not know {described}:"
            " use words it knows (`dreamfusion prior info` lists them), or a larger prior with --prior FOLDER"
        )


def _described(word: str, vocabulary: Set[str]) -> str:
    if near := nearest(word, vocabulary):
        return f"{word!r} (nearest: {', '.join(near)})"
    return f"{word!r} (it knows, for example, {', '.join(nearest(word, vocabulary, cutoff=0.0))})"
