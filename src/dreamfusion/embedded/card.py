"""The embedded prior's model card: made after training, read by `priors`, shown by `dreamfusion prior info`."""

import json
from importlib import resources
from typing import Any

from dreamfusion.embedded import dataset, views
from dreamfusion.embedded.table import learned, names, nouns

LICENCE = (
    "Trained only on renderings of CC0 1.0 meshes by Kenney (kenney.nl), Quaternius (quaternius.com) and Kay Lousberg "
    "(kaylousberg.com). The weights are CC0 1.0 too."
)
LIMITS = (
    "It knows these nouns and colours and no other words, single toy-like objects on plain backgrounds, from its own "
    "cameras. Of nouns with several meshes it draws a mixture where little is told. It is made to be distilled into 3D "
    "by this package, not to make pictures."
)


def make_card(steps: int, pictures: int, seconds: float) -> dict[str, Any]:
    """The card of weights trained for `steps` steps, on `pictures` pictures in all, in `seconds` of wall time.

    What was measured of them is added as "quality" once it is: a record of texts.
    """
    table = nouns()
    return {
        "name": "toybox-3",
        "image_size": views.SIZE,
        "view_words": dataset.VIEW_WORDS,
        "overhead_above_deg": dataset.OVERHEAD_ABOVE_DEG,
        "conditions": ["background", "light", "pose", "variety"],
        "vocabulary": dataset.vocabulary(),
        "zero_padding": True,
        "nouns": names(table),
        "colours": list(dataset.COLOURS),
        "world": {
            "camera_distance": views.DISTANCE,
            "fov_deg": views.FOV_DEG,
            "elevation_deg": list(views.ELEVATION_DEG),
            "object": "centred, inside the ball of radius 0.95, front towards +z",
        },
        "data": {
            "meshes": len(learned(table)),
            "kept meshes": [row.file for row in table if row.kept_from == "prior"],
            "kept pairs": [f"{c} {n}" for n in names(table) for c in dataset.COLOURS if dataset.held_out(c, n)],
        },
        "training": {"steps": steps, "pictures": pictures, "hours": round(seconds / 3600, 2)},
        "limits": LIMITS,
        "licence": LICENCE,
    }


def describe() -> str:
    """What the shipped prior is and knows, for people."""
    path = resources.files("dreamfusion.embedded").joinpath("weights/card.json")
    card = json.loads(path.read_text(encoding="utf-8"))
    views = [word for key, word in card["view_words"].items() if key != "textureless"]
    return "\n".join(
        [
            f"{card['name']}: a small text-to-image model of {card['image_size']} x {card['image_size']} pixels",
            f"  trained on   {card['training']['pictures']:,} pictures of {card['data']['meshes']} meshes "
            f"({card['training']['steps']:,} steps, {card['training']['hours']} hours)",
            f"  never saw    {len(card['data']['kept meshes'])} other meshes of its nouns, nor "
            f"{len(card['data']['kept pairs'])} pairs such as {', '.join(card['data']['kept pairs'][:3])}",
            *(f"  measured     {what}: {found}" for what, found in card.get("quality", {}).items()),
            f"  nouns ({len(card['nouns'])})   {', '.join(card['nouns'])}",
            f"  colours      {', '.join(card['colours'])}",
            f"  views        {', '.join(views)}; {card['view_words']['textureless']} for the bare shape",
            f"  can be told  {', '.join(card['conditions'])}",
            f"  limits       {card['limits']}",
            f"  licence      {card['licence']}",
        ]
    )
