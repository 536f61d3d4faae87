"""Where and when a number was measured: without it, the number says nothing. And how results are written."""

import json
import platform
import re
import resource
import subprocess
import sys
from datetime import datetime, timezone
from pathlib import Path
from time import perf_counter

import torch

from dreamfusion.runtime import available_cores

LINE = 140
"""Characters that a record may have on one line"""


def machine(device: torch.device) -> dict[str, object]:
    """The processor, the device, the versions and the commit that results belong to."""
    return {
        "processor": _processor(),
        "cores": available_cores(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "system": platform.system(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "commit": _commit(),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }


def now(device: torch.device) -> float:
    """Seconds on a clock that never goes back, read when all work given to the device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return perf_counter()


def peak_memory(device: torch.device) -> dict[str, float]:
    """The most megabytes that this process ever held, and the most that its tensors held on a GPU."""
    unit = 1 if sys.platform == "darwin" else 1024  # of `ru_maxrss`, in bytes
    peak = {"process_mb": _mb(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit)}
    if device.type == "cuda":
        peak["device_mb"] = _mb(torch.cuda.max_memory_allocated(device))
    return peak


def as_json(result: object) -> str:
    """Readable JSON: short lists and records on one line."""
    text = json.dumps(result, indent=2, ensure_ascii=False)
    for _ in range(3):  # from the innermost outwards
        text = re.sub(r"[\[{]\n[^\[\]{}]*[\]}]|{\n[^{}]*}", lambda found: _on_one_line(found[0]), text)
    return text


def _on_one_line(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= LINE else text


def _mb(size: int) -> float:
    return round(size / 1e6, 1)


def _processor() -> str:
    """The model's name; Linux alone says it in a file."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _commit() -> str:
    """The commit that is checked out, with "+" where files differ from it; "" outside a repository."""
    here = Path(__file__).parent
    head = _git(here, "rev-parse", "--short", "HEAD")
    return head + ("+" if head and _git(here, "status", "--porcelain", "--", "../src", ".") else "")


def _git(folder: Path, *words: str) -> str:
    answer = subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True, check=False)
    return answer.stdout.strip() if answer.returncode == 0 else ""
