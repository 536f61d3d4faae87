"""The vocabulary of a small prior, checked before any work starts."""

from dreamfusion.diffusion.priors.protocol import PromptEncoder
from dreamfusion.vocabulary import require_words


def require_known(prior: PromptEncoder, prompt: str) -> None:
    """Raises UserError if the prior lists the words it knows and the prompt has others."""
    require_words(prior.name, prior.vocabulary, prompt)
