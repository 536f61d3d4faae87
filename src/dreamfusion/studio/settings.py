"""From what a page or a program asks for to a configuration, with the messages of the command line."""

import ast
import inspect
import textwrap
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Any, Literal, get_args, get_origin, get_type_hints

from dreamfusion.config import Config, RefineConfig
from dreamfusion.config.check import require_bounds, validate
from dreamfusion.config.presets import PRESETS, preset
from dreamfusion.config.serialise import KIND, from_json, to_json
from dreamfusion.errors import UserError

_OWN = ("version", "custom", "understood", "prior_sha256", "preset")
"""fields that a run fills in by itself"""


def config_from(wanted: Mapping[str, Any]) -> Config:
    """The configuration of a JSON object: `preset` and any of its fields, nested as in `config.json`.

    Raises UserError for what is wrong with it.
    """
    name = wanted.get("preset", "fast")
    if not isinstance(name, str):
        raise UserError(f"unknown preset {name!r}: use {' or '.join(PRESETS)}")
    own = [field for field in _OWN[:-1] if field in wanted]
    if own:
        raise UserError(f"unknown setting {own[0]}: remove it, a run fills it in by itself")
    changes = {field: value for field, value in wanted.items() if field != "preset"}
    config = from_json(Config, _merged(to_json(preset(name)), changes))
    validate(config)
    if config.memory.embeddings:
        raise UserError("--memory.embeddings names a file of this machine: leave it away in the studio")
    return config


def refined_as(wanted: Mapping[str, Any]) -> dict[str, float]:
    """What a second stage is told of a JSON object: its `stability`, or nothing. Raises UserError."""
    if unknown := sorted(set(wanted) - {"stability"}):
        raise UserError(f"unknown setting {unknown[0]}: remove it, or check its spelling")
    told = from_json(RefineConfig, wanted)
    require_bounds(told)
    return {name: getattr(told, name) for name in wanted}


def _merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with changes in it, object by object; one of another kind replaces the whole object."""
    merged = dict(base)
    for name, value in changes.items():
        before = base.get(name)
        if not isinstance(before, Mapping) or not isinstance(value, Mapping):
            merged[name] = value
        elif value.get(KIND, before[KIND]) == before[KIND]:
            merged[name] = _merged(before, value)
        else:
            merged[name] = value
    return merged


def again(config: Mapping[str, Any], changes: Mapping[str, Any]) -> Config:
    """The configuration of a run that is made anew, with changes. Raises UserError."""
    kept = {name: value for name, value in config.items() if name not in _OWN}
    return config_from({**_merged(kept, changes), "preset": changes.get("preset", config.get("preset", "fast"))})


def described(name: str) -> list[dict[str, Any]]:
    """Every setting of a preset: its name with dots, help, value, and choices if there are only some."""
    return _described(preset(name), "")


def _described(record: Any, prefix: str) -> list[dict[str, Any]]:
    found, words, hints = list[dict[str, Any]](), _help(type(record)), get_type_hints(type(record))
    plain = to_json(record)
    for field in fields(record):
        if field.name in _OWN or field.name == "prompt":
            continue
        value, name = getattr(record, field.name), f"{prefix}{field.name}"
        if is_dataclass(value) and isinstance(plain[field.name], dict):
            found += _described(value, f"{name}.")
            continue
        hint = hints[field.name]
        choices = list(get_args(hint)) if get_origin(hint) is Literal else []
        found.append({"name": name, "help": words.get(field.name, ""), "value": plain[field.name], "choices": choices})
    return found


@cache
def _help(kind: type) -> dict[str, str]:
    """The string under each field of a record."""
    body = ast.parse(textwrap.dedent(inspect.getsource(kind))).body[0]
    assert isinstance(body, ast.ClassDef)
    pairs = zip(body.body, body.body[1:], strict=False)
    return {
        field.target.id: text.value.value
        for field, text in pairs
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
        if isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant) and isinstance(text.value.value, str)
    }
