"""What several tests need: a run so small that a step takes milliseconds, and priors to judge it."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from dreamfusion.config import (
    CameraConfig,
    Config,
    DistillConfig,
    GridField,
    LightConfig,
    OccupancyConfig,
    OptimiseConfig,
    OutputConfig,
    RenderConfig,
    SceneConfig,
)
from gaussian_prior import GaussianPrior, cosine_schedule

SIZE = 16

# Threads help nothing at these sizes, and spin where cores are busy.
torch.set_num_threads(1)


@pytest.fixture
def tiny_config() -> Config:
    """Every part of a real run, as small as it goes."""
    return Config(
        prompt="a ball",
        steps=12,
        size=SIZE,
        views=2,
        checkpoint_every=4,
        preview_every=0.0,
        device="cpu",
        threads=1,
        scene=SceneConfig(
            field=GridField(cells=(4, 8), colour_cells=(4, 8), features=2, hidden=8),
            occupancy=OccupancyConfig(cells=8, every=3, parts=2),
        ),
        camera=CameraConfig(distance=(3.0, 3.0), fov_deg=(40.0, 40.0)),
        light=LightConfig(albedo_until=0.25),
        render=RenderConfig(samples=12),
        distill=DistillConfig(guidance_scale=1.0),
        optimise=OptimiseConfig(grid=0.05),
        output=OutputConfig(frames=3, frame_size=32, sheet_size=16, mesh_resolution=16, texture_size=64),
    )


@pytest.fixture
def disc_prior() -> GaussianPrior:
    """Thinks that every picture is a red disc on white."""
    y, x = torch.meshgrid(*[torch.linspace(-1, 1, SIZE)] * 2, indexing="ij")
    inside = (x.square() + y.square()).sqrt() < 0.5
    colour = torch.where(inside[None], torch.tensor([0.9, 0.1, 0.1])[:, None, None], torch.ones(3, 1, 1))
    schedule = cosine_schedule(dtype=torch.float32)
    return GaussianPrior({"": 2 * colour - 1}, std=0.1, schedule=schedule, image_size=SIZE)


@pytest.fixture
def long_config(tiny_config: Config) -> Config:
    """The same with time to become something."""
    return replace(tiny_config, steps=120)


@pytest.fixture(scope="session")
def miniature_folders(tmp_path_factory) -> dict[str, Path]:
    """A folder per kind of pipeline (`miniatures`)."""
    import miniatures

    place = tmp_path_factory.mktemp("miniatures")
    return {kind: miniatures.save(kind, place / kind) for kind in miniatures.BUILDERS}
