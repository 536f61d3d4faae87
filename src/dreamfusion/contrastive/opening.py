"""From the name that a user gives to an open contrastive model."""

from importlib.resources import files
from pathlib import Path

import torch

from dreamfusion.contrastive.model import ContrastiveModel
from dreamfusion.contrastive.toybox import WEIGHTS, open_toybox
from dreamfusion.errors import UserError
from dreamfusion.files import permitted
from dreamfusion.places import HubId, find

TOYBOX = "toybox-clip"
"""the one that comes with the package"""


@permitted()
def open_contrastive(name: str, device: torch.device | str = "cpu") -> ContrastiveModel:
    """Open "toybox-clip" (comes with the package), a CLIP or SigLIP folder of `transformers`, or a hub id.

    A hub id is owner/name, or owner/name@revision; it is fetched. A folder may also be one that `python -m training
    clip` wrote. Raises UserError if there is no such model, if its files are damaged, or if it is of another kind.
    """
    if name == TOYBOX:
        return open_toybox(Path(str(files("dreamfusion.contrastive"))) / "weights", device)
    place = find(name)
    if place is None:
        raise UserError(
            f'there is no contrastive model {name!r}: give "{TOYBOX}", a CLIP or SigLIP folder, or a hub id'
            " (owner/name)"
        )
    if not isinstance(place, HubId) and (place / WEIGHTS).is_file():
        return open_toybox(place, device)
    from dreamfusion.contrastive.pretrained import open_pretrained

    return open_pretrained(name, place, device)
