"""A prompt against the words that a small prior knows, without the prior. Imports nothing slow."""

from collections.abc import Set
from dataclasses import dataclass
from difflib import get_close_matches

from dreamfusion.errors import UserError
from dreamfusion.words import Understood, WordList, understand, words_of


@dataclass(frozen=True)
class Lexicon:
    """The words of a prior."""

    name: str
    """of the prior"""
    vocabulary: frozenset[str] | None = None
    """words in lower case; None for a prior that reads any"""
    words: WordList | None = None
    """what people type, and what it means"""


def understood(lexicon: Lexicon, prompt: str) -> Understood:
    """The caption that the prior is given for a prompt. Raises UserError if it cannot be understood.

    A prior without a word list is given what was typed.
    """
    said = Understood(prompt) if lexicon.words is None else understand(prompt, lexicon.words)
    require_known(lexicon, said.caption)
    return said


def understood_negative(lexicon: Lexicon, prompt: str) -> Understood:
    """The same for a negative prompt: words that the prior knows need not name one thing there."""
    if lexicon.vocabulary is not None and not unknown_words(prompt, lexicon.vocabulary):
        return Understood(prompt)
    return understood(lexicon, prompt)


def unknown_words(prompt: str, vocabulary: Set[str]) -> list[str]:
    """The distinct words of `prompt` that are not in `vocabulary` (lower case words), in the order of the prompt."""
    return [word for word in dict.fromkeys(words_of(prompt)) if word not in vocabulary]


def nearest(word: str, vocabulary: Set[str], cutoff: float = 0.6) -> list[str]:
    """Up to three known words that are written like this one, the most similar first; `cutoff` 0..1: how alike."""
    return get_close_matches(word, sorted(vocabulary), n=3, cutoff=cutoff)


def require_known(lexicon: Lexicon, prompt: str) -> None:
    """Raises UserError if the prior lists the words it knows and the prompt has others."""
    if lexicon.vocabulary is None:
        return
    unknown = unknown_words(prompt, lexicon.vocabulary)
    if unknown:
        described = "; ".join(_described(word, lexicon.vocabulary) for word in unknown)
        raise UserError(
            f"the prior {lexicon.name!r} does not know {described}:"
            " use words it knows (`dreamfusion prior info` lists them), or a larger prior with --prior FOLDER"
        )


def no_sentences(lexicon: Lexicon) -> str:
    """Why a prior does not read whole sentences, and what to do; empty for one that does.

    One with a word list knows single things alone.
    """
    if lexicon.words is None:
        return ""
    return (
        f"the prior {lexicon.name} knows single things, no sentences: leave --joint away, or make the scene with"
        " another prior, as in --set prior=FOLDER"
    )


def require_sentences(lexicon: Lexicon) -> None:
    """Raises UserError for a prior that does not read whole sentences."""
    if why := no_sentences(lexicon):
        raise UserError(why)


def _described(word: str, vocabulary: Set[str]) -> str:
    if near := nearest(word, vocabulary):
        return f"{word!r} (nearest: {', '.join(near)})"
    return f"{word!r} (it knows, for example, {', '.join(nearest(word, vocabulary, cutoff=0.0))})"
