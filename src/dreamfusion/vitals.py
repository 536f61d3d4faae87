"""What a step's pictures say of the run, in a few numbers that cost nothing beside the step; `health` reads them."""

from collections.abc import Mapping

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from dreamfusion.lights import Light
from dreamfusion.nerf.occupancy import Occupancy
from dreamfusion.nerf.render import Picture

SEEN = 0.5
"""opacity from which a pixel shows the object"""
END = 0.05
"""nearness to 0 and 1 of the channels of a neon colour"""
_MOMENTS = ("zz", "yy", "xx", "zy", "zx", "yx")


@torch.no_grad()
def measured(picture: Picture, light: Light, occupancy: Occupancy | None) -> dict[str, Float[Tensor, ""]]:
    """Means over all pixels of some views, and the moments of the matter, if its `occupancy` has news.

    soft: o (1 - o), in [0, 1/4]. border: opacity of the outermost pixels. coloured: share of the pixels that show the
    object in its colours. light, chroma, neon: sums over those, per pixel of the pictures, of the largest channel, of
    the range of the three, and of one for each that has a channel near 0 and one near 1.
    """
    o, rgb = picture.opacity, picture.rgb
    edge = torch.cat([o[:, 0], o[:, -1], o[:, :, 0], o[:, :, -1]], dim=1)
    coloured = (o > SEEN) & ~light.textureless[:, None, None]
    low, high = rgb.amin(-1), rgb.amax(-1)
    found = {
        "soft": (o * (1 - o)).mean(),
        "border": edge.mean(),
        "coloured": coloured.float().mean(),
        "light": (high * coloured).mean(),
        "chroma": ((high - low) * coloured).mean(),
        "neon": (coloured & (low < END) & (high > 1 - END)).float().mean(),
    }
    return found if occupancy is None else found | _moments(occupancy)


def told(numbers: Mapping[str, float]) -> dict[str, float]:
    """The same on the host; of the moments comes `thickness`, in [0, 1]: the least spread over the middle one."""
    if _MOMENTS[0] not in numbers:
        return dict(numbers)
    zz, yy, xx, zy, zx, yx = (numbers[name] for name in _MOMENTS)
    least, middle, _ = np.linalg.eigvalsh(np.array([[zz, zy, zx], [zy, yy, yx], [zx, yx, xx]]))
    thickness = float(np.sqrt(max(least, 0.0) / middle)) if middle > 0 else 0.0
    return {name: number for name, number in numbers.items() if name not in _MOMENTS} | {"thickness": thickness}


def _moments(occupancy: Occupancy) -> dict[str, Float[Tensor, ""]]:
    """Second central moments of the matter's place, in cells; a cell weighs its optical depth, but at most 1."""
    cells = occupancy.cells
    cube = (occupancy.density * (2 * occupancy.radius / cells)).clamp(max=1).view(cells, cells, cells)
    at = torch.arange(cells, device=cube.device, dtype=cube.dtype) - 0.5 * cells
    zy, zx, yx = (cube.sum(axis) for axis in (2, 1, 0))
    zy, zx, yx = (plane / zy.sum().clamp(min=torch.finfo(cube.dtype).tiny) for plane in (zy, zx, yx))
    z, y, x = (plane.sum(axis) for plane, axis in ((zy, 1), (zy, 0), (zx, 0)))
    mean_z, mean_y, mean_x = z @ at, y @ at, x @ at
    second = (
        *(line @ at.square() - mean.square() for line, mean in ((z, mean_z), (y, mean_y), (x, mean_x))),
        at @ zy @ at - mean_z * mean_y,
        at @ zx @ at - mean_z * mean_x,
        at @ yx @ at - mean_y * mean_x,
    )
    return dict(zip(_MOMENTS, second, strict=True))
