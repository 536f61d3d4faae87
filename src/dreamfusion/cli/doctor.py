"""What this machine has, what would run on it, and what is missing; in plain lines."""

import os
import platform
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from importlib.metadata import PackageNotFoundError, requires, version
from importlib.util import find_spec
from pathlib import Path

from dreamfusion import __version__, memory
from dreamfusion.config import Config
from dreamfusion.errors import UserError

MEMORY_GB, DISK_GB = 2.5, 0.5
"""What the main job needs, at most"""
OPTIONAL = {"embreex": "training the embedded prior (pip install 'dreamfusion[train]')"}


PRODUCT_LIBRARIES = ("scipy.ndimage", "av", "trimesh")
"""Modules that products import when they need them"""


@dataclass(frozen=True)
class Finding:
    """One line of the report; `missing` says that something the main job needs is not there."""

    what: str
    text: str
    missing: bool = False


def examine(chosen: Callable[[], Config] | None = None) -> tuple[list[str], bool]:
    """The report, and whether the main job would run; also whether the prior of a chosen run opens, and its memory."""
    asked = [] if chosen is None else [partial(_chosen_prior, chosen)]
    parts = (_software, _machine, _processors, _embedded_prior, _products, _optional, *asked)
    findings = dict.fromkeys(finding for part in parts for finding in _tried(part))  # each told once
    healthy = not any(finding.missing for finding in findings)
    lines = [f"{'MISSING ' if finding.missing else ''}{finding.what}: {finding.text}" for finding in findings]
    verdict = 'ready: try  dreamfusion "a hamburger"' if healthy else "not ready: see the lines that say MISSING"
    return [*lines, verdict], healthy


def _tried(part: Callable[[], Iterator[Finding]]) -> list[Finding]:
    """A part of the report, or what keeps it from being made: libraries are loaded by the parts that ask them."""
    try:
        return list(part())
    except (ImportError, OSError, RuntimeError) as error:
        name = (error.name if isinstance(error, ImportError) else None) or "a library"
        return [Finding(name, f"cannot be loaded ({error}): reinstall it", missing=True)]


def _software() -> Iterator[Finding]:
    yield Finding("dreamfusion", f"{__version__}, Python {platform.python_version()}, {platform.platform(terse=True)}")
    installed = {name: _version(name) for name in _required()}
    yield Finding("packages", ", ".join(f"{name} {number}" for name, number in installed.items() if number))
    for name in (name for name, number in installed.items() if number is None):
        yield Finding(name, f"not installed: pip install {name}", missing=True)


def _machine() -> Iterator[Finding]:
    if (free := memory.available()) is not None:
        yield Finding("memory", f"{free / 1e9:.1f} GB free, {MEMORY_GB} GB wanted", missing=free < MEMORY_GB * 1e9)
    disk, here = shutil.disk_usage(Path.cwd()).free / 1e9, os.access(Path.cwd(), os.W_OK)
    yield Finding("disk", f"{disk:.1f} GB free here, {DISK_GB} GB wanted", missing=disk < DISK_GB)
    if not here:
        yield Finding("folder", "this folder cannot be written to: use --out, or another folder")


def _processors() -> Iterator[Finding]:
    import torch

    from dreamfusion.runtime import available_cores

    yield Finding("processor", f"{available_cores()} cores, {platform.machine()}")
    for index in range(torch.cuda.device_count()):
        card = torch.cuda.get_device_properties(index)
        yield Finding(f"cuda:{index}", f"{card.name}, {card.total_memory / 1e9:.0f} GB")
    if not torch.cuda.is_available():
        yield Finding("cuda", "none; the embedded prior does not need it, large priors do")
    yield Finding("mps", "there" if torch.backends.mps.is_available() else "none")


def _embedded_prior() -> Iterator[Finding]:
    from dreamfusion.diffusion.priors import open_prior

    try:
        prior = open_prior("embedded")
    except UserError as error:
        yield Finding("embedded prior", str(error), missing=True)
        return
    words = "any text" if prior.vocabulary is None else f"{len(prior.vocabulary)} words"
    yield Finding("embedded prior", f"{prior.name}, {prior.image_size} x {prior.image_size} pixels, {words}; loads")


def _products() -> Iterator[Finding]:
    for module in ("dreamfusion.mesh", "dreamfusion.video", *PRODUCT_LIBRARIES):
        import_module(module)
    yield Finding("mesh, video and page", "their libraries load")


def _chosen_prior(chosen: Callable[[], Config]) -> Iterator[Finding]:
    from dreamfusion.build import device_of, prior_options
    from dreamfusion.cli.hints import hints
    from dreamfusion.cli.memory import in_words, planned, require_room
    from dreamfusion.diffusion.priors.locate import locate
    from dreamfusion.diffusion.priors.opening import require_whole

    try:
        config = chosen()
        device = device_of(config.device)
        needs, folder = planned(config, device), locate(config.prior, half=config.half)
        require_whole(config.prior, prior_options(config, device))
        require_room(needs, device)
    except UserError as error:
        yield Finding("prior", str(error), missing=True)
        return
    told = [f"{folder.pipeline}, about {in_words(needs, config)}, with preset {config.preset}", *hints(config)]
    yield Finding("prior", "; ".join(told))


def _optional() -> Iterator[Finding]:
    for name, purpose in OPTIONAL.items():
        yield Finding(f"optional {name}", f"{'there' if find_spec(name) else 'not there'}; for {purpose}")


def _required() -> list[str]:
    """The packages that this one needs, without those of its extras; none where it runs without being installed."""
    try:
        lines = requires("dreamfusion") or []
    except PackageNotFoundError:
        return []
    return [re.split(r"[^\w.-]", line, maxsplit=1)[0] for line in lines if "extra ==" not in line]


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
