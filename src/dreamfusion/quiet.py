"""One voice: what the model libraries would draw and print by themselves is left out; their errors are ours to tell."""

import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager


@contextmanager
def quiet(bars: bool = False) -> Iterator[None]:
    """No warnings and log lines inside, nor bars unless they are wanted; afterwards all is as before.

    Python's `logging` is off as a whole: libraries set their own loggers up while they are imported.
    """
    with warnings.catch_warnings(), ExitStack() as restored:
        warnings.simplefilter("ignore")
        restored.callback(logging.disable, logging.root.manager.disable)
        logging.disable(logging.CRITICAL)
        for library in () if bars else ("diffusers", "transformers"):
            own = sys.modules.get(f"{library}.utils.logging")
            if own is not None and own.is_progress_bar_enabled():
                restored.callback(own.enable_progress_bar)
                own.disable_progress_bar()
        yield
