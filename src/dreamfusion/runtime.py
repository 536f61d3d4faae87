"""What a process computes with: cores, threads and memory of the machine.

Operators of a small network or field take microseconds. Shared by several threads, each would end at a barrier, where
one thread that another program keeps from its core stops all of them: a single busy program makes a step thirty times
slower. So such operators stay in one thread, and further cores get work that needs no barrier: whole evaluations of the
network, side by side.
"""

import ctypes
import os
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import TypeVar

import torch

Result = TypeVar("Result")

# Numbers from glibc's malloc.h, see mallopt(3).
_GLIBC = {
    -8: 1,  # M_ARENA_MAX: one heap for all threads
    -3: 2**25,  # M_MMAP_THRESHOLD: the most that it takes
    -1: 2**31 - 1,  # M_TRIM_THRESHOLD: never shrink
    -2: 2**26,  # M_TOP_PAD: grow in such steps
}


def configure_torch(threads: int, repeatable: bool) -> None:
    """Make this process ready for a run: so many threads for each operator, and repeatable arithmetic.

    Changes all of torch. On a GPU sums are scattered in any order: nothing is `repeatable` there but up to rounding.
    """
    _keep_memory()
    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)
    # Not `use_deterministic_algorithms`, which does the same and takes two seconds to import torch's compiler.
    torch.set_deterministic_debug_mode("error" if repeatable else "default")
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # missing in torch's stubs


def side_by_side(calls: Sequence[Callable[[], Result]]) -> list[Result]:
    """The results of all calls, the first made in this thread, the others in threads of their own.

    Those have one thread for each operator, and gradients where the caller has them. Threads compute at the same time
    only within torch's operators. An error of any call is raised when all have ended.
    """
    first, *others = calls
    graded = torch.is_grad_enabled()
    waiting = [_threads().submit(_like_caller, call, graded) for call in others]
    try:
        return [first(), *(future.result() for future in waiting)]
    finally:
        for future in waiting:
            future.exception()  # waits


def _like_caller(call: Callable[[], Result], graded: bool) -> Result:
    with torch.set_grad_enabled(graded):
        return call()


@cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(thread_name_prefix="side", initializer=_settle_thread)


def _settle_thread() -> None:
    """What is a setting of each thread: new ones would share their convolutions among as many threads as cores."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)


def available_cores() -> int:
    """The cores that this process may use: by its affinity, the quota of its control group (containers), and Slurm.

    Slurm's share counts as well because not every Slurm enforces it: without a task plugin a job sees the whole node.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    limits = [limit for limit in (cpu_quota(), _slurm_share()) if limit is not None]
    return max(1, int(min([cores, *limits])))


def _slurm_share() -> int | None:
    """Cores that Slurm gave each task of this job, or the job on this node; None outside of a job."""
    told = (os.environ.get(name, "") for name in ("SLURM_CPUS_PER_TASK", "SLURM_CPUS_ON_NODE"))
    return next((int(text) for text in told if re.fullmatch("[0-9]{1,6}", text)), None)


def cpu_quota(groups: Path = Path("/proc/self/cgroup"), mount: Path = Path("/sys/fs/cgroup")) -> float | None:
    """Cores' worth of time that the process' control groups allow it, the least of all levels; None for no limit.

    Reads cgroup v2 (`cpu.max`) and v1 (`cpu.cfs_quota_us` over `cpu.cfs_period_us`).
    """
    try:
        lines = groups.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return None
    quotas = []
    for names, path in (line.split(":", 2)[1:] for line in lines if line.count(":") >= 2):
        if not names or "cpu" in names.split(","):
            # In a container the path may be the host's, which is not there: its own group is then at the root.
            levels = [Path(path.strip("/")), *Path(path.strip("/")).parents]
            quotas += [_quota_of(mount / names / level) for level in levels]
    return min((quota for quota in quotas if quota is not None), default=None)


def _quota_of(group: Path) -> float | None:
    """Of one control group; None where it says nothing."""
    try:
        if (group / "cpu.max").exists():
            quota, period = (group / "cpu.max").read_text(encoding="utf-8").split()[:2]
        else:
            quota, period = ((group / f"cpu.cfs_{name}_us").read_text(encoding="utf-8") for name in ("quota", "period"))
        return float(quota) / float(period) if float(quota) > 0 else None
    except (OSError, ValueError, ZeroDivisionError):  # "max" is no number, and no limit
        return None


def _keep_memory() -> None:
    """Keep freed memory for the next tensor: a step makes hundreds of megabytes of them, of the same sizes every time.

    Otherwise glibc gives each back to the kernel, which clears every page anew: a fifth of the time on a CPU.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return  # no glibc: another allocator, with its own ways
    for parameter, value in _GLIBC.items():
        mallopt(parameter, value)
