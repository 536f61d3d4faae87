"""The embedded prior's model card: made after training, read by `priors`, shown by `dreamfusion prior info`."""

import json
from importlib import resources
from typing import Any

from dreamfusion.embedded import dataset
from dreamfusion.embedded.table import names

LICENCE = (
    "Trained only on renderings of CC0 1.0 meshes by Kenney (kenney.nl), Quaternius (quaternius.com) and Kay Lousberg "
    "(kaylousberg.com). The weights are CC0 1.0 too."
)


def make_card(steps: int, pictures: int) -> dict[str, Any]:
    """The card of weights trained for `steps` steps, on `pictures` pictures in all."""
    return {
        "name": "toybox-2",
        "image_size": dataset.SIZE,
        "view_words": dataset.VIEW_WORDS,
        "overhead_above_deg": dataset.OVERHEAD_ABOVE_DEG,
        "conditions": ["background", "light", "pose"],
        "vocabulary": dataset.vocabulary(),
        "zero_padding": True,
        "nouns": names(dataset.nouns()),
        "colours": list(dataset.COLOURS),
        "world": {
            "camera_distance": dataset.DISTANCE,
            "fov_deg": dataset.FOV_DEG,
            "elevation_deg": list(dataset.ELEVATION_DEG),
            "object": "centred, inside the ball of radius 0.95, front towards +z",
        },
        "training": {"steps": steps, "pictures": pictures},
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
            f"  trained on   {card['training']['pictures']:,} pictures ({card['training']['steps']:,} steps)",
            f"  nouns ({len(card['nouns'])})   {', '.join(card['nouns'])}",
            f"  colours      {', '.join(card['colours'])}",
            f"  views        {', '.join(views)}; {card['view_words']['textureless']} for the bare shape",
            f"  can be told  {', '.join(card['conditions'])}",
            f"  licence      {card['licence']}",
        ]
    )
