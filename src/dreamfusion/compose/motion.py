"""Procedural motion of whole objects as glTF animations: they spin, bob up and down, or swing; nothing is learned.

Each motion is periodic and ends as it began, so that players that repeat an animation show no seam. Keys lie evenly in
time and are joined linearly, rotations along the great arc, as players must do (glTF 2.0 specification, appendix C).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from dreamfusion.config.serialise import from_json
from dreamfusion.errors import UserError

KEYS = 32
"""parts of a period between keys: a sine between them is off by at most 1 - cos(pi / 32), half a percent of its rise"""
_FLOAT = 5126  # glTF's number for 32 bits


@dataclass(frozen=True)
class Spin:
    """Turns evenly about the vertical through its origin, the way the turntable shows it."""

    period_s: float = 4.0
    """seconds of a whole turn"""


@dataclass(frozen=True)
class Bob:
    """Rises and sinks back, without going below its place."""

    period_s: float = 2.0
    """seconds until it is down again"""
    height_m: float = 0.05
    """how far it rises, metres"""


@dataclass(frozen=True)
class Swing:
    """Leans to its left and right, about the axis through its origin that points to the front of the scene."""

    period_s: float = 2.0
    """seconds until it leans to the same side again"""
    angle_deg: float = 10.0
    """how far to either side"""


Motion = Spin | Bob | Swing
KINDS: Mapping[str, type[Motion]] = {"spin": Spin, "bob": Bob, "swing": Swing}
LARGEST = 3600.0
"""of any of their numbers"""


@dataclass(frozen=True)
class Track:
    """Keys of one property of a node over a period."""

    path: str
    """rotation or translation, as glTF has it"""
    times: Float[np.ndarray, " keys"]
    """seconds from 0 to the period"""
    values: Float[np.ndarray, "keys width"]
    """unit quaternions x, y, z, w or metres; the last one is the first one again"""


def motion_from(content: Any, where: str) -> Motion:
    """The motion that a file describes: `{"kind": "spin", "period_s": 4}`. Raises UserError."""
    kind = content.get("kind") if isinstance(content, Mapping) else None
    if not isinstance(kind, str) or kind not in KINDS:
        raise UserError(f'{where} must be an object with kind {", ".join(KINDS)}, as {{"kind": "spin", "period_s": 4}}')
    motion = from_json(KINDS[kind], {name: value for name, value in content.items() if name != "kind"}, where)
    for name, value in vars(motion).items():
        if not 0 < value <= LARGEST:
            raise UserError(f"{where}.{name} must be above 0 and at most {LARGEST:g}, not {value}")
    return motion


def kind_of(motion: Motion) -> str:
    """Its name in files."""
    return next(name for name, kind in KINDS.items() if isinstance(motion, kind))


def track_of(motion: Motion, origin: Sequence[float]) -> Track:
    """Keys of an object whose origin is at rest at `origin` (metres)."""
    phase = 2 * np.pi * np.arange(KEYS + 1) / KEYS
    times = motion.period_s * np.arange(KEYS + 1) / KEYS
    match motion:
        case Spin():  # q and -q are one rotation: half the angle ends at -q without a seam
            return Track("rotation", times, _about(1, -phase))
        case Swing(angle_deg=angle):
            return Track("rotation", times, _about(2, -math.radians(angle) * np.sin(phase)))
        case Bob(height_m=height):
            rise = np.zeros((KEYS + 1, 3))
            rise[:, 1] = height * (1 - np.cos(phase)) / 2
            return Track("translation", times, rise + np.asarray(origin, float))


def animated(
    tree: Mapping[str, Any], block: bytes, moved: Sequence[tuple[int, str, Motion]]
) -> tuple[dict[str, Any], bytes]:
    """The tree and the block of a file with an animation for each period among the motions of its nodes.

    `moved`: number, name and motion of each node, which is at rest where its `translation` says.
    """
    accessors, views = list(tree["accessors"]), list(tree["bufferViews"])
    animations, times = dict[float, dict[str, Any]](), dict[float, int]()

    def stored(values: Float[np.ndarray, "..."], kind: str, **bounds: object) -> int:
        nonlocal block
        content = values.astype("<f4").tobytes()
        views.append({"buffer": 0, "byteOffset": len(block), "byteLength": len(content)})
        block += content
        told = {"bufferView": len(views) - 1, "componentType": _FLOAT, "count": len(values), "type": kind}
        accessors.append({**told, **bounds})
        return len(accessors) - 1

    block += bytes(-len(block) % 4)
    for node, name, motion in moved:
        track = track_of(motion, tree["nodes"][node].get("translation", (0.0, 0.0, 0.0)))
        if motion.period_s not in animations:
            empty = {"samplers": [], "channels": [], "extras": {"procedural": []}}
            animations[motion.period_s] = {"name": f"every {motion.period_s:g} s", **empty}
            ends = {"min": [0.0], "max": [float(np.float32(motion.period_s))]}
            times[motion.period_s] = stored(track.times, "SCALAR", **ends)
        animation = animations[motion.period_s]
        values = stored(track.values, "VEC4" if track.path == "rotation" else "VEC3")
        keys = {"input": times[motion.period_s], "output": values, "interpolation": "LINEAR"}
        target = {"node": node, "path": track.path}
        animation["channels"].append({"sampler": len(animation["samplers"]), "target": target})
        animation["samplers"].append(keys)
        animation["extras"]["procedural"].append({"name": name, "kind": kind_of(motion), **vars(motion)})
    told = {"accessors": accessors, "bufferViews": views, "buffers": [{"byteLength": len(block)}]}
    return {**tree, **told, "animations": list(animations.values())}, block


def _about(axis: int, angles: Float[np.ndarray, " keys"]) -> Float[np.ndarray, "keys 4"]:
    """Unit quaternions of turns about an axis of the scene, radians."""
    turns = np.zeros((len(angles), 4))
    turns[:, axis], turns[:, 3] = np.sin(angles / 2), np.cos(angles / 2)
    return turns
