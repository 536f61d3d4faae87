"""Checkpoints: everything of a run on disk, whole at every moment.

A checkpoint folder holds `checkpoint.json` (configuration, step, healings, and the name and SHA-256 of the tensor file)
and that `tensors-*.safetensors` (scene, what the law of distillation and own regularisers hold, state of the optimiser
and of the generator).
Tensors are written first, under a name of their own; the rename of `checkpoint.json` is the moment from which the new
state counts; only then the old tensors go. Nothing is pickled.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as tensors_from_bytes
from safetensors.torch import save as bytes_from_tensors
from torch import Tensor

from dreamfusion import build
from dreamfusion.config import Config
from dreamfusion.config.serialise import KIND, from_file, to_json
from dreamfusion.errors import DiskFull, UserError
from dreamfusion.files import DISK_FULL, denial, permitted, read_json
from dreamfusion.healing import Healing, healing_from
from dreamfusion.loop import Run, start
from dreamfusion.own_parts import OwnParts, Unpack, names, stateful
from dreamfusion.shampoo import Shampoo
from dreamfusion.version import VERSION

FORMAT = 4
HEAD = "checkpoint.json"
OBEYED = ("steps", "prior", "device", "threads", "checkpoint_steps", "preview_seconds", "heal", "output")
"""What may be edited in a run's `config.json` later, beside `memory.embeddings`: where, how long, and which files"""


def save(run: Run, folder: Path) -> None:
    """Write the run into `folder`, replacing the checkpoint that is there.

    A kill or an error at any moment leaves a folder that loads: with the old state or the new. Raises UserError if the
    folder cannot be written, or the disk is full.
    """
    with _explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
        content = bytes_from_tensors(_tensors(run))
        digest = hashlib.sha256(content).hexdigest()
        name = f"tensors-{digest[:16]}.safetensors"
        head = {"format": FORMAT, "step": run.step, "tensors": name, "sha256": digest, "config": to_json(run.config)}
        head |= {"healings": [healing.record() for healing in run.healings]} if run.healings else {}
        _write(folder / name, content)
        _write(folder / HEAD, (json.dumps(head, indent=2, ensure_ascii=False) + "\n").encode())
        for path in folder.iterdir():
            if path.name not in (name, HEAD) and path.name.startswith(("tensors-", ".part-")):
                path.unlink()


def load(
    folder: Path,
    device: torch.device,
    told: Config | None = None,
    more: tuple[Healing, ...] = (),
    **own: Unpack[OwnParts],
) -> Run:
    """The run as it was saved, on any device, with what the configuration `told` may change (`agreed`).

    `more` healings are added to those it had. `own` parts are those that `start` was given; their state is put into
    them. Raises UserError if the checkpoint is missing, damaged or of another version, if `told` is another run's, or
    if `own` are not the parts it was made with.
    """
    head, tensors = _read(folder)
    config = from_file(Config, head["config"], folder / HEAD)
    if added := [name for name in names(own) if name not in config.custom]:
        raise UserError(f"the run in {folder} was made without own {', '.join(added)}: start a new run with them")
    healings = (*_healings(head, folder), *more)
    run = start(config if told is None else agreed(told, config), device, healings=healings, **own)
    try:
        _restore(run, tensors)
    except (KeyError, IndexError, TypeError, RuntimeError, ValueError) as error:
        kept = f" and its own {', '.join(config.custom)}" if config.custom else ""
        raise UserError(f"the checkpoint in {folder} does not fit its configuration{kept}: start a new run") from error
    if not 0 <= head["step"] <= config.steps:
        raise UserError(f"{folder / HEAD} is damaged (step {head['step']}): restore it, or start a new run")
    run.step = head["step"]
    return run


def step_of(folder: Path) -> int:
    """Steps done in the checkpoint of a folder. Raises UserError if there is none, or it is damaged."""
    return _read_head(folder)["step"]


def _healings(head: Mapping[str, Any], folder: Path) -> tuple[Healing, ...]:
    try:
        return tuple(map(healing_from, head.get("healings", ())))
    except (AttributeError, KeyError, TypeError, UserError) as error:
        raise UserError(f"{folder / HEAD} is damaged (its healings): restore it, or start a new run") from error


def agreed(told: Config, saved: Config) -> Config:
    """A run's configuration from its `config.json` and its checkpoint: the first counts in the fields of `OBEYED`.

    Raises UserError, naming the field, if they differ in another one: what was done so far was done with that.
    """
    memory = replace(saved.memory, embeddings=told.memory.embeddings)
    expected = replace(saved, memory=memory, **{name: getattr(told, name) for name in OBEYED})
    if expected != told:
        field, edited, old = next(_differences("", to_json(told), to_json(expected)))
        raise UserError(
            f"{field} is {edited} in config.json, but the run was made with {old}: put that back, or begin a new run"
            " from the file with `dreamfusion generate --config`"
        )
    return expected


def _differences(where: str, one: Any, other: Any) -> Iterator[tuple[str, Any, Any]]:
    """Names and values of the fields in which two configurations differ, as they are in the file."""
    if isinstance(one, dict) and isinstance(other, dict) and one.get(KIND) == other.get(KIND):
        for name in one:
            yield from _differences(f"{where}.{name}".lstrip("."), one[name], other[name])
    elif one != other:
        yield where, one, other


def _tensors(run: Run) -> dict[str, Tensor]:
    """All state, under flat names."""
    scene = {f"scene.{name}": tensor for name, tensor in run.scene.state_dict().items()}
    memory = {
        f"optimiser.{index}.{name}": tensor
        for index, state in run.optimiser.state_dict()["state"].items()
        for name, tensor in state.items()
    }
    beside = {
        f"{prefix}{name}": tensor
        for prefix, part in stateful(run.distillation.law, run.recipe.regularisers).items()
        for name, tensor in part.state_dict().items()
    }
    everything = scene | beside | memory | {"generator": run.generator.get_state()}
    return {name: tensor.detach().cpu().contiguous() for name, tensor in everything.items()}


def _restore(run: Run, tensors: Mapping[str, Tensor]) -> None:
    run.scene.load_state_dict(_under("scene.", tensors))
    build.follow(run.optimiser, run.scene)
    for prefix, part in stateful(run.distillation.law, run.recipe.regularisers).items():
        part.load_state_dict({name: tensor.to(run.device) for name, tensor in _under(prefix, tensors).items()})
    build.learn(run.optimiser, run.distillation.law)
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in _under("optimiser.", tensors).items():
        index, key = name.split(".", 1)
        state.setdefault(int(index), {})[key] = tensor
    require_fit(run.optimiser, state)
    run.optimiser.load_state_dict({"state": state, "param_groups": run.optimiser.state_dict()["param_groups"]})
    run.generator.set_state(tensors["generator"])


def require_fit(optimiser: torch.optim.Optimizer, state: Mapping[int, Mapping[str, Tensor]]) -> None:
    """Raise ValueError or IndexError unless the state is of these parameters.

    Optimisers trust it, and write where it says: a memory of another shape overwrites what is not theirs.
    """
    parameters = [parameter for group in optimiser.param_groups for parameter in group["params"]]
    for index, found in state.items():
        parameter = parameters[index]
        moments = {"step": torch.Size(), "exp_avg": parameter.shape, "exp_avg_sq": parameter.shape}
        wanted = optimiser.state_shapes(parameter) if isinstance(optimiser, Shampoo) else moments
        if wanted != {name: tensor.shape for name, tensor in found.items()}:
            raise ValueError(f"the optimiser's memory of parameter {index} has another shape")


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _read(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The head and its tensors, which its owner may replace meanwhile: then those that came instead."""
    while True:
        head = _read_head(folder)
        try:
            return head, _read_tensors(folder / head["tensors"], head["sha256"])
        except UserError:
            if _read_head(folder) == head:
                raise


@permitted()
def _read_head(folder: Path) -> dict[str, Any]:
    path = folder / HEAD
    if not path.exists():
        raise UserError(f"there is no checkpoint in {folder}: give the folder of a run that was saved")
    head = read_json(path, "restore it, or start a new run")
    wanted = {"format": int, "step": int, "tensors": str, "sha256": str, "config": dict}
    if isinstance(head, dict) and head.get("format", FORMAT) != FORMAT:
        config = head.get("config")
        version = config.get("version") if isinstance(config, dict) else None
        by = f"dreamfusion {version}" if version else "another version of dreamfusion"
        raise UserError(
            f"{path} was written by {by} in format {head['format']}, and this is {VERSION}, which reads {FORMAT}: use"
            " that version, or start a new run"
        )
    if not isinstance(head, dict) or any(not isinstance(head.get(key), kind) for key, kind in wanted.items()):
        raise UserError(f"{path} is damaged (it lacks one of {', '.join(wanted)}): restore it, or start a new run")
    if Path(head["tensors"]).name != head["tensors"]:
        raise UserError(f"{path} names tensors in another folder, {head['tensors']}: restore it, or start a new run")
    return head


def _read_tensors(path: Path, sha256: str) -> dict[str, Tensor]:
    try:
        with permitted(path):
            content = path.read_bytes()
    except ValueError as error:  # no file could have such a name
        raise UserError(f"{path} cannot be read ({error}): restore it, or start a new run") from error
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): restore it, or start a new run") from error
    if hashlib.sha256(content).hexdigest() != sha256:
        raise UserError(f"{path} is damaged or cut short: restore it, or start a new run")
    try:
        return tensors_from_bytes(content)
    except SafetensorError as error:
        raise UserError(f"{path} is no safetensors file ({error}): restore it, or start a new run") from error


def _write(path: Path, content: bytes) -> None:
    """Write a whole file, or nothing, and have it on the disk before returning."""
    part = path.with_name(f".part-{path.name}")
    with open(part, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, path)


@contextmanager
def _explained(folder: Path) -> Iterator[None]:
    try:
        yield
    except PermissionError as error:
        raise UserError(f"no checkpoint written: {denial(folder)}; what was saved before is intact") from error
    except OSError as error:
        full = error.errno in DISK_FULL
        what = "the disk is full, free some space" if full else f"{error.strerror}, check the folder's permissions"
        kind = DiskFull if full else UserError
        raise kind(f"no checkpoint written to {folder}: {what}; what was saved before is intact") from error
