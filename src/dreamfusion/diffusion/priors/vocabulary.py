"""The vocabulary of a small prior, checked before any work starts."""

from collections.abc import Set
from difflib import get_close_matches

from dreamfusion.diffusion.priors.protocol import PromptEncoder, WordListedEncoder
from dreamfusion.diffusion.priors.words import Understood, understand, words_of
from dreamfusion.errors import UserError


def understood(prior: PromptEncoder, prompt: str) -> Understood:
    """The caption that the prior is given for a prompt. Raises UserError if it cannot be understood.

    A prior without a word list is given what was typed.
    """
    words = prior.words if isinstance(prior, WordListedEncoder) else None
    said = Understood(prompt) if words is None else understand(prompt, words)
    require_known(prior, said.caption)
    return said


def understood_negative(prior: PromptEncoder, prompt: str) -> Understood:
    """The same for a negative prompt: words that the prior knows need not name one thing there."""
    if prior.vocabulary is not None and not unknown_words(prompt, prior.vocabulary):
        return Understood(prompt)
    return understood(prior, prompt)


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
