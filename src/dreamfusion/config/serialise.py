"""A configuration as text: schedules in a short form, and frozen records as JSON that reads back exactly.

Schedules are written `0.5` (constant), `0:1` (a line over the whole run), `0:1@0.2:0.6` (a line between these fractions
of the run, level outside), `0.1^1` and `0.1^1@0.2:0.6` (the same in equal factors), `1,0.5,0.1@0.3,0.6` (steps at these
fractions) or `0:1~0.1@0.2` (a line until this fraction, then half a cosine wave).
"""

import dataclasses
import reprlib
from collections.abc import Callable, Mapping
from pathlib import Path
from types import UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from dreamfusion.errors import UserError
from dreamfusion.schedules import Constant, Geometric, Ramp, Schedule, Steps, WarmupCosine
from dreamfusion.version import VERSION

Record = TypeVar("Record")
KIND = "kind"
"""Key that says which member of a union an object is; its value is the class name."""
LARGEST = 2**63 - 1
"""number that is still a size, a count or a seed"""


def schedule_from_text(text: str) -> Schedule:
    """Read the short form. Raises UserError for anything else."""
    values, _, places = text.partition("@")
    try:
        if "~" in values:
            warmup, end = values.split("~")
            return WarmupCosine(*_two(warmup), float(end), float(places))
        if "," in values:
            return Steps(_numbers(values, ","), _numbers(places, ","))
        if "^" in values:
            return Geometric(*_two(values, "^"), *(_two(places) if places else (0.0, 1.0)))
        if ":" in values:
            return Ramp(*_two(values), *(_two(places) if places else (0.0, 1.0)))
        if places:
            raise ValueError
        return Constant(float(values))
    except ValueError:
        forms = "0.5, 0:1, 0:1@0.2:0.6, 0.1^1, 1,0.5,0.1@0.3,0.6 or 0:1~0.1@0.2"
        raise UserError(f"{text!r} is no schedule: write {forms}") from None


def schedule_text(schedule: Schedule) -> str:
    """The short form; `schedule_from_text` gives back an equal schedule."""
    match schedule:
        case Constant(value):
            return f"{value!r}"
        case Ramp(start, end, 0.0, 1.0):
            return f"{start!r}:{end!r}"
        case Ramp(start, end, begin, until):
            return f"{start!r}:{end!r}@{begin!r}:{until!r}"
        case Geometric(start, end, 0.0, 1.0):
            return f"{start!r}^{end!r}"
        case Geometric(start, end, begin, until):
            return f"{start!r}^{end!r}@{begin!r}:{until!r}"
        case Steps(values, boundaries):
            return ",".join(map(repr, values)) + "@" + ",".join(map(repr, boundaries))
        case WarmupCosine(start, peak, end, until):
            return f"{start!r}:{peak!r}~{end!r}@{until!r}"


def to_json(record: Any) -> dict[str, Any]:
    """A frozen record as plain JSON values, every field written out."""
    return {field.name: _plain(getattr(record, field.name)) for field in dataclasses.fields(record)}


def from_json(kind: type[Record], values: Mapping[str, Any], where: str = "") -> Record:
    """The record that `to_json` wrote. Absent fields take their defaults.

    Unknown fields and wrong types raise UserError.
    """
    hints = get_type_hints(kind)
    unknown = set(values) - set(hints)
    if unknown:
        raise UserError(f"unknown setting {_path(where, sorted(unknown)[0])}: remove it, or check its spelling")
    return kind(**{name: _typed(hints[name], value, _path(where, name)) for name, value in values.items()})


def from_file(kind: type[Record], values: Mapping[str, Any], path: Path) -> Record:
    """`from_json` for what was read from a file: what is wrong with it names the file, and the version that wrote it.

    Raises UserError.
    """
    try:
        return from_json(kind, values)
    except UserError as error:
        if (version := values.get("version", VERSION)) in ("", VERSION):
            raise UserError(f"{path}: {error}") from error
        raise UserError(
            f"{path} was written by dreamfusion {version}, and this is {VERSION}, which cannot read it ({error}): use"
            " that version, or start a new run"
        ) from error


def _plain(value: Any) -> Any:
    match value:
        case Constant() | Ramp() | Geometric() | Steps() | WarmupCosine():
            return schedule_text(value)
        case tuple():
            return [_plain(item) for item in value]
        case _ if dataclasses.is_dataclass(value):
            return {KIND: type(value).__name__, **to_json(value)}
        case _:
            return value


def _typed(hint: Any, value: Any, where: str) -> Any:
    """`value` as an instance of the type `hint`, which is one of those that configurations use."""
    readers: list[tuple[Callable[[Any], bool], Callable[[Any, Any, str], Any]]] = [
        (lambda hint: hint == Schedule, _schedule),
        (lambda hint: get_origin(hint) in (Union, UnionType), _member),
        (dataclasses.is_dataclass, _member),
        (lambda hint: get_origin(hint) is tuple, _tuple),
        (lambda hint: get_origin(hint) is Literal, _choice),
    ]
    for matches, read in readers:
        if matches(hint):
            return read(hint, value, where)
    return _scalar(hint, value, where)


def _schedule(hint: Any, value: Any, where: str) -> Schedule:
    if isinstance(value, (str, int, float)) and not isinstance(value, bool):
        return schedule_from_text(str(value))
    raise _wrong(where, "a schedule", value)


def _member(hint: Any, value: Any, where: str) -> Any:
    """One of the records of a union, or the only one, by its `kind`."""
    members = {member.__name__: member for member in (get_args(hint) or (hint,))}
    kind = value.get(KIND) if isinstance(value, Mapping) else None
    if not isinstance(kind, str) or kind not in members:
        raise _wrong(where, f"an object with {KIND!r} {' or '.join(members)}", value)
    return from_json(members[kind], {name: item for name, item in value.items() if name != KIND}, where)


def _tuple(hint: Any, value: Any, where: str) -> tuple[Any, ...]:
    types = get_args(hint)
    if types[-1] is Ellipsis and isinstance(value, (list, tuple)):
        types = (types[0],) * len(value)
    if not isinstance(value, (list, tuple)) or len(value) != len(types):
        raise _wrong(where, f"a list of {len(types)}", value)
    return tuple(_typed(kind, item, where) for kind, item in zip(types, value, strict=True))


def _choice(hint: Any, value: Any, where: str) -> Any:
    if value in get_args(hint):
        return value
    raise _wrong(where, " or ".join(map(str, get_args(hint))), value)


def _scalar(hint: Any, value: Any, where: str) -> Any:
    if isinstance(value, int) and abs(value) > LARGEST:
        raise _wrong(where, f"between -{LARGEST} and {LARGEST}", value)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(value) is hint:
        if isinstance(value, str):
            require_text(where, value)
        return value
    raise _wrong(where, hint.__name__, value)


def require_text(what: str, text: str) -> None:
    """Raise UserError for characters that are none: null, and half a pair, which Python makes of bytes not in UTF-8."""
    if "\0" in text:
        raise _wrong(what, "a text without null characters", text)
    if not text.isprintable() and any("\ud800" <= letter <= "\udfff" for letter in text):
        raise UserError(f"{what} is no text, {text!a}: some of its bytes are no UTF-8; write them again")


def _numbers(text: str, separator: str) -> tuple[float, ...]:
    return tuple(float(part) for part in text.split(separator))


def _two(text: str, separator: str = ":") -> tuple[float, float]:
    first, second = _numbers(text, separator)
    return first, second


def _path(where: str, name: str) -> str:
    return f"{where}.{name}" if where else name


def _wrong(where: str, wanted: str, value: Any) -> UserError:
    return UserError(f"{where} must be {wanted}, not {reprlib.repr(value)}")
