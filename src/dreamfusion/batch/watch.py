"""Who follows a run that somebody else makes. Imports nothing slow."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from dreamfusion.progress import ProgressCallback, silent


def never() -> bool:
    """Not to stop."""
    return False


def unheard(metrics: Any) -> None:
    """Nobody listens to the steps."""


@dataclass(frozen=True)
class Watch:
    """Told what is being done, and of every step (its `loop.Metrics`); asked after each step and product."""

    say: ProgressCallback = silent
    stepped: Callable[[Any], None] = unheard
    stopped: Callable[[], bool] = never
