"""The loop in which a network learns: learning rate, update, average of the weights, log, saving, stopping.

In the folder of the work: `state.safetensors`, written every few minutes and replaced as a whole, and `log.jsonl`.
Training that was stopped, however it was, and taken up again is the same as if it had not been: bit for bit on the same
machine with as many threads.
"""

import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from dreamfusion.errors import UserError
from training.state import STATE, State

LOG, LOG_EVERY = "log.jsonl", 50
BFLOAT16 = ("avx512_bf16", "amx_bf16", "bf16")
"""of a processor's capabilities, as PyTorch names them: multiplying bfloat16"""
GREATEST_NORM = 1.0
"""of the gradient: a longer one is shortened to it"""


@dataclass(frozen=True)
class Watch:
    """Who is told how it goes, and who may stop it."""

    report: Callable[[str], None]
    stop: Callable[[], bool]
    """asked after every update: whether to save and leave"""


@dataclass(frozen=True)
class Plan:
    """How long it learns, and what is done on the way."""

    steps: int
    save_every: int
    """updates between states that survive even a crash"""
    pictures: Callable[[int], int]
    """how many pictures were learned from after so many updates"""
    after: Callable[[], None] = lambda: None
    """called after every update"""


def lighter() -> torch.autocast:
    """A context in which matrices are multiplied in bfloat16, if the processor has instructions for it.

    Without them bfloat16 is emulated, at a tenth of the speed of single precision, which is then kept.
    """
    able = torch.cpu.get_capabilities()
    return torch.autocast("cpu", torch.bfloat16, enabled=any(able.get(name) for name in BFLOAT16))


def rise_and_fall(step: int, steps: int, warm_up: int, cool_down: int) -> float:
    """Share of the greatest learning rate at a step: linear up in the first `warm_up` steps, down in the last ones."""
    return min(1.0, (step + 1) / max(1, warm_up), max(0.0, (steps - step) / max(1, cool_down)))


def update(state: State, gradient: Callable[[], float], rate: float, decay: float = 0.0) -> float:
    """One update of the network, and of the average of its weights, which forgets by `decay`; returns the loss.

    `gradient` leaves the gradient of the loss in the network's parameters and returns the loss. `rate` is the learning
    rate; a group of parameters may have a factor on it, "speed". Raises UserError if the loss is no number.
    """
    for group in state.optimiser.param_groups:
        group["lr"] = group.get("speed", 1.0) * rate
    loss = gradient()
    if not math.isfinite(loss):
        raise UserError(f"the training diverged at step {state.step + 1}: go on from the last state, or start anew")
    nn.utils.clip_grad_norm_(state.network.parameters(), GREATEST_NORM)
    state.optimiser.step()
    state.optimiser.zero_grad()
    state.step += 1
    if state.average is not None:
        decay = min(decay, state.step / (state.step + 10))
        with torch.no_grad():
            torch._foreach_lerp_(list(state.average.parameters()), list(state.network.parameters()), 1 - decay)
    return loss


def learn(state: State, advance: Callable[[], float], plan: Plan, work: Path, watch: Watch) -> bool:
    """Go on from the state in the folder `work`, if there is one, to the last step; returns whether that was reached.

    `advance` makes one update of the state and returns its loss; if it raises, the file stays as it was.
    """
    if (work / STATE).exists():
        state.restore(work)
        watch.report(f"going on at step {state.step}")
    since, losses, stopped = time.monotonic(), list[float](), False
    while state.step < plan.steps and not stopped:
        begun = time.monotonic()
        losses.append(advance())
        state.seconds += time.monotonic() - begun
        if state.step % LOG_EVERY == 0:
            pictures = plan.pictures(state.step) - plan.pictures(state.step - len(losses))
            _log(state.step, losses, pictures / (time.monotonic() - since), work, watch)
            since, losses = time.monotonic(), []
        stopped = watch.stop()
        if stopped or state.step % plan.save_every == 0 or state.step == plan.steps:
            state.save(work)
        plan.after()
    if state.step < plan.steps:
        watch.report(f"stopped after step {state.step}, which is saved; the same command goes on")
    return state.step >= plan.steps


def _log(step: int, losses: list[float], rate: float, work: Path, watch: Watch) -> None:
    loss = sum(losses) / len(losses)
    line = {"step": step, "loss": round(loss, 6), "images_per_second": round(rate, 1)}
    with (work / LOG).open("a", encoding="utf-8") as log:
        log.write(json.dumps(line) + "\n")
    watch.report(f"step {step}  loss {loss:.4f}  {rate:.1f} images/s")
