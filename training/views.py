"""What cameras see of meshes: rendered once by ray casting, on all cores, for the trainings to draw pictures from."""

from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from typing import Any, TypeVar

import numpy as np
from jaxtyping import Float, UInt8
from torch import Tensor

from dreamfusion.cameras import Cameras
from dreamfusion.nerf.rays import cast
from training.meshes import MeshRenderer

SUPERSAMPLE = 2
"""rays along each side of a pixel"""
BUFFERS = ("paint", "rest", "normal", "alpha")
Rendered = TypeVar("Rendered")


def buffers(
    renderer: MeshRenderer, cameras: Cameras, stretch: Float[Tensor, "n 3"] | None = None
) -> dict[str, UInt8[np.ndarray, "n h w *c"]]:
    """What each camera sees of a mesh, which may be stretched along its axes first: `BUFFERS` by name.

    See `meshes.Buffers`; coverage has no axis of channels.
    """
    seen = []
    for i in range(len(cameras)):
        rays = cast(cameras[i : i + 1].resized(cameras.height * SUPERSAMPLE))
        origin, direction = rays.origin.double().numpy(), rays.direction.double().numpy()
        factor = None if stretch is None else stretch[i].double().numpy()
        if factor is not None:  # rays in the axes of the mesh before it was stretched
            origin, direction = origin / factor, direction / factor
            direction /= np.linalg.norm(direction, axis=-1, keepdims=True)
        view = renderer.buffers(origin, direction, cameras.height, SUPERSAMPLE)
        seen.append(view if factor is None else replace(view, normal=_leaning(view.normal, factor)))
    return {name: np.stack([getattr(view, name) for view in seen]) for name in BUFFERS}


def on_all_cores(
    render: Callable[..., Rendered], jobs: Sequence[tuple[Any, ...]], done: Callable[[Rendered], None]
) -> None:
    """Call `render` with the arguments of each job in processes of their own, `done` with each result in turn."""
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
        for result in pool.map(render, *zip(*jobs, strict=True)) if jobs else ():
            done(result)


def _leaning(normal: UInt8[np.ndarray, "h w 3"], factor: np.ndarray) -> UInt8[np.ndarray, "h w 3"]:
    """Normals of a surface that was stretched."""
    leaning = (normal / 127 - 1) / factor
    length = np.maximum(np.linalg.norm(leaning, axis=-1, keepdims=True), 1)
    return np.round(leaning / length * 127 + 127).astype(np.uint8)
