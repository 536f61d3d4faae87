"""What the priors that the studio offers understand, from their cards, without opening them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from dreamfusion import json_text
from dreamfusion.errors import UserError
from dreamfusion.files import expanded, kind_of_place
from dreamfusion.vocabulary import nearest, require_words, words_of

EMBEDDED = "embedded"


@dataclass(frozen=True)
class Offer:
    """A prior that may be asked for."""

    name: str
    """as on the command line"""
    title: str
    """what it calls itself"""
    vocabulary: frozenset[str] | None
    """its words; None for one that reads any"""
    nouns: tuple[str, ...] = ()
    """to begin with"""
    colours: tuple[str, ...] = ()


def offers(names: Sequence[str]) -> dict[str, Offer]:
    """The priors of these names: the embedded one, folders, hub ids. Raises UserError for a damaged card."""
    return {name: _offer(name) for name in dict.fromkeys((EMBEDDED, *names))}


def _offer(name: str) -> Offer:
    if name == EMBEDDED:
        folder = Path(str(files("dreamfusion"))) / "embedded" / "weights"
    else:
        folder = expanded(name)
        if kind_of_place(folder) != "folder":
            return Offer(name, name, None)  # on the hub, or not there: the worker will say
    card = folder / "card.json"
    if not card.exists():
        return Offer(name, folder.name, None)
    try:
        content = json_text.read(card)
        words = content["vocabulary"]
        lists = (tuple(map(str, content.get(key, ()))) for key in ("nouns", "colours"))
        return Offer(name, str(content["name"]), None if words is None else frozenset(map(str, words)), *lists)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{card} is no valid prior card ({error!r}): restore the file") from error


def require_offered(offered: Mapping[str, Offer], name: str, *texts: str) -> None:
    """Raise UserError for a prior that is not offered, and for words that it does not know."""
    if name not in offered:
        raise UserError(
            f"this studio does not offer the prior {name!r}: choose one of {', '.join(offered)},"
            f" or start the studio with --priors {name}"
        )
    for text in texts:
        require_words(offered[name].title, offered[name].vocabulary, text)


def understanding(offer: Offer, prompt: str) -> dict[str, object]:
    """What a prior makes of a prompt: every word, known or with known ones that are written alike; and in words.

    `caption` is what the prior is given, `notes` what is understood otherwise than typed, `error` why nothing is.
    """
    known = offer.vocabulary
    words = [
        {"word": word, "known": True, "nearest": []}
        if known is None or word in known
        else {"word": word, "known": False, "nearest": nearest(word, known)}
        for word in words_of(prompt)
    ]
    try:
        require_words(offer.title, known, prompt)
    except UserError as error:
        return {"words": words, "caption": "", "notes": [], "error": str(error)}
    return {"words": words, "caption": prompt, "notes": [], "error": ""}
