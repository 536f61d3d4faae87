"""The vocabulary of a small prior, checked before any work starts."""

from dreamfusion import vocabulary
from dreamfusion.diffusion.priors.protocol import PromptEncoder, WordListedEncoder
from dreamfusion.vocabulary import Lexicon
from dreamfusion.words import Understood


def understood(prior: PromptEncoder, prompt: str) -> Understood:
    """The caption that the prior is given for a prompt. Raises UserError if it cannot be understood.

    A prior without a word list is given what was typed.
    """
    return vocabulary.understood(_lexicon(prior), prompt)


def understood_negative(prior: PromptEncoder, prompt: str) -> Understood:
    """The same for a negative prompt: words that the prior knows need not name one thing there."""
    return vocabulary.understood_negative(_lexicon(prior), prompt)


def require_known(prior: PromptEncoder, prompt: str) -> None:
    """Raises UserError if the prior lists the words it knows and the prompt has others."""
    vocabulary.require_known(_lexicon(prior), prompt)


def require_sentences(prior: PromptEncoder) -> None:
    """Raises UserError for a prior that does not read whole sentences."""
    vocabulary.require_sentences(_lexicon(prior))


def _lexicon(prior: PromptEncoder) -> Lexicon:
    return Lexicon(prior.name, prior.vocabulary, prior.words if isinstance(prior, WordListedEncoder) else None)
