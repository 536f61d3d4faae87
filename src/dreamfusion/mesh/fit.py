"""A mesh that shows what the renderings of its scene show: its vertices and texels learn from some of them."""

import torch

from dreamfusion.config import MeshConfig, RefineConfig
from dreamfusion.lights import albedo_only
from dreamfusion.mesh.agreement import sides
from dreamfusion.mesh.refined import put_into, taken_from
from dreamfusion.mesh.triangles import Mesh
from dreamfusion.nerf.render import RenderOptions, render_views
from dreamfusion.nerf.scene import Scene
from dreamfusion.surface import MeshScene
from dreamfusion.surface.regularise import bending, laplacian

_ROUNDS = 3
_RATES = {"vertices": 2e-3, "grid": 0.02}
_STIFFNESS = (0.1, laplacian), (0.1, bending)


def fitted(mesh: Mesh, scene: Scene, look: RenderOptions, size: int) -> Mesh:
    """The mesh after some steps towards the scene's unlit renderings of `size` pixels from all around.

    `look`: settings of the renderings. The mesh must be baked; it stays closed.
    """
    cameras = sides(scene, size, turn=0.25)
    background = torch.rand(len(cameras), 3, generator=torch.Generator().manual_seed(0)).to(cameras.pose)
    light = albedo_only(len(cameras), cameras.pose.device)
    wanted = render_views(scene, cameras, light, look, background)
    learner = _learner(mesh, scene)
    own = learner.parameter_groups()
    groups = [{"params": own[name], "lr": rate} for name, rate in _RATES.items()]
    optimiser = torch.optim.Adam(groups, betas=(0.8, 0.95))
    for view in [*range(len(cameras))] * _ROUNDS:
        one = slice(view, view + 1)
        picture = learner.draw(cameras[one], light[one], background[one], normals=False)
        missed = (picture.rgb - wanted.rgb[one]).square().sum(-1).mean()
        stiff = [weight * term for weight, f in _STIFFNESS if (term := f(learner)) is not None]
        optimiser.zero_grad()
        torch.stack([missed, *stiff]).sum().backward()
        optimiser.step()
    return taken_from(learner)


def _learner(mesh: Mesh, scene: Scene) -> MeshScene:
    assert mesh.texture is not None
    config = MeshConfig(len(mesh.vertices), len(mesh.faces), told=RefineConfig(texture_size=len(mesh.texture)))
    learner = MeshScene(config, scene.background, scene.radius).to(scene.occupancy.density.device)
    put_into(learner, mesh)
    return learner
