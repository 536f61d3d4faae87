"""From what a row says to what a run is told, with everything checked that can be checked before any run."""

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import cache, lru_cache
from itertools import chain
from pathlib import Path
from typing import Any

import torch

from dreamfusion import build, json_text, provenance
from dreamfusion.batch.manifest import OWN
from dreamfusion.config import Config
from dreamfusion.config.check import require_words, validate
from dreamfusion.config.kinds import BACKGROUNDS, FIELDS, LAWS, OBJECTIVES, with_kinds
from dreamfusion.config.presets import FOR_OBJECTIVES, preset
from dreamfusion.config.serialise import KIND, LARGEST, from_json, to_json
from dreamfusion.diffusion.priors import PriorOptions, PromptEncoder, open_prompt_encoder
from dreamfusion.diffusion.priors.folder import digest
from dreamfusion.diffusion.priors.kinds import kind_of
from dreamfusion.diffusion.priors.locate import locate, preset_for
from dreamfusion.diffusion.priors.opening import require_whole
from dreamfusion.diffusion.priors.vocabulary import understood, understood_negative
from dreamfusion.errors import UserError
from dreamfusion.files import expanded

CHOICES = {"field": FIELDS, "background": BACKGROUNDS, "distill": LAWS, "objective": OBJECTIVES}
"""Words of a row that stand for members of unions, as options of `generate` do"""
WHERE = ("device", "threads", "version", "prior")
"""Where and by what a run is made, which does not make it another one; `prior_sha256` says which prior"""
_RANGE = re.compile(r"(\d{1,19})(?:-(\d{1,19}))?")
MOST_SEEDS = 1_000_000
"""of one row"""
NAME_LENGTH = 16
"""hexadecimal digits of an item's name: two of a million items share one with a chance of 3 in 10^8"""


@dataclass(frozen=True)
class Wish:
    """What an item has for itself, of a row that is in order."""

    prompt: str
    negative: str
    seed: int
    understood: tuple[tuple[str, str], ...] = ()
    """`Config.understood`"""


@dataclass(frozen=True)
class Settings:
    """What items share: a configuration without words, the name of all that shapes a result, and who reads words."""

    config: Config
    digest: str
    reader: PromptEncoder


class Resolver:
    """Makes items of rows. What rows share is worked out once, so that a million rows take seconds."""

    def __init__(self, defaults: Mapping[str, Any], threads: int) -> None:
        """`defaults` are a row's values where it has none; `threads` of each run, where nothing says how many."""
        self._defaults, self._threads = _named(defaults), threads
        self._settings = lru_cache(maxsize=1024)(self._worked_out)
        self._captions = lru_cache(maxsize=65_536)(_captions)

    def __call__(self, values: Mapping[str, Any]) -> Iterator[tuple[Wish, Settings]]:
        """The items of a row, one for each of its seeds. Raises UserError, the first time that it is asked for one."""
        own = _named(values)
        seeded = own.keys() & {"seed", "seeds"}
        given = {name: value for name, value in self._defaults.items() if not seeded or name not in ("seed", "seeds")}
        given |= own
        prompt, negative = (_text(name, given.pop(name, "")) for name in ("prompt", "negative"))
        seeds = _seeds(given)
        require_words(prompt, negative)
        settings = self._settings(json.dumps(given, sort_keys=True))
        captions = self._captions(settings.reader, prompt, negative)
        for seed in seeds:
            yield Wish(prompt, negative, seed, captions), settings

    def settings(self) -> Settings:
        """What a row without settings of its own has."""
        own = {*OWN, "seeds"}
        return self._settings(json.dumps({k: v for k, v in self._defaults.items() if k not in own}, sort_keys=True))

    def _worked_out(self, given: str) -> Settings:
        config = _configured(json.loads(given))
        config = replace(config, threads=config.threads or self._threads)
        validate(replace(config, prompt="a thing"))
        saved = config.memory.embeddings and os.path.abspath(expanded(config.memory.embeddings))
        config = replace(config, memory=replace(config.memory, embeddings=saved))
        options = build.prior_options(config, torch.device("cpu"))
        found = _whole(config.prior, options)
        if config.prior_sha256 not in ("", found):
            provenance.require_prior(config)  # which says so
        config = provenance.with_provenance(replace(config, prior_sha256=found))
        reader = open_prompt_encoder(config.prior, options, Path(saved) if saved else None)
        return Settings(config, digest_of(config), reader)


def _captions(reader: PromptEncoder, prompt: str, negative: str) -> tuple[tuple[str, str], ...]:
    """`Config.understood`. Raises UserError for words that the prior does not understand."""
    pairs = ((prompt, understood(reader, prompt)), (negative, understood_negative(reader, negative)))
    return tuple((typed, said.caption) for typed, said in pairs if said.caption != typed)


@cache
def _whole(prior: str, options: PriorOptions) -> str:
    """The digest of a prior's denoiser. Raises UserError for a prior that would not open."""
    require_whole(prior, options)
    folder = locate(prior, options.texts, half=options.dtype is None)
    return digest(folder, kind_of(folder).network)


def digest_of(config: Config) -> str:
    """The name of everything in a configuration that shapes its result, but for its words and its seed."""
    values = {name: value for name, value in to_json(config).items() if name not in (*WHERE, *OWN)}
    values["memory"] = {**values["memory"], "embeddings": ""}
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:NAME_LENGTH]


def name_of(prompt: str, negative: str, seed: int, digest: str) -> str:
    """The name of an item: a hash of its configuration and its prior, wherever it is made."""
    own = json.dumps([prompt, negative, seed, digest])
    return hashlib.sha256(own.encode()).hexdigest()[:NAME_LENGTH]


def _named(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values by the names of fields: options have dashes."""
    return {name.strip().lower().replace("-", "_"): value for name, value in values.items()}


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise UserError(f"{name} must be a text, not {value!r}")
    return value.strip()


def _seeds(given: dict[str, Any]) -> Sequence[int]:
    """What `seed` or `seeds` say, taken out of the values: a number, several, or text as "0-4, 7"."""
    if "seed" in given and "seeds" in given:
        raise UserError("it has both `seed` and `seeds`: give one of them")
    value = given.pop("seeds", given.pop("seed", 0))
    match value:
        case int() if not isinstance(value, bool):
            seeds = [value]
        case list() if all(type(one) is int for one in value):
            seeds = value
        case str() if all(spans := [_RANGE.fullmatch(part.strip()) for part in value.split(",")]):
            ranges = [range(int(span[1]), int(span[2] or span[1]) + 1) for span in spans if span]
            if sum(max(0, each.stop - each.start) for each in ranges) > MOST_SEEDS:  # `len` ends at 2^63
                raise UserError(f"seeds are more than {MOST_SEEDS}: write more rows")
            seeds = list(chain.from_iterable(ranges))
        case _:
            seeds = []
    if not seeds or not all(0 <= seed <= LARGEST for seed in seeds):
        raise UserError(f"seeds must be whole numbers from 0 to 2^63 - 1, such as 3, [0, 1, 2] or 0-4, not {value!r}")
    return seeds


def _configured(given: dict[str, Any]) -> Config:
    """A preset (if none is named, the prior's) with fields changed.

    Raises UserError for a prior that is none, fields that are none, and values of another type.
    """
    named, prior = given.pop("preset", None), _text("prior", given.get("prior", Config.prior))
    objective = given.get("objective")
    own = FOR_OBJECTIVES.get(objective) if isinstance(objective, str) else None
    base = preset((own or preset_for(prior)) if named is None else _text("preset", named))
    chosen = {name: given.pop(name, None) for name in CHOICES}
    for name, value in chosen.items():
        if value is not None and value not in list(CHOICES[name]):  # it may be a list, which no table looks up
            raise UserError(f"{name} must be {' or '.join(CHOICES[name])}, not {value!r}")
    values = to_json(with_kinds(base, **chosen))
    for name, value in given.items():
        _put(values, _found(values, name), value)
    return from_json(Config, values)


def _found(values: Mapping[str, Any], name: str) -> list[str]:
    """Where a field is: its whole path with dots, or the last part of it if there is only one such field."""
    paths = [path for path in _paths(values) if path not in ("version", "custom", "preset", *OWN)]
    found = [path for path in paths if path == name] or [path for path in paths if path.endswith(f".{name}")]
    if len(found) == 1:
        return found[0].split(".")
    near = found or get_close_matches(name, paths, n=3)
    raise UserError(f"there is no setting {name!r}{f': did you mean {chr(32).join(near)}?' if near else ''}")


def _paths(values: Mapping[str, Any], before: str = "") -> Iterator[str]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _paths(value, f"{before}{name}.")
        elif name != KIND:
            yield before + name


def _put(values: dict[str, Any], path: Sequence[str], value: Any) -> None:
    """Change a field; text in the place of something else, as tables have it, is read as JSON if it is some."""
    *folders, last = path
    for name in folders:
        values = values[name]
    if isinstance(value, str) and not isinstance(values[last], str):
        with suppress(ValueError):  # which then has the wrong type
            value = json_text.parse(value.lower().encode())
    values[last] = value
