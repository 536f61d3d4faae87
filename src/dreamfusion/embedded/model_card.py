"""The embedded prior's model card, for people: shown by `dreamfusion prior info`."""

import json
from importlib import resources


def describe() -> str:
    """The shipped prior's card as text: network, vocabulary, limits."""
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
