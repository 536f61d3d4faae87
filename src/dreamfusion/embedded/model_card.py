"""The embedded prior's model card and words, for people: shown by `dreamfusion prior info`."""

import json
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path

from dreamfusion.words import read_words


def describe() -> str:
    """The shipped prior's card as text: network, limits, and its vocabulary with the words that are understood too."""
    folder = Path(str(resources.files("dreamfusion.embedded"))) / "weights"
    card = json.loads((folder / "card.json").read_text(encoding="utf-8"))
    words = read_words(folder / "words.ini").lines
    views = [word for key, word in card["view_words"].items() if key != "textureless"]
    return "\n".join(
        [
            f"{card['name']}: a small text-to-image model of {card['image_size']} x {card['image_size']} pixels",
            f"  trained on   {card['training']['pictures']:,} pictures of {card['data']['meshes']} meshes "
            f"({card['training']['steps']:,} steps, {card['training']['hours']} hours)",
            f"  never saw    {len(card['data']['kept meshes'])} other meshes of its nouns, nor "
            f"{len(card['data']['kept pairs'])} pairs such as {', '.join(card['data']['kept pairs'][:3])}",
            *(f"  measured     {what}: {found}" for what, found in card.get("quality", {}).items()),
            f"  views        {', '.join(views)}; {card['view_words']['textureless']} for the bare shape",
            f"  can be told  {', '.join(card['conditions'])}",
            f"  limits       {card['limits']}",
            f"  licence      {card['licence']}",
            f"  left out     {', '.join(word for line in words['left out'].values() for word in line)}",
            f"  colours ({len(card['colours'])}), and the words that mean them",
            *_listed(card["colours"], words["colours"]),
            f"  nouns ({len(card['nouns'])}), and the words that mean them; plurals too",
            *_listed(card["nouns"], words["nouns"]),
        ]
    )


def _listed(names: Sequence[str], words: Mapping[str, Sequence[str]]) -> list[str]:
    return [f"    {name:<18} {', '.join(words[name])}" for name in names]
