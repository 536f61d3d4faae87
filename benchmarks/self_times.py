"""Where a step's time goes: by function of the package, timed from outside, and by operator of torch.

No function is named here: everything that the loaded modules of the package define is timed, whatever it is called.
"""

import inspect
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from threading import local
from types import FunctionType
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from machine import now

PACKAGE, NETWORK = "dreamfusion.", "dreamfusion.embedded."
"""The prior's network counts as one: its functions are left alone."""
WORKING_DUNDERS = {"__call__", "__getitem__"}
"""Special methods that may do real work; the others are construction and comparison of records."""


class SelfTimes:
    """Seconds and calls by function; what a function's timed callees took is theirs."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds: dict[str, float] = defaultdict(float)
        self.calls: Counter[str] = Counter()
        self._thread = local()  # on GPUs, the backward pass has threads of its own

    def timed(self, name: str, function: Callable) -> Callable:
        """The same function, with a clock."""

        @wraps(function)
        def call(*arguments: Any, **options: Any) -> Any:
            inner = self._inner()
            inner.append(0.0)
            since = now(self.device)
            try:
                return function(*arguments, **options)
            finally:
                whole = now(self.device) - since
                self.seconds[name] += whole - inner.pop()
                self.calls[name] += 1
                if inner:
                    inner[-1] += whole

        return call

    def table(self, steps: int, rows: int) -> list[dict[str, object]]:
        """The functions that took longest, per step."""
        longest = sorted(self.seconds, key=self.seconds.__getitem__, reverse=True)[:rows]
        total = sum(self.seconds.values())
        return [
            {
                "function": name,
                "self_ms": round(1e3 * self.seconds[name] / steps, 2),
                "share": round(self.seconds[name] / total, 3),
                "calls": round(self.calls[name] / steps, 1),
            }
            for name in longest
        ]

    def _inner(self) -> list[float]:
        """Seconds spent in timed callees, for every timed call that is open in this thread."""
        if not hasattr(self._thread, "inner"):
            self._thread.inner = []
        return self._thread.inner


@contextmanager
def timing(times: SelfTimes, *others: tuple[type, str]) -> Iterator[None]:
    """Within it, all functions and methods of the loaded modules of the package are timed, and the `others`."""
    undo: list[tuple[Any, str, Any]] = []

    def put(owner: Any, name: str, value: Any) -> None:
        undo.append((owner, name, vars(owner)[name]))
        setattr(owner, name, value)

    modules = [sys.modules[name] for name in list(sys.modules) if name.startswith(PACKAGE)]
    modules = [module for module in modules if not module.__name__.startswith(NETWORK)]
    try:
        _replace_functions(modules, times, put)
        for module in modules:
            for kind in _defined(module, type):
                _replace_methods(kind, times, put)
        for kind, name in others:
            owner = next(base for base in kind.mro() if name in vars(base))
            put(owner, name, times.timed(f"{owner.__name__}.{name}", getattr(owner, name)))
        yield
    finally:
        for owner, name, value in reversed(undo):
            setattr(owner, name, value)


def operators(step: Callable[[], object], steps: int, device: torch.device, rows: int) -> list[dict[str, object]]:
    """The operators of torch in which `steps` calls of `step` spend most of their own time, per call."""
    cuda = device.type == "cuda"
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * cuda
    with profile(activities=activities) as profiler:
        for _ in range(steps):
            step()
        now(device)
    events = profiler.key_averages()
    order = (lambda event: event.self_device_time_total) if cuda else (lambda event: event.self_cpu_time_total)
    table = []
    for event in sorted(events, key=order, reverse=True)[:rows]:
        row = {"operator": event.key, "cpu_ms": round(event.self_cpu_time_total / 1e3 / steps, 2)}
        gpu = {"cuda_ms": round(event.self_device_time_total / 1e3 / steps, 3)} if cuda else {}
        table.append(row | gpu | {"calls": round(event.count / steps, 1)})
    return table


def _replace_functions(modules: list, times: SelfTimes, put: Callable[[Any, str, Any], None]) -> None:
    """Wherever a function was imported to, there it is replaced."""
    functions = [f for module in modules for f in _defined(module, FunctionType) if not inspect.isgeneratorfunction(f)]
    clocked = {id(f): times.timed(_label(f), f) for f in functions}
    for module in list(sys.modules.values()):
        for name, value in list(vars(module).items()):
            if id(value) in clocked:
                put(module, name, clocked[id(value)])


def _replace_methods(kind: type, times: SelfTimes, put: Callable[[Any, str, Any], None]) -> None:
    for name, value in list(vars(kind).items()):
        if name.startswith("__") and name not in WORKING_DUNDERS:
            continue
        function = value.__func__ if isinstance(value, staticmethod) else value
        if not isinstance(function, FunctionType) or inspect.isgeneratorfunction(function):
            continue
        clock = times.timed(_label(function), function)
        put(kind, name, staticmethod(clock) if isinstance(value, staticmethod) else clock)


def _defined(module: Any, kind: type) -> list:
    """What a module defines itself; types without protocols, which do nothing."""
    values = [value for value in list(vars(module).values()) if isinstance(value, kind)]
    own = [value for value in values if value.__module__ == module.__name__]
    return [value for value in own if not getattr(value, "_is_protocol", False)]


def _label(function: FunctionType) -> str:
    return f"{function.__module__.removeprefix(PACKAGE)}.{function.__qualname__}"
