"""What this machine has, what would run on it, and what is missing; in plain lines."""

import os
import platform
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

import torch

from dreamfusion import __version__
from dreamfusion.errors import UserError
from dreamfusion.generate import available_cores
from dreamfusion.priors import open_prior

MEMORY_GB, DISK_GB = 2.5, 0.5
"""What the main job needs, at most"""
OPTIONAL = {"embreex": "training the embedded prior (pip install 'dreamfusion[train]')"}
PACKAGES = ("torch", "diffusers", "transformers", "safetensors", "numpy", "scikit-image", "trimesh", "av")


@dataclass(frozen=True)
class Finding:
    """One line of the report; `missing` says that something the main job needs is not there."""

    what: str
    text: str
    missing: bool = False


def examine() -> tuple[list[str], bool]:
    """The report, and whether the main job would run."""
    findings = [*_software(), *_machine(), *_devices(), _embedded_prior(), *_optional()]
    healthy = not any(finding.missing for finding in findings)
    lines = [f"{'MISSING ' if finding.missing else ''}{finding.what}: {finding.text}" for finding in findings]
    verdict = 'ready: try  dreamfusion "a hamburger"' if healthy else "not ready: see the lines that say MISSING"
    return [*lines, verdict], healthy


def _software() -> Iterator[Finding]:
    yield Finding("dreamfusion", f"{__version__}, Python {platform.python_version()}, {platform.platform(terse=True)}")
    installed = {name: _version(name) for name in PACKAGES}
    yield Finding("packages", ", ".join(f"{name} {number}" for name, number in installed.items() if number))
    for name in (name for name, number in installed.items() if number is None):
        yield Finding(name, f"not installed: pip install {name}", missing=True)


def _machine() -> Iterator[Finding]:
    yield Finding("processor", f"{available_cores()} cores, {platform.machine()}")
    if (memory := available_memory_gb()) is not None:
        yield Finding("memory", f"{memory:.1f} GB free, {MEMORY_GB} GB wanted", missing=memory < MEMORY_GB)
    disk, here = shutil.disk_usage(Path.cwd()).free / 1e9, os.access(Path.cwd(), os.W_OK)
    yield Finding("disk", f"{disk:.1f} GB free here, {DISK_GB} GB wanted", missing=disk < DISK_GB)
    if not here:
        yield Finding("folder", "this folder cannot be written to: use --out, or another folder")


def _devices() -> Iterator[Finding]:
    for index in range(torch.cuda.device_count()):
        card = torch.cuda.get_device_properties(index)
        yield Finding(f"cuda:{index}", f"{card.name}, {card.total_memory / 1e9:.0f} GB")
    if not torch.cuda.is_available():
        yield Finding("cuda", "none; the embedded prior does not need it, large priors do")
    yield Finding("mps", "there" if torch.backends.mps.is_available() else "none")


def _embedded_prior() -> Finding:
    try:
        prior = open_prior("embedded")
    except UserError as error:
        return Finding("embedded prior", str(error), missing=True)
    words = "any text" if prior.vocabulary is None else f"{len(prior.vocabulary)} words"
    return Finding("embedded prior", f"{prior.name}, {prior.image_size} x {prior.image_size} pixels, {words}; loads")


def _optional() -> Iterator[Finding]:
    for name, purpose in OPTIONAL.items():
        yield Finding(f"optional {name}", f"{'there' if find_spec(name) else 'not there'}; for {purpose}")


def available_memory_gb() -> float | None:
    """Memory that a new program could take, in GB; None where the system does not say."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    kilobytes = next((line.split()[1] for line in lines if line.startswith("MemAvailable")), None)
    return None if kilobytes is None else int(kilobytes) / 1e6


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
