"""What `--heal` changes of a run that goes wrong, and what is written down of it (docs/health.md).

A remedy is the finding's own, or puts a group of settings back to the preset's, that first which the finding makes most
suspect. Where none of them differs, the run begins anew, and then it learns more slowly.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dreamfusion.config import Config
from dreamfusion.config.check import validate
from dreamfusion.config.presets import FAST, PRESETS
from dreamfusion.config.serialise import from_json, to_json
from dreamfusion.errors import UserError
from dreamfusion.files import write_json
from dreamfusion.health import Finding

SLOWER = "half the learning rates"
KEPT = {"optimise", "regularise"}
"""settings that may change half-way"""


@dataclass(frozen=True)
class Healing:
    """One time that a run was healed."""

    finding: str
    """in words"""
    step: int
    """steps that were done when it was found"""
    back_to: int
    """step from which the run went on; 0: it began anew"""
    remedy: str
    changes: Mapping[str, Any]
    """fields of `Config`, with their new values"""

    def __str__(self) -> str:
        return f"step {self.step}: {self.finding}; back to step {self.back_to} with {self.remedy}"

    def record(self) -> dict[str, Any]:
        """For JSON; `healing_from` reads it."""
        plain = to_json(replace(Config(), **self.changes))
        return {**vars(self), "changes": {name: plain[name] for name in self.changes}}


def healing_from(record: Mapping[str, Any]) -> Healing:
    """What `Healing.record` wrote. Raises UserError or TypeError for anything else."""
    changed = from_json(Config, record["changes"])
    return Healing(**{**record, "changes": {name: getattr(changed, name) for name in record["changes"]}})


def write_healings(healings: Iterable[Healing], path: Path) -> None:
    """Write down what was done, for people and programs; nothing where nothing was."""
    if records := [healing.record() for healing in healings]:
        write_json(path, {"healings": records})


def acting(config: Config, healings: Iterable[Healing]) -> Config:
    """What a run does that was told `config`."""
    for healing in healings:
        config = replace(config, **healing.changes)
    return config


def healing_of(
    finding: Finding, step: int, saved: int, config: Config, healings: tuple[Healing, ...]
) -> Healing | None:
    """What to do about a finding, if anything; `saved` is the step of the last checkpoint, before anything was found.

    In its first half a run begins anew with other settings, as all it has was made with the wrong ones. So it does when
    it is healed again, and with another optimiser, or what makes its pictures and gradients unlike those at first.
    """
    now = acting(config, healings)
    remedy, changes = next(_remedies(finding, now, healings), ("", {}))
    if not remedy:
        return None
    other = changes.keys() - KEPT or changes.get("optimise", now.optimise).method != now.optimise.method
    early = remedy != SLOWER and 2 * step < config.steps
    return Healing(str(finding), step, 0 if healings or other or early else saved, remedy, changes)


def _remedies(finding: Finding, now: Config, healings: tuple[Healing, ...]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """What may help, with the fields that it changes; the best first. Where no setting is suspect, none is slowed."""
    own = {name: value for name, value in finding.rule.remedy if getattr(now, name) != value}
    if own and _valid(replace(now, **own)):
        yield " and ".join(f"{name} {value}" for name, value in own.items()), own
    if not finding.rule.suspects:
        return
    usual = PRESETS.get(now.preset, FAST)
    distill, scene = replace(usual.distill, law=now.distill.law), replace(usual.scene, field=now.scene.field)
    usual = replace(usual, distill=distill, scene=scene)
    for group in finding.rule.suspects:
        changes = {name: getattr(usual, name) for name in group if getattr(usual, name) != getattr(now, name)}
        if changes and _valid(replace(now, **changes)):
            yield f"the preset's {' and '.join(changes)}", changes
    if healings and healings[-1].back_to:
        yield "the same settings", {}
    rates = {name: getattr(now.optimise, name) / 2 for name in ("grid", "network", "background")}
    yield SLOWER, {"optimise": replace(now.optimise, **rates)}


def _valid(config: Config) -> bool:
    try:
        validate(config)
    except UserError:
        return False
    return True
