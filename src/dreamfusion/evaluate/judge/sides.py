"""The sides of an object that the judge tells apart, and what a mirror makes of them."""

import torch

SIDES = ("front", "left", "back", "right", "none")
"""what can be seen: the object's own sides; none from above, and of what has no front"""
MIRRORED = torch.tensor([SIDES.index({"left": "right", "right": "left"}.get(side, side)) for side in SIDES])
