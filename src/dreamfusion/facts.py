"""What a run's page says of it in words: how it was made, what its mesh would be as a solid, how the run went."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dreamfusion import candidates, provenance
from dreamfusion.errors import UserError
from dreamfusion.files import read_json
from dreamfusion.health import found_in, in_words
from dreamfusion.loop import Run
from dreamfusion.runs import RunFolder

_SOLID = {
    "height_mm": float, "material": str, "stands": bool, "tip_angle_deg": float, "volume_cm3": float, "weight_g": float,
}  # fmt: skip
_CANDIDATES = {"scorer": str, "chosen": int, "candidates": list}


def facts_of(run: Run, folder: RunFolder) -> dict[str, object]:
    """The lines of the page's table, by name; empty ones say nothing. Raises UserError for damaged files."""
    return provenance.metadata(run.config, run.step) | _as_a_solid(folder) | _health(run, folder)


def _as_a_solid(folder: RunFolder) -> dict[str, object]:
    """What the mesh is as a real thing; nothing where it was made before that was measured."""
    if not folder.mesh_report.exists():
        return {}
    advice = f"make it again with `dreamfusion mesh {folder.path}`"
    report = _object(read_json(folder.mesh_report, advice), {}, folder.mesh_report, advice)
    if report.get("solid") is None:
        return {}
    found = _object(report["solid"], _SOLID, folder.mesh_report, advice)
    stands = f"tips over at {found['tip_angle_deg']:.0f} degrees" if found["stands"] else "falls over"
    weight = f"{found['volume_cm3']:.1f} cm3, {found['weight_g']:.0f} g of {found['material']}"
    return {f"at {found['height_mm']:g} mm": f"{stands}; {weight}"}


def _health(run: Run, folder: RunFolder) -> dict[str, object]:
    """What was found, done and chosen."""
    last = folder.read_metrics()[-1:]
    return {
        "health": in_words(found_in(last[0])) or "nothing found" if last else "",
        "healed": "; ".join(map(str, run.healings)),
        "chosen": _chosen(folder),
    }


def _chosen(folder: RunFolder) -> str:
    """Among which candidates, and by what."""
    if not folder.candidates.exists():
        return ""
    advice = "restore it, or delete it: the run does not need it"
    return candidates.in_words(_object(read_json(folder.candidates, advice), _CANDIDATES, folder.candidates, advice))


def _object(value: object, wanted: Mapping[str, Any], path: Path, advice: str) -> Mapping[str, Any]:
    """A value of a JSON file that is to be an object with entries of these types. Raises UserError for another."""
    if not isinstance(value, dict):
        raise UserError(f"{path} is damaged: {advice}")
    for name, kind in wanted.items():
        if not isinstance(value.get(name), kind):
            raise UserError(f"{path} is damaged ({name} is missing or wrong): {advice}")
    return value
