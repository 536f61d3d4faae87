"""What the priors that the studio offers understand, from their cards, without opening them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from dreamfusion import json_text
from dreamfusion.config.presets import FAST, suited
from dreamfusion.errors import UserError
from dreamfusion.files import expanded, kind_of_place
from dreamfusion.vocabulary import Lexicon, nearest, understood, understood_negative
from dreamfusion.words import read_words, words_of

EMBEDDED = "embedded"


@dataclass(frozen=True)
class Offer:
    """A prior that may be asked for."""

    name: str
    """as on the command line"""
    lexicon: Lexicon
    nouns: tuple[str, ...] = ()
    """to begin with"""
    colours: tuple[str, ...] = ()
    preset: str = FAST.preset
    """what a run with it begins from"""


def offers(names: Sequence[str]) -> dict[str, Offer]:
    """The priors of these names: the embedded one, folders, hub ids. Raises UserError for a damaged card."""
    return {name: _offer(name) for name in dict.fromkeys((EMBEDDED, *names))}


def _offer(name: str) -> Offer:
    if name == EMBEDDED:
        folder = Path(str(files("dreamfusion"))) / "embedded" / "weights"
    else:
        folder = expanded(name)
        if kind_of_place(folder) != "folder":
            return Offer(name, Lexicon(name))  # on the hub, or not there: the worker will say
    card, words = folder / "card.json", folder / "words.ini"
    if not card.exists():
        return Offer(name, Lexicon(folder.name), preset=_preset(folder))
    try:
        content = json_text.read(card)
        known = None if content["vocabulary"] is None else frozenset(map(str, content["vocabulary"]))
        nouns, colours = (tuple(map(str, content.get(key, ()))) for key in ("nouns", "colours"))
        lexicon = Lexicon(str(content["name"]), known, read_words(words) if words.exists() else None)
        return Offer(name, lexicon, nouns, colours)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{card} is no valid prior card ({error!r}): restore the file") from error


def _preset(folder: Path) -> str:
    """The preset for a pipeline folder; the embedded prior's for one that is damaged, of which the worker will tell."""
    try:
        index = json_text.read(folder / "model_index.json")
        parts = [value for value in index.values() if isinstance(value, list)]
        return suited(str(index.get("_class_name")), (str(part[0]) for part in parts if part))
    except (OSError, ValueError, AttributeError):
        return FAST.preset


def require_offered(offered: Mapping[str, Offer], name: str, prompt: str, negative: str) -> None:
    """Raise UserError for a prior that is not offered, and for words that it does not understand."""
    if name not in offered:
        raise UserError(
            f"this studio does not offer the prior {name!r}: choose one of {', '.join(offered)},"
            f" or start the studio with --priors {name}"
        )
    understood(offered[name].lexicon, prompt)
    understood_negative(offered[name].lexicon, negative)


def understanding(offer: Offer, prompt: str) -> dict[str, object]:
    """What a prior makes of a prompt: every word, known or with known ones that are near to it; and in words.

    `caption` is what the prior is given, `notes` what is understood otherwise than typed, `error` why nothing is.
    """
    words = words_of(prompt)
    try:
        said = understood(offer.lexicon, prompt)
    except UserError as error:
        return {
            "words": [_told(offer.lexicon, word) for word in words],
            "caption": "",
            "notes": [],
            "error": str(error),
        }
    known = [{"word": word, "known": True, "nearest": []} for word in words]
    return {"words": known, "caption": said.caption, "notes": list(said.notes), "error": ""}


def _told(lexicon: Lexicon, word: str) -> dict[str, object]:
    """Whether a word is known to the prior or its word list, and else what is near to it, in meaning or letters."""
    listed = {} if lexicon.words is None else lexicon.words.readings.get(word, {})
    vocabulary = lexicon.vocabulary or frozenset()
    known = lexicon.vocabulary is None or word in vocabulary or bool(listed.keys() - {"outside"})
    near = [] if known else listed["outside"].split(", ") if listed else nearest(word, vocabulary)
    return {"word": word, "known": known, "nearest": near}
