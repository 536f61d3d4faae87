"""The renderer written down naively: every sample of every ray, one loop over the bins, nothing left out or packed."""

import torch

from dreamfusion.geometry import intersect_ball
from dreamfusion.nerf.fields import Gaussians, surface
from dreamfusion.nerf.rays import cast, means, variances


def dense_render(scene, cameras, light, samples, background):
    """Pictures "b h w 3" and opacities "b h w" for evenly spaced samples, lit by the textbook formula."""
    rays = cast(cameras)
    near, far = intersect_ball(rays.origin, rays.direction, scene.radius)
    t = near[:, None] + (far - near)[:, None] * torch.linspace(0, 1, samples + 1, dtype=near.dtype)
    mean, var = means(rays, t), variances(rays, t)
    view = torch.arange(len(cameras)).repeat_interleave(cameras.height * cameras.width)
    passed = torch.ones_like(near)
    rgb = torch.zeros_like(rays.origin)
    for i in range(samples):
        matter = surface(scene.field, Gaussians(mean=mean[:, i], var=var[:, i]), create_graph=True)
        to_light = light.position[view] - mean[:, i]
        to_light = to_light / to_light.norm(dim=-1, keepdim=True)
        facing = (matter.normal * to_light).sum(-1).clamp(min=0)
        albedo = torch.where(light.textureless[view][:, None], 1.0, matter.albedo)
        colour = albedo * (light.ambient[view] + light.diffuse[view] * facing)[:, None]
        alpha = 1 - torch.exp(-matter.density * (t[:, i + 1] - t[:, i]))
        rgb = rgb + (passed * alpha)[:, None] * colour
        passed = passed * (1 - alpha)
    shape = (len(cameras), cameras.height, cameras.width)
    rgb = rgb + passed[:, None] * background[view]
    return rgb.view(*shape, 3), (1 - passed).view(shape)
