"""What a sentence says of a scene: which things, how many, and where they are to each other.

A sentence is clauses, joined by "and" or "with". A clause names things and then, again and again, a place word and
things: "a frog on a table beside a lamp". A place word speaks of what stands right before it (the table is beside the
lamp); after a comma or "and" of what the clause began with ("a frog on a table, beside a lamp": the frog is). "it" and
"them" are what was named right before the "and", and before a "with" what the clause began with; "the frog" is a frog
that was named before. Whatever else is refused.
"""

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from dreamfusion.errors import UserError
from dreamfusion.words import Understood, WordList, with_article

Place = Literal["on", "under", "in", "beside", "left", "right", "front", "behind", "around"]
"""Where something is as seen by whoever looks at the fronts of the things: right is +x, before is +z"""
_PHRASES: tuple[tuple[Place, bool, str], ...] = (
    ("on", False, "on, upon, onto, on top of, atop, riding, riding on"),
    ("under", False, "under, underneath, beneath, below"),
    ("under", True, "over, above"),
    ("in", False, "in, inside, inside of, into, within"),
    ("in", True, "full of, filled with, containing, holding"),
    ("beside", False, "beside, next to, by, near, alongside, close to, at the side of, beside of"),
    ("left", False, "left of, to the left of, on the left of, on the left side of, at the left of"),
    ("right", False, "right of, to the right of, on the right of, on the right side of, at the right of"),
    ("front", False, "in front of, before, at the front of"),
    ("behind", False, "behind, in back of, at the back of, behind of"),
    ("around", False, "around, all around, surrounding, round about"),
    ("around", True, "surrounded by, encircled by, ringed by"),
)
PLACES: dict[str, tuple[Place, bool]] = {
    phrase: (place, turned) for place, turned, phrases in _PHRASES for phrase in phrases.split(", ")
}
"""Phrases, what they mean, and whether it is what follows that is in that place"""
COUNTS = {
    "a": 1, "an": 1, "one": 1, "the": 1, "another": 1, "single": 1, "two": 2, "both": 2, "three": 3, "four": 4,
    "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9, "ten": 10, "eleven": 11, "twelve": 12, "dozen": 12,
    "couple of": 2, "pair of": 2, "few": 3, "some": 3, "several": 4, "many": 6, "lots of": 6,
}  # fmt: skip
VAGUE = ("few", "some", "several", "many", "lots of")
MOST = 12
_SCALES = {"tiny": 0.5, "small": 0.7, "little": 0.7, "big": 1.4, "large": 1.4, "huge": 2.0, "giant": 2.5}
_PRONOUNS = ("it", "them", "him", "her")
_SILENT = (
    "is", "are", "that", "which", "who", "there", "sits", "sitting", "stands", "standing", "lies", "lying", "placed",
    "resting", "directly", "right", "just", "put", "left", "sit", "stand", "lie", "hidden",
)  # fmt: skip
"""Words before a place word that change nothing there"""
_BEGINNING = re.compile(
    r"^\s*(?:an?\s+)?(?:scene|picture|photo|photograph|image|still life|render|rendering|there\s+(?:is|are))"
    r"(?:\s+(?:of|with|showing))?\s+",
    re.IGNORECASE,
)
_LONGEST = 6
_PLURALS = (
    ("ies", "y"),
    ("ves", "f"),
    ("ches", "ch"),
    ("shes", "sh"),
    ("sses", "ss"),
    ("xes", "x"),
    ("uses", "us"),
    ("s", ""),
)

Understand = Callable[[str], Understood]
"""What a prior makes of a prompt. Raises UserError"""


@dataclass(frozen=True)
class Thing:
    """Something that is made once and stands in the scene as often as `count` says."""

    caption: str
    """the prompt of its run, in the prior's words: "a red apple" """
    count: int = 1
    scale: float = 1.0
    """how large it is beside others of its kind, from words such as small"""


@dataclass(frozen=True)
class Relation:
    """One thing is in a place beside another; numbers among the things."""

    place: Place
    thing: int
    other: int


@dataclass(frozen=True)
class Sentence:
    """What was understood."""

    text: str
    things: tuple[Thing, ...]
    relations: tuple[Relation, ...]
    notes: tuple[str, ...] = ()
    """what is taken otherwise than typed, or guessed"""


@dataclass(frozen=True)
class _Token:
    kind: Literal["place", "and", "with", "comma", "words"]
    text: str


@dataclass
class _Reader:
    """Reads tokens from left to right."""

    text: str
    words: WordList | None
    understand: Understand
    things: list[Thing] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    """of the things, as typed"""
    relations: list[Relation] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    head: list[int] = field(default_factory=list)
    """what the clause began with"""
    before: list[int] = field(default_factory=list)
    """what "it" means"""
    last: list[int] = field(default_factory=list)
    """what was named last"""
    pending: tuple[Place, bool] | None = None
    begins: bool = True
    """whether a place word that comes now would speak of the head"""

    def take(self, token: _Token, after: Sequence[_Token]) -> None:
        match token.kind:
            case "place":
                self._place(token)
            case "words" if self.pending is not None:
                self._relate(self._named(token.text))
            case "words":
                self._begin(self._named(token.text), joined=self.begins)
            case "comma" | "and":
                self._require(self.pending is None, token.text)
                self.begins = True
                named = bool(after) and after[0].kind == "words"
                if named and self.last != self.head:  # a new clause, unless the head itself goes on
                    self._close(self.last)
            case "with":
                self._require(self.pending is None and bool(self.head), token.text)
                self._close(self.head)

    def end(self) -> None:
        self._require(self.pending is None and bool(self.things), "the end")

    def _place(self, token: _Token) -> None:
        self._require(self.pending is None and bool(self.head), token.text)
        self.pending = PLACES[token.text]
        if self.begins:
            self.last = self.head
        self.begins = False

    def _relate(self, others: list[int]) -> None:
        assert self.pending is not None
        place, turned = self.pending
        pairs = [(thing, other) for thing in self.last for other in others if thing != other]
        self._require(bool(pairs), self.names[others[0]])
        self.relations += [Relation(place, *(reversed(pair) if turned else pair)) for pair in pairs]
        self.last, self.pending = others, None

    def _begin(self, named: list[int], joined: bool) -> None:
        self._require(joined, self.names[named[0]])
        self.head = [*self.head, *named]
        self.last, self.begins = self.head, True

    def _close(self, meant: list[int]) -> None:
        self.before, self.head, self.last, self.begins = meant, [], [], True

    def _named(self, text: str) -> list[int]:
        """The numbers of what some words name: new things, or such as were named before."""
        bare = text.lower()
        if bare in _PRONOUNS:
            if self.before:
                return self.before
            self._require(len(self.head) > 1, text)  # "a frog and a cat beside it"
            self.last = self.head[-1:]
            return self.head[:-1]
        if bare.startswith("the "):
            known = [number for number, name in enumerate(self.names) if _ends_with(name, bare[4:])]
            if known:
                return known[-1:]
        count, rest = _count(bare)
        if not rest:
            raise _not_understood(self.text, text)
        single = _single(rest, self.words) if count != 1 else rest
        if count is None:
            count = 1 if single == rest else 3
        if bare != rest and next((word for word in VAGUE if bare.removeprefix("a ").startswith(word)), ""):
            self.notes.append(f"{bare}: {count}")
        elif bare == rest and count > 1:
            self.notes.append(f"{bare}: {count}, as no number is said")
        if count > MOST:
            raise UserError(f"{text}: a scene holds at most {MOST} of a thing")
        self._add(rest, single, count)
        return [len(self.things) - 1]

    def _add(self, typed: str, single: str, count: int) -> None:
        inner = [word for word in typed.split() if word in COUNTS and word != "single"]
        if inner:
            raise _not_understood(self.text, " ".join(typed.split()[: typed.split().index(inner[0])][-1:]) or typed)
        scale = math.prod(_SCALES.get(word, 1.0) for word in single.split())
        said = self.understand(with_article(" ".join(word for word in single.split() if word not in _SCALES) or single))
        self.notes += said.notes
        self.things.append(Thing(said.caption, count, scale))
        self.names.append(typed)

    def _require(self, fine: bool, where: str) -> None:
        if not fine:
            raise _not_understood(self.text, where)


def parse(text: str, understand: Understand, words: WordList | None = None) -> Sentence:
    """What a sentence says. `words`: the prior's word list, if it has one.

    Raises UserError for words that are not understood, by the grammar or by the prior, with the way to say it.
    """
    reader = _Reader(text, words, understand)
    tokens = _tokens(_BEGINNING.sub("", text), words)
    for number, token in enumerate(tokens):
        reader.take(token, tokens[number + 1 :])
    reader.end()
    notes = [*reader.notes, *_unplaced(reader)]
    return Sentence(text.strip(), tuple(reader.things), tuple(reader.relations), tuple(dict.fromkeys(notes)))


def _unplaced(reader: _Reader) -> list[str]:
    placed = {number for each in reader.relations for number in (each.thing, each.other)}
    return [
        f"{name}: nothing is said of where it is, so it stands beside the rest"
        for number, name in enumerate(reader.names)
        if number not in placed and number > 0
    ]


def _tokens(text: str, words: WordList | None) -> list[_Token]:
    """Place words, joining words, and what stands between them; silent words before a place word are gone."""
    found = re.findall(r"[^\W_]+(?:'[^\W_]+)?|,", text.lower())
    tokens, kept, place = list[_Token](), list[str](), 0

    def close() -> None:
        while kept and kept[-1] in _SILENT:
            kept.pop()
        if kept:
            tokens.append(_Token("words", " ".join(kept)))
        kept.clear()

    while place < len(found):
        word = found[place]
        if (length := _phrase(found, place, words)) > 1:  # "corn on the cob" is a thing
            kept += [word for word in found[place : place + length] if word not in ("a", "an", "the")]
            place += length
            continue
        phrase = next((" ".join(span) for span in _spans(found, place) if " ".join(span) in PLACES), "")
        if phrase:
            close()
            tokens.append(_Token("place", phrase))
        elif word in ("and", "plus", "with", ","):
            close()
            tokens.append(_Token("and" if word == "plus" else "comma" if word == "," else word, word))  # type: ignore[arg-type]  # one of the four
        else:
            kept.append(word)
        place += max(1, len(phrase.split()))
    close()
    return tokens


def _spans(found: Sequence[str], place: int) -> list[list[str]]:
    """The words from a place on, the longest span first."""
    return [list(found[place : place + length]) for length in range(_LONGEST, 0, -1)]


def _phrase(found: Sequence[str], place: int, words: WordList | None) -> int:
    """How many words from a place on are one expression of the list that is no place word; 0 if none."""
    if words is None:
        return 0
    for span in _spans(found, place):
        key = " ".join(word for word in span if word not in ("a", "an", "the"))
        readings = words.readings.get(key, {})
        if len(key.split()) > 1 and span[0] not in COUNTS and readings.keys() & {"nouns", "outside", "turned into"}:
            return len(span)
    return 0


def _count(words: str) -> tuple[int | None, str]:
    """The number that some words begin with, None if none is said, and the words after it."""
    count, rest = None, words.split()
    while rest:
        pair = " ".join(rest[:2])
        if pair in COUNTS:
            count, rest = max(count or 1, COUNTS[pair]), rest[2:]
        elif rest[0] in COUNTS:
            count, rest = max(count or 1, COUNTS[rest[0]]), rest[1:]
        elif rest[0].isdecimal() and len(rest[0]) < 4:
            count, rest = int(rest[0]), rest[1:]
        else:
            break
    return count, " ".join(rest)


def _single(name: str, words: WordList | None) -> str:
    """A name in the singular; itself if it is in it."""
    *before, last = name.split()
    if words is not None and (last in words.readings or " ".join([*before, last]) in words.readings):
        return name
    stems = [last[: -len(end)] + stem for end, stem in _PLURALS if last.endswith(end)]
    stems = [stem for stem in stems if len(stem) > 2]
    if last.endswith("ss") or not stems:
        return name
    known = [stem for stem in stems if words is not None and stem in words.readings]
    return " ".join([*before, (known or stems)[0]])


def _ends_with(name: str, words: str) -> bool:
    return name == words or name.endswith(f" {words}")


def _not_understood(text: str, where: str) -> UserError:
    return UserError(
        f"{text.strip()!r} is not understood at {where!r}: say things and where they are, as in"
        f' "two apples in a bowl on a table"; place words are on, in, under, beside,'
        " left of, right of, in front of, behind, around"
    )
