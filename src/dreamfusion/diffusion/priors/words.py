"""What people type, and what a small prior makes of it: a caption of its own words, or a refusal that says what to do.

A prior may have a word list, `words.ini` beside its card: for each of its nouns, colours and adjectives the words that
mean it, phrases that change nothing, and for what it does not know what is nearest in meaning. The shipped one
(`embedded/weights/words.ini`) shows the format.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from configparser import ConfigParser
from configparser import Error as FormatError
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import Literal

from dreamfusion.errors import UserError
from dreamfusion.files import read_lines

Kind = Literal["noun", "colour", "adjective", "view", "left out", "count", "between", "turned", "not learned", "outside"]
Readings = Mapping[Kind, str]
"""What some words can be, and what they mean as that"""

_ARTICLES = ("a", "an", "the")
_SECTIONS: dict[str, Kind] = {
    "nouns": "noun", "colours": "colour", "adjectives": "adjective", "views": "view", "left out": "left out",
    "counts": "count", "between": "between", "turned into": "turned",
    "not learned": "not learned", "outside": "outside",
}  # fmt: skip
_TRANSLATED = ("noun", "colour", "adjective")
"""kinds of which the key of a line is a word too, the one that is meant"""
_REFUSED = ("turned", "not learned", "outside")
_JOINED = ("noun", "left out", "outside")
"""kinds that may be written in one word or in several"""
_PLURALS = (
    ("ies", "y"), ("ves", "f"), ("ves", "fe"), ("men", "man"), ("mice", "mouse"), ("geese", "goose"),
    ("teeth", "tooth"), ("feet", "foot"), ("children", "child"), ("es", ""), ("s", ""),
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
        return {key.replace(" ", ""): key for key, kinds in self.readings.items() if not kinds.keys().isdisjoint(_JOINED)}

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
    """Some words of a text, as they stand there, and what they can be."""

    typed: str
    readings: Readings

    def reads(self, *kinds: Kind) -> Kind | None:
        """The first of `kinds` that the words can be."""
        return next((kind for kind in kinds if kind in self.readings), None)


@dataclass(frozen=True)
class _Thing:
    """A noun and what is said of it, in words of the prior."""

    noun: str
    colours: tuple[str, ...]
    adjectives: tuple[str, ...]

    @property
    def caption(self) -> str:
        return with_article(" ".join((*self.colours, *self.adjectives, self.noun)))


def words_of(prompt: str) -> list[str]:
    """The words of a text in order: lower case, without punctuation; a hyphen or an apostrophe separates two words."""
    return [word.lower() for word in re.findall(r"[^\W_]+", prompt)]


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
            for section in (*_SECTIONS, "learned", "tones")
        }
    except (FormatError, KeyError) as error:
        raise UserError(f"{path} is no word list ({error!r}): restore the file") from error
    if empty := [key for section in lines.values() for key, words in section.items() if not all(map(_tokens, words))]:
        raise UserError(f"{path} has no words for {empty[0]}: restore the file")
    return WordList(lines)


def understand(text: str, words: WordList) -> Understood:
    """The caption that a text means: itself if it is of the prior's own words, else "a colour adjective noun".

    Raises UserError, with the nearest in meaning or the way to it, unless it means one thing that the prior knows.
    """
    parts = _parts(text, words)
    kinds = [_kind(parts, place) for place in range(len(parts))]
    things = _things(parts, kinds, words)
    unknown = [pair for pair in zip(parts, kinds, strict=True) if pair[1] in (None, *_REFUSED)]
    if unknown or not things:
        raise _unknown(text, unknown, things, _corrected(parts, words))
    if len({thing.noun for thing in things}) > 1 or "count" in kinds:
        raise _several([thing.caption for thing in things])
    thing = _Thing(things[0].noun, *(_distinct(things, name) for name in ("colours", "adjectives")))
    if len(thing.colours) > 1:
        raise _colourful(thing)
    notes = _notes(parts, kinds, thing.noun, words)
    if not notes:
        return Understood(text)
    views = [part.readings["view"] for part, kind in zip(parts, kinds, strict=True) if kind == "view"]
    return Understood(", ".join([thing.caption, *views]), notes)


def _entries(lines: Mapping[str, Mapping[str, tuple[str, ...]]]) -> Iterator[tuple[str, Kind, str]]:
    """Words, what they are, and what they mean as that."""
    for section, kind in _SECTIONS.items():
        for key, words in lines[section].items():
            own = (key,) if kind in _TRANSLATED else ()
            for word in (*own, *words):
                yield word, kind, word if kind == "view" else key
                if kind == "left out":
                    yield f"{word} of", kind, key
    for colour, shades in lines["colours"].items():
        for tone in lines["tones"]["words"]:
            for shade in (colour, *shades):
                yield f"{tone} {shade}", "colour", colour


def _tokens(text: str) -> list[str]:
    return [word for word in words_of(text) if word not in _ARTICLES]


def _parts(text: str, words: WordList) -> list[_Part]:
    """The text cut into the longest phrases that the list knows, from left to right.

    What follows "made of" and the like is one part with it, to the end.
    """
    found = [match for match in re.finditer(r"[^\W_]+", text) if match[0].lower() not in _ARTICLES]
    parts, place = list[_Part](), 0
    while place < len(found):
        span = found[place : place + _LONGEST]
        while not (readings := _look_up([match[0].lower() for match in span], words)) and len(span) > 1:
            span = span[:-1]
        end = found[-1].end() if "turned" in readings else span[-1].end()
        parts.append(_Part(text[span[0].start() : end], readings))
        place = len(found) if "turned" in readings else place + len(span)
    return parts


def _look_up(tokens: Sequence[str], words: WordList) -> Readings:
    """What the words can be: as they stand, in the singular, or joined or separated otherwise. Empty if nothing."""
    *before, last = tokens
    stems = [last, *(last[: -len(end)] + stem for end, stem in _PLURALS if last.endswith(end))]
    forms = [" ".join([*before, stem]) for stem in stems]
    if not any("colour" in words.readings.get(token, ()) for token in tokens):
        forms += [words.joined["".join([*before, stem])] for stem in stems if "".join([*before, stem]) in words.joined]
    return next((words.readings[form] for form in forms if form in words.readings), {})


def _kind(parts: Sequence[_Part], place: int) -> Kind | None:
    """What a part is, where it stands; None if it is not known.

    A word that is a colour or an adjective as well as a thing (a rose vase, a rose) is the thing if no other follows.
    """
    part = parts[place]
    said = part.reads("adjective", "colour", "not learned")
    if said and "noun" in part.readings:
        return said if _thing_follows(parts, place + 1) else "noun"
    if "outside" in part.readings:
        other = said or part.reads("left out")
        beside = any("noun" in each.readings for each in parts)
        listed = place > 0 and "between" in parts[place - 1].readings
        return other if other and beside and not listed else "outside"
    return next(iter(part.readings), None)


def _thing_follows(parts: Sequence[_Part], place: int) -> bool:
    for part in parts[place:]:
        if part.reads("noun", "outside"):
            return True
        if not part.reads("colour", "adjective", "left out", "not learned"):
            return False
    return False


def _things(parts: Sequence[_Part], kinds: Sequence[Kind | None], words: WordList) -> list[_Thing]:
    """The things that are named, each with the colours and adjectives before it; those at the end belong to the last."""
    said, things = list[_Part](), list[_Thing]()
    for part, kind in zip(parts, kinds, strict=True):
        if kind in ("colour", "adjective"):
            said.append(part)
        elif kind == "noun":
            things.append(_thing(part.readings["noun"], said, words))
            said = []
    if things and said:
        things.append(_thing(things[-1].noun, said, words))
    return things


def _thing(noun: str, said: Sequence[_Part], words: WordList) -> _Thing:
    meant = [_meant(part, noun, words) for part in said]
    colours, adjectives = (tuple(word for word in meant if word in words.lines[s]) for s in ("colours", "adjectives"))
    return _Thing(noun, colours, adjectives)


def _meant(part: _Part, noun: str, words: WordList) -> str | None:
    """What an adjective or a colour beside a noun means; None if nothing.

    An adjective that was not learned with the noun is a colour if it can be one.
    """
    adjective = part.readings.get("adjective")
    return adjective if adjective and words.learned(adjective, noun) else part.readings.get("colour")


def _distinct(things: Sequence[_Thing], name: Literal["colours", "adjectives"]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(word for thing in things for word in getattr(thing, name)))


def _notes(parts: Sequence[_Part], kinds: Sequence[Kind | None], noun: str, words: WordList) -> tuple[str, ...]:
    """What is understood otherwise than typed."""
    renamed, without = list[str](), list[str]()
    for part, kind in zip(parts, kinds, strict=True):
        meant = _meant(part, noun, words) if kind in ("colour", "adjective") else part.readings.get(kind or "noun")
        if kind not in (*_TRANSLATED, "view") or meant is None:
            without.append(part.typed)
        elif _tokens(part.typed) != words_of(meant):
            renamed.append(f"{part.typed}: {meant}")
    return (*dict.fromkeys(renamed), *([f"left out: {', '.join(without)}"] if without else []))


def _colourful(thing: _Thing) -> UserError:
    tries = " or ".join(f'"{with_article(f"{colour} {thing.noun}")}"' for colour in thing.colours)
    return UserError(f"the prior takes one colour for a thing, not {len(thing.colours)}: try {tries}")


def _several(captions: Sequence[str]) -> UserError:
    each = " and ".join(f'"{caption}"' for caption in dict.fromkeys(captions))
    return UserError(
        f"the prior makes one thing at a time: make {each}, then place as many as you like in one scene with"
        " `dreamfusion compose` (docs/meshes-and-viewer.md)"
    )


def _unknown(
    text: str, unknown: Sequence[tuple[_Part, Kind | None]], things: Sequence[_Thing], corrected: "_Corrected"
) -> UserError:
    """What is not known, what is nearest to it, and a caption that works, if it can be told."""
    single = [some[0] for some in (corrected.things, things) if len({(each.noun) for each in some}) == 1]
    tries = f'try "{single[0].caption}", or ' if single and len(single[0].colours) <= 1 else ""
    described = "; ".join(dict.fromkeys(corrected.described(part, kind) for part, kind in unknown))
    said = f"does not know {described}" if described else f"knows no thing in {text.strip()!r}"
    return UserError(
        f"the prior {said}: {tries}use words it knows (`dreamfusion prior info` lists them), or a larger prior with"
        " --prior FOLDER"
    )


@dataclass(frozen=True)
class _Corrected:
    """A text whose unknown words are read as the words that they are spelled like."""

    things: Sequence[_Thing]
    spelled: Mapping[str, str]
    """by unknown words: what they are spelled like"""
    words: WordList

    def described(self, part: _Part, kind: Kind | None) -> str:
        """A part that is not known, and what is nearest to it."""
        like = self.spelled.get(part.typed, "")
        near = (part.readings or self.words.readings.get(like, {})).get("outside", "")
        notes = [f"spelled like {like}"] if like else []
        if kind == "not learned":
            notes.append(f"it learned no {part.readings[kind]}")
        elif near:
            notes.append(f"nearest in meaning: {near}")
        return f"{part.typed!r}" + (f" ({'; '.join(notes)})" if notes else "")


def _corrected(parts: Sequence[_Part], words: WordList) -> _Corrected:
    known = [key for key, kinds in words.readings.items() if not kinds.keys().isdisjoint((*_TRANSLATED, "outside"))]
    spelled = {}
    for part in parts:
        alike = [word for word in known if not part.readings and word[0] == part.typed[0].lower()]
        if near := get_close_matches(part.typed.lower(), alike, n=1, cutoff=_SPELLED):
            spelled[part.typed] = near[0]
    read = [_Part(part.typed, words.readings.get(spelled.get(part.typed, ""), part.readings)) for part in parts]
    things = _things(read, [_kind(read, place) for place in range(len(read))], words) if spelled else []
    return _Corrected(things, spelled, words)
