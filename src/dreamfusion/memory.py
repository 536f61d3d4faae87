"""How much main memory a program has held, and can still take: of the machine, and of its control groups (Linux)."""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class _Files:
    """Names of a version of control groups (cgroups(7))."""

    limit: str
    usage: str
    reclaimable: str
    """the line of memory.stat that says what the system would take back first: files that nobody reads"""


_UNIFIED = _Files("memory.max", "memory.current", "inactive_file")
_FIRST = _Files("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")


def available(root: Path = Path("/")) -> int | None:
    """Bytes that a program can take before the system refuses, swap included; None where nobody says."""
    return min((*_of_machine(root / "proc" / "meminfo"), *_of_groups(root)), default=None)


def most_held() -> int | None:
    """Bytes of main memory, libraries included, that this process has held at most; None where nobody says."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    unit = 1 if sys.platform == "darwin" else 1024  # getrusage(2): bytes there, kilobytes elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _of_machine(path: Path) -> Iterator[int]:
    lines = _numbers(path)
    if "MemAvailable:" in lines:
        yield 1024 * (lines["MemAvailable:"] + lines.get("SwapFree:", 0))


def _of_groups(root: Path) -> Iterator[int]:
    """What each group that this process is in has left, from its own up to the topmost that can be seen."""
    mounted = root / "sys" / "fs" / "cgroup"
    for line in _lines(root / "proc" / "self" / "cgroup"):
        _, controllers, group = line.split(":", 2)
        top, files = (mounted, _UNIFIED) if not controllers else (mounted / "memory", _FIRST)
        if controllers and "memory" not in controllers.split(","):
            continue
        own = top / group.lstrip("/")
        for folder in (own, *(each for each in own.parents if each.is_relative_to(top))):
            limit, usage = ("".join(_lines(folder / name)) for name in (files.limit, files.usage))
            if limit.isdecimal() and usage.isdecimal():  # "max": there is none
                yield int(limit) - int(usage) + _numbers(folder / "memory.stat").get(files.reclaimable, 0)


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="ascii").splitlines()
    except (OSError, ValueError):
        return []


def _numbers(path: Path) -> dict[str, int]:
    """The lines "name number" of a file."""
    pairs = (line.split()[:2] for line in _lines(path))
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdecimal()}
