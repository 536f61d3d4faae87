"""Lambertian shading (DreamFusion, section 3.1, "Shading")."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dreamfusion.geometry import normalise
from dreamfusion.lights import Light
from dreamfusion.nerf.fields import FieldOutput


def lambert(
    matter: FieldOutput, place: Float[Tensor, "m 3"], light: Light, view: Int[Tensor, " m"]
) -> Float[Tensor, "m 3"]:
    """Reflected colour at `place`, each sample lit by the light of its view.

    colour = (1 where the light is white, else albedo) * (ambient + diffuse * max(0, normal . to_light)).
    Matter without normals sees the ambient part alone: right for views whose diffuse light is 0.
    """
    reflected = torch.where(light.textureless[view, None], torch.ones_like(matter.albedo), matter.albedo)
    brightness = light.ambient[view]
    if matter.normal is not None:
        to_light = normalise(light.position[view] - place)
        facing = (matter.normal * to_light).sum(-1).clamp(min=0)
        brightness = brightness + light.diffuse[view] * facing
    return reflected * brightness[:, None]
