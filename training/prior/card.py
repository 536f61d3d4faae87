"""The embedded prior's model card: made after training, read by `priors`, shown by `dreamfusion prior info`."""

from collections.abc import Sequence
from typing import Any

from dreamfusion.embedded import world
from training.nouns import LICENCE, Noun, learned, names
from training.prior import data as dataset

LIMITS = (
    "It remembers things and recolours them; it does not invent. It knows these nouns and colours and no other words, "
    "single toy-like objects on plain backgrounds, from its own cameras. Of nouns with several meshes it draws a "
    "mixture where little is told. It is made to be distilled into 3D by this package, not to make pictures."
)


def make_card(
    table: Sequence[Noun], steps: int, pictures: int, seconds: float, licence: str = LICENCE
) -> dict[str, Any]:
    """The card of weights trained for `steps` steps, on `pictures` pictures in all, in `seconds` of wall time.

    What was measured of them is added as "quality" once it is: a record of texts.
    """
    return {
        "name": "toybox-4",
        "image_size": world.SIZE,
        "view_words": dataset.VIEW_WORDS,
        "overhead_above_deg": dataset.OVERHEAD_ABOVE_DEG,
        "conditions": ["background", "light", "pose", "variety"],
        "vocabulary": dataset.vocabulary(table),
        "zero_padding": True,
        "nouns": names(table),
        "colours": list(world.COLOURS),
        "world": {
            "camera_distance": world.DISTANCE,
            "fov_deg": world.FOV_DEG,
            "elevation_deg": list(world.ELEVATION_DEG),
            "object": "centred, inside the ball of radius 0.95, front towards +z",
        },
        "data": {
            "meshes": len(learned(table)),
            "kept meshes": [row.file for row in table if row.kept_from == "prior"],
            "kept pairs": [f"{c} {n}" for n in names(table) for c in world.COLOURS if dataset.held_out(c, n)],
        },
        "training": {"steps": steps, "pictures": pictures, "hours": round(seconds / 3600, 2)},
        "limits": LIMITS,
        "licence": licence,
    }
