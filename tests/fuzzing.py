"""What the fuzzers share: values and bytes to put into files, and how an answer is judged."""

import copy
import json
import os
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from hypothesis import HealthCheck, Phase, event, settings
from hypothesis import strategies as st

from dreamfusion.errors import UserError

MORE = float(os.environ.get("DREAMFUSION_FUZZ", "1"))
Answer = TypeVar("Answer")


def cases(count: int) -> settings:
    """The same `count` cases every time, or MORE times as many."""
    return settings(
        max_examples=max(1, round(count * MORE)),
        derandomize=True,
        database=None,
        deadline=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )


def answer(read: Callable[[], Answer]) -> Answer | None:
    """What reading gives, or None if it was refused in one line. Every other error is a finding."""
    try:
        found = read()
    except UserError as error:
        said = str(error)
        assert said.isprintable(), said
        assert 10 < len(said) < 2000, said
        event("refused")
        return None
    event("accepted")
    return found


WORDS = ["", "a", "auto", "0:1", "0.5", "nan", "GridField", "MlpField", "SdsLaw", "../a", "~nobody/a", "/"]
ODD = ["\ud800", "a\0b", "a\nb", "\u2028", "x" * 5000, "é" * 300]
SMALL = [None, True, False, 0, -1, 1, 2, 3, 0.5, -0.5, 1e-300, -0.0]
HUGE = [10**12, 2**31, 2**63, -(2**63), 10**30, 10**400, 1e300, -1e300, float("nan"), float("inf"), -float("inf")]
NESTED = [[], {}, [0], [[]], {"kind": "Config"}, {"kind": []}, {"kind": {}}, [1, 2], [0.1, 0.2, 0.3], {"a": [{}]}]
JUNK = [*WORDS, *ODD, *SMALL, *HUGE, *NESTED]
DEEP = [b"[" * 3000 + b"]" * 3000, b"[" * 100_000, b'{"a":' * 3000 + b"1" + b"}" * 3000]
MARKS = [b"", b" ", b"\0", b"\xef\xbb\xbf", b"\xef\xbb\xbf{}", b"\xff\xfe{\0}\0"]
PLAIN = [
    b"null",
    b"[]",
    b"{}",
    b"1",
    b'"a"',
    b"NaN",
    b'{"a": 1, "a": 2}',
    b'{"\\ud800": 1}',
    b'{"a": %s}' % (b"9" * 5000),
]
WHOLE = [*MARKS, *PLAIN, *DEEP]


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every container inside a JSON value with every key of it."""
    keys = value.keys() if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in keys:
        yield value, key
        yield from places(value[key])


def alike(value: Any) -> st.SearchStrategy[Any]:
    """Another value of the same type, if one comes to mind: it gets further than one that any reader refuses."""
    match value:
        case bool():
            return st.booleans()
        case int():
            return st.one_of(st.integers(0, 9), st.sampled_from([each for each in HUGE if isinstance(each, int)]))
        case float():
            return st.one_of(st.floats(), st.floats(0, 1))
        case str():
            return st.sampled_from([*WORDS, *ODD])
        case [first, *_]:
            return st.lists(alike(first), max_size=4)
        case _:
            return st.just(value)


@st.composite
def mutated(draw: st.DrawFn, value: Any, junk: list[Any]) -> Any:
    """A JSON value with one to three of its parts replaced, removed or added."""
    root = [copy.deepcopy(value)]
    for _ in range(draw(st.integers(1, 3))):
        holder, key = draw(st.sampled_from(list(places(root))))
        part = copy.deepcopy(draw(st.sampled_from(junk)))
        match draw(st.sampled_from(["alike"] * 4 + ["replace", "replace", "remove", "add"])):
            case "alike":
                holder[key] = draw(alike(holder[key]))
            case "remove" if holder is not root:
                del holder[key]
            case "add" if isinstance(holder, dict):
                holder[draw(st.sampled_from([*WORDS, *ODD]))] = part
            case "add" if holder is not root:
                holder.insert(key, part)
            case _:
                holder[key] = part
    return root[0]


@st.composite
def damaged(draw: st.DrawFn, content: bytes) -> bytes:
    """Bytes cut short, changed, put in or taken out at a few places; or something else altogether."""
    how = draw(st.sampled_from(["whole", "cut", *["edit"] * 4]))
    if how == "whole":
        return draw(st.sampled_from(WHOLE))
    if how == "cut":
        return content[: draw(st.integers(0, len(content)))]
    changed = bytearray(content)
    for _ in range(draw(st.integers(1, 4))):
        at, old = draw(st.integers(0, len(changed))), draw(st.integers(0, 4))
        changed[at : at + old] = draw(st.binary(max_size=4))
    return bytes(changed)


def texts(value: Any, junk: list[Any] = JUNK) -> st.SearchStrategy[bytes]:
    """A JSON file: mutated as a value (five times of six), or damaged as bytes."""
    values = mutated(value, junk).map(lambda each: json.dumps(each).encode())
    return st.one_of(*[values] * 5, damaged(json.dumps(value, indent=2).encode()))
