"""The command `studio`. Whatever is slow to load, or not installed with the rest, is imported by it."""

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from annotated_types import Interval

from dreamfusion.cli import arguments as a
from dreamfusion.errors import UserError

TOKENS = "DREAMFUSION_STUDIO_TOKENS"
"""Variable of the environment with tokens, separated by blanks: arguments can be read by all users of a machine"""


@dataclass(frozen=True)
class Studio:
    """Make objects in the browser: a queue, the growing object, a gallery of all runs (docs/studio.md)."""

    root: Path = Path("runs")
    """folder with the runs, made if it is missing"""
    host: str = "127.0.0.1"
    """address to listen at; any but this machine's own (127.0.0.1) needs a token"""
    port: Annotated[int, Interval(ge=1, le=65535)] = 7860
    """port to listen at"""
    hosts: tuple[str, ...] = ()
    """further names or addresses by which browsers reach the studio, such as 192.168.1.7 or studio.example.org"""
    token: tuple[str, ...] = ()
    """secret of at least 16 letters that lets a user in; several for several users; also DREAMFUSION_STUDIO_TOKENS"""
    workers: tuple[str, ...] = ("auto",)
    """devices, with a worker process each: auto, cpu, cuda, cuda:1 ... or mps"""
    priors: tuple[str, ...] = ()
    """text-to-image models to offer besides the embedded one: diffusers folders or hub ids"""
    browser: bool = True
    """open the page in a browser"""


def studio(name: str, given: list[str]) -> int:
    """Serve the studio until Ctrl-C."""
    arguments = a.read(Studio, name, given)
    try:
        from dreamfusion.studio.serve import Address, serve, show
    except ModuleNotFoundError as error:
        if error.name not in ("starlette", "uvicorn"):
            raise
        raise UserError("the studio needs two more packages: pip install 'dreamfusion[studio]'") from error
    tokens = (*arguments.token, *os.environ.get(TOKENS, "").split())
    address = Address(arguments.host, arguments.port, arguments.hosts, tokens)

    def ready(page: str) -> None:
        print(f"the studio is at {page} (Ctrl-C ends it; what runs is saved and goes on at the next start)", flush=True)
        if arguments.browser:
            show(page)

    try:
        serve(arguments.root, address, arguments.workers, arguments.priors, ready)
    except KeyboardInterrupt:
        print("ended; what ran is saved", file=sys.stderr)
    return 0
