"""What people type, and what a small prior makes of it: a caption of its own words, or a refusal that says what to do.

A prior may have a word list, `words.ini` beside its card: for each of its nouns, colours and adjectives the words that
mean it, phrases that change nothing, and for what it does not know what is nearest in meaning. The shipped one
(`embedded/weights/words.ini`) shows the format.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from configparser import ConfigParser
from configparser import Error as FormatError
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import Literal, get_args

from dreamfusion.errors import UserError
from dreamfusion.files import read_lines

Kind = Literal[
    "nouns", "colours", "adjectives", "views", "left out", "counts", "between", "turned into", "not learned", "outside"
]
"""What words can be: a section of the file"""
Readings = Mapping[Kind, str]
"""What some words can be, and what they mean as that"""

_KINDS: tuple[Kind, ...] = get_args(Kind)
_TRANSLATED = ("nouns", "colours", "adjectives")
"""kinds of which the key of a line is a word too, the one that is meant"""
_JOINED = ("nouns", "left out", "outside")
"""kinds that may be written in one word or in several"""
_REFUSED = (None, "turned into", "not learned", "outside")
_ARTICLES = ("a", "an", "the")
_PLURALS = (
    ("s", ""), ("es", ""), ("ies", "y"), ("ves", "f"), ("ves", "fe"), ("men", "man"), ("mice", "mouse"),
    ("geese", "goose"), ("teeth", "tooth"), ("feet", "foot"), ("children", "child"),
)  # fmt: skip
_LONGEST = 6
"""words of a phrase"""
_SPELLED = 0.8
"""similarity, as difflib counts it, from which a word may be another one misspelled"""


@dataclass(frozen=True)
class WordList:
    """The words of `words.ini`."""

    lines: Mapping[str, Mapping[str, tuple[str, ...]]]
    """by section: what is meant, and the words for it, as in the file"""

    @cached_property
    def readings(self) -> Mapping[str, Readings]:
        """What words can be: in lower case, without articles and punctuation."""
        found: dict[str, dict[Kind, str]] = {}
        for words, kind, meaning in _entries(self.lines):
            found.setdefault(" ".join(_tokens(words)), {})[kind] = meaning
        return found

    @cached_property
    def joined(self) -> Mapping[str, str]:
        """Those words without spaces, and with them."""
        return {key.replace(" ", ""): key for key in self.of(_JOINED)}

    def of(self, kinds: Iterable[str]) -> list[str]:
        """The words that can be of one of these kinds."""
        return [key for key, readings in self.readings.items() if not readings.keys().isdisjoint(kinds)]

    def learned(self, adjective: str, noun: str) -> bool:
        """Whether the prior saw the two together."""
        return noun in self.lines["learned"].get(adjective, ())


@dataclass(frozen=True)
class Understood:
    """A caption of the prior's own words, and what in it is otherwise than typed, such as "couch: sofa"."""

    caption: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Part:
    """Some words of a text, as they stand there, what they can be, and what they are; None if they are not known."""

    typed: str
    readings: Readings
    kind: Kind | None = None

    def reads(self, *kinds: Kind) -> Kind | None:
        """The first of `kinds` that the words can be."""
        return next((kind for kind in kinds if kind in self.readings), None)

    def meant(self, noun: str, words: WordList) -> str | None:
        """The prior's word for it beside a noun; None if there is none.

        An adjective that was not learned with the noun is a colour if it can be one.
        """
        if self.kind in ("nouns", "views"):
            return self.readings[self.kind]
        if self.kind not in ("colours", "adjectives"):
            return None
        adjective = self.readings.get("adjectives")
        return adjective if adjective and words.learned(adjective, noun) else self.readings.get("colours")


@dataclass(frozen=True)
class _Thing:
    """A noun and what is said of it, in words of the prior."""

    noun: str
    colours: tuple[str, ...] = ()
    adjectives: tuple[str, ...] = ()

    @property
    def caption(self) -> str:
        return with_article(" ".join((*self.colours, *self.adjectives, self.noun)))


def words_of(prompt: str) -> list[str]:
    """The words of a text in order: lower case, without punctuation; a hyphen or an apostrophe separates two words."""
    return re.findall(r"[^\W_]+", prompt.lower())


def with_article(name: str) -> str:
    """The name after "a" or "an", as the training captions choose between them."""
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def read_words(path: Path) -> WordList:
    """Read a word list. Raises UserError if the file is damaged."""
    parser = ConfigParser(delimiters=(":",), comment_prefixes=("#",), interpolation=None)
    try:
        parser.read_string("\n".join(read_lines(path, "restore the file")))
        lines = {
            section: {key: tuple(word.strip() for word in text.split(",")) for key, text in parser[section].items()}
            for section in (*_KINDS, "learned", "tones")
        }
        lines["tones"]["words"]  # a line that must be there
    except (FormatError, KeyError) as error:
        raise UserError(f"{path} is no word list ({error!r}): restore the file") from error
    if empty := [key for section in lines.values() for key, words in section.items() if not all(map(_tokens, words))]:
        raise UserError(f"{path} has an empty word for {empty[0]}: restore the file")
    return WordList(lines)


def understand(text: str, words: WordList) -> Understood:
    """The caption that a text means: itself if it is of the prior's own words, else "a colour adjective noun".

    Raises UserError, with the nearest in meaning or the way to it, unless it means one thing that the prior knows.
    """
    parts = _parts(text, words)
    things = _things(parts, words)
    if not things or any(part.kind in _REFUSED for part in parts):
        raise _unknown(text, parts, things, words)
    if len({thing.noun for thing in things}) > 1 or any(part.kind == "counts" for part in parts):
        raise _several(things)
    thing = _Thing(
        things[0].noun,
        tuple(dict.fromkeys(colour for each in things for colour in each.colours)),
        tuple(dict.fromkeys(adjective for each in things for adjective in each.adjectives)),
    )
    if len(thing.colours) > 1:
        tries = " or ".join(f'"{replace(thing, colours=(colour,)).caption}"' for colour in thing.colours)
        raise UserError(f"the prior takes one colour for a thing, not {len(thing.colours)}: try {tries}")
    notes = _notes(parts, thing.noun, words)
    views = [part.readings["views"] for part in parts if part.kind == "views"]
    return Understood(", ".join([thing.caption, *views]), notes) if notes else Understood(text)


def _entries(lines: Mapping[str, Mapping[str, tuple[str, ...]]]) -> Iterator[tuple[str, Kind, str]]:
    """Words, what they are, and what they mean as that."""
    for kind in _KINDS:
        for key, words in lines[kind].items():
            if kind in _TRANSLATED:
                yield key, kind, key
            for word in words:
                yield word, kind, word if kind == "views" else key
                if kind == "left out":
                    yield f"{word} of", kind, key
    for colour, shades in lines["colours"].items():
        for tone in lines["tones"]["words"]:
            for shade in (colour, *shades):
                yield f"{tone} {shade}", "colours", colour


def _tokens(text: str) -> list[str]:
    return [word for word in words_of(text) if word not in _ARTICLES]


def _parts(text: str, words: WordList) -> list[_Part]:
    """The text cut into the longest phrases that the list knows, from left to right.

    What follows "made of" and the like is one part with it, to the end.
    """
    found = [match for match in re.finditer(r"[^\W_]+", text) if _tokens(match[0])]
    parts, place = list[_Part](), 0
    while place < len(found):
        span = found[place : place + _LONGEST]
        while not (readings := _look_up([match[0].lower() for match in span], words)) and len(span) > 1:
            span = span[:-1]
        span = found[place:] if "turned into" in readings else span
        parts.append(_Part(text[span[0].start() : span[-1].end()], readings))
        place += len(span)
    return _told_apart(parts)


def _look_up(tokens: Sequence[str], words: WordList) -> Readings:
    """What the words can be: as they stand, in the singular, or joined or separated otherwise. Empty if nothing."""
    *before, last = tokens
    stems = [last, *(last[: -len(end)] + stem for end, stem in _PLURALS if last.endswith(end))]
    forms = [" ".join([*before, stem]) for stem in stems]
    if not any("colours" in words.readings.get(token, ()) for token in tokens):
        forms += [words.joined.get("".join([*before, stem]), "") for stem in stems]
    return next((words.readings[form] for form in forms if form in words.readings), {})


def _told_apart(parts: Sequence[_Part]) -> list[_Part]:
    return [replace(part, kind=_kind(parts, place)) for place, part in enumerate(parts)]


def _kind(parts: Sequence[_Part], place: int) -> Kind | None:
    """What a part is, where it stands.

    A word that is a thing as well as a look (a rose, a rose vase) is the thing if no other follows. One that the prior
    does not know as a thing (an orange) is a look wherever there is a thing to have it.
    """
    part = parts[place]
    look = part.reads("adjectives", "colours", "not learned")
    if look and "nouns" in part.readings:
        return look if _thing_follows(parts[place + 1 :]) else "nouns"
    if "outside" in part.readings:
        look = look or part.reads("left out")
        apart = place > 0 and "between" in parts[place - 1].readings
        return look if look and not apart and any("nouns" in each.readings for each in parts) else "outside"
    return next(iter(part.readings), None)


def _thing_follows(parts: Sequence[_Part]) -> bool:
    looks = ("colours", "adjectives", "left out", "not learned")
    after = next((part for part in parts if part.reads("nouns", "outside") or not part.reads(*looks)), None)
    return after is not None and after.reads("nouns", "outside") is not None


def _things(parts: Sequence[_Part], words: WordList) -> list[_Thing]:
    """The things that are named, each with the looks before it; those at the end belong to the last."""
    said, things = list[_Part](), list[_Thing]()
    for part in parts:
        if part.kind in ("colours", "adjectives"):
            said.append(part)
        elif part.kind == "nouns":
            things.append(_thing(part.readings["nouns"], said, words))
            said = []
    return [*things, _thing(things[-1].noun, said, words)] if things and said else things


def _thing(noun: str, said: Sequence[_Part], words: WordList) -> _Thing:
    meant = [word for part in said if (word := part.meant(noun, words))]
    colours = tuple(word for word in meant if word in words.lines["colours"])
    return _Thing(noun, colours, tuple(word for word in meant if word not in colours))


def _notes(parts: Sequence[_Part], noun: str, words: WordList) -> tuple[str, ...]:
    """What is understood otherwise than typed."""
    meant = dict.fromkeys((part.typed, part.meant(noun, words)) for part in parts)
    renamed = [f"{typed}: {word}" for typed, word in meant if word and _tokens(typed) != words_of(word)]
    without = [typed for typed, word in meant if word is None]
    return (*renamed, *([f"left out: {', '.join(without)}"] if without else []))


def _several(things: Sequence[_Thing]) -> UserError:
    each = " and ".join(dict.fromkeys(f'"{thing.caption}"' for thing in things))
    return UserError(
        f"the prior makes one thing at a time: make {each}, then place as many as you like in one scene with"
        " `dreamfusion compose`, or have all of it made with `dreamfusion scene` (docs/scenes.md)"
    )


def _unknown(text: str, parts: Sequence[_Part], things: Sequence[_Thing], words: WordList) -> UserError:
    """What is not known, what is nearest to it, and a caption that works, if it can be told."""
    spelled = {part.typed: like for part in parts if not part.readings and (like := _spelled_like(part.typed, words))}
    read = [replace(part, readings=words.readings.get(spelled.get(part.typed, ""), part.readings)) for part in parts]
    single = [some[0] for some in (_things(_told_apart(read), words), things) if len({one.noun for one in some}) == 1]
    refused = [part for part in parts if part.kind in _REFUSED]
    described = dict.fromkeys(_described(part, spelled.get(part.typed, ""), words) for part in refused)
    said = f"does not know {'; '.join(described)}" if described else f"knows no thing in {text.strip()!r}"
    tries = f'try "{single[0].caption}", or ' if single and len(single[0].colours) <= 1 else ""
    return UserError(
        f"the prior {said}: {tries}use words it knows (`dreamfusion prior info` lists them), or a larger prior with"
        " --prior FOLDER"
    )


def _spelled_like(typed: str, words: WordList) -> str:
    """The word of the list that an unknown one is nearly, beginning with the same letter; "" if there is none."""
    alike = [word for word in words.of((*_TRANSLATED, "outside")) if word[0] == typed[0].lower()]
    return next(iter(get_close_matches(typed.lower(), alike, n=1, cutoff=_SPELLED)), "")


def _described(part: _Part, like: str, words: WordList) -> str:
    """An unknown part, and what is nearest to it; `like`: what it is spelled like."""
    notes = [f"spelled like {like}"] if like else []
    near = (part.readings or words.readings.get(like, {})).get("outside")
    if part.kind == "not learned":
        notes.append(f"it learned no {part.readings[part.kind]}")
    elif near:
        notes.append(f"nearest in meaning: {near}")
    return f"{part.typed!r}" + (f" ({'; '.join(notes)})" if notes else "")
