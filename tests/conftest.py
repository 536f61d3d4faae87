"""What several tests need: a run so small that a step takes milliseconds, and priors to judge it."""

import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from dreamfusion.config import (
    CameraConfig,
    Config,
    DistillConfig,
    GridFieldConfig,
    LearnedBackground,
    LightConfig,
    MlpFieldConfig,
    OccupancyConfig,
    OptimiseConfig,
    OutputConfig,
    RenderConfig,
    SceneConfig,
)
from dreamfusion.config.presets import PAPER
from dreamfusion.config.serialise import to_json
from dreamfusion.video import PreviewCamera
from gaussian_prior import GaussianPrior, cosine_schedule

SIZE = 16

ROOT = Path(__file__).parents[1]

os.environ["HF_HUB_OFFLINE"] = "1"  # before the hub's client is imported; it would ask and wait

# Threads help nothing at these sizes, and spin where cores are busy. `.ci/run` asks for more.
torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS") or 1))


def pytest_configure(config: pytest.Config) -> None:
    """Warnings of our tests and benchmarks are errors, as those of the package."""
    for module in sorted({path.stem for folder in ("tests", "benchmarks") for path in (ROOT / folder).rglob("*.py")}):
        config.addinivalue_line("filterwarnings", f"error:::{module}$")


@pytest.fixture(autouse=True)
def untouched_torch():
    """The command line sets torch up for its process; other tests share ours."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
    torch.set_deterministic_debug_mode("default")  # `use_deterministic_algorithms` would import the compiler
    torch.set_flush_denormal(False)
    torch.utils.deterministic.fill_uninitialized_memory = True


@pytest.fixture
def tiny_config() -> Config:
    """Every part of a real run, as small as it goes."""
    return small()


def small() -> Config:
    """Idem, for fixtures that live longer."""
    return Config(
        prompt="a ball",
        steps=12,
        size=SIZE,
        views=2,
        checkpoint_steps=4,
        preview_seconds=0.0,
        device="cpu",
        threads=1,
        scene=SceneConfig(
            field=GridFieldConfig(cells=(4, 8), colour_cells=(4, 8), features=2, hidden=8),
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
def tiny_paper() -> Config:
    """The paper's preset, as small as it goes: every part of it, few of each."""
    return small_paper()


def small_paper() -> Config:
    """Idem, for other processes."""
    return replace(
        PAPER,
        prompt="a ball",
        steps=12,
        size=SIZE,
        checkpoint_steps=4,
        preview_seconds=0.0,
        device="cpu",
        threads=1,
        scene=replace(
            PAPER.scene,
            field=MlpFieldConfig(levels=4, blocks=2, width=16),
            proposal=replace(PAPER.scene.proposal, rounds=(6, 5), layers=1, width=8, levels=3),
            background=LearnedBackground(levels=2, layers=1, width=8),
            occupancy=replace(PAPER.scene.occupancy, cells=8),
        ),
        render=replace(PAPER.render, samples=4, checkpoint_rays=600),
        optimise=replace(PAPER.optimise, shampoo=replace(PAPER.optimise.shampoo, block=12)),
        output=OutputConfig(samples=8, frames=3, frame_size=32, sheet_size=16, mesh_resolution=16),
    )


@pytest.fixture
def disc_prior() -> GaussianPrior:
    """Thinks that every picture is a red disc on white."""
    return red_disc()


def red_disc() -> GaussianPrior:
    """Idem, for other processes."""
    return disc(SIZE)


def disc(size: int) -> GaussianPrior:
    """Idem, with pictures of any size."""
    y, x = torch.meshgrid(*[torch.linspace(-1, 1, size)] * 2, indexing="ij")
    inside = (x.square() + y.square()).sqrt() < 0.5
    colour = torch.where(inside[None], torch.tensor([0.9, 0.1, 0.1])[:, None, None], torch.ones(3, 1, 1))
    schedule = cosine_schedule(dtype=torch.float32)
    return GaussianPrior({"": 2 * colour - 1}, std=0.1, schedule=schedule, image_size=size)


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


@pytest.fixture(scope="session")
def tiny_prior(tmp_path_factory) -> Path:
    """An untrained prior of the embedded kind, small enough to be quick, as a folder on disk."""
    import miniatures
    from training.nouns import learned, nouns
    from training.prior.card import make_card
    from training.prior.ship import write

    folder = tmp_path_factory.mktemp("prior")
    table = learned(nouns())
    write(miniatures.tables(table), table, folder, {**make_card(nouns(), 0, 1, 2.0), "image_size": 16})
    return folder


@pytest.fixture
def ray_actors(monkeypatch) -> None:
    """Ray's processes have our environment: they find the modules of the tests, and are not of lower priority."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), *sys.path]))
    monkeypatch.setenv("RAY_worker_niceness", "0")


@pytest.fixture
def no_products(monkeypatch) -> None:
    """Runs end with their last checkpoint and an empty page: nobody looks at what they are for."""

    def finish(run, folder, *_) -> list[Path]:
        folder.index.touch()
        return [folder.index]

    monkeypatch.setattr("dreamfusion.generate.finish", finish)


@pytest.fixture
def quick_products(monkeypatch) -> None:
    """Previews of few pixels and meshes that are fitted in one round: their own tests ask for more."""
    monkeypatch.setattr("dreamfusion.video.preview.__defaults__", (PreviewCamera(size=16),))
    monkeypatch.setattr("dreamfusion.mesh.fit._ROUNDS", 1)


@pytest.fixture
def tiny_settings(tiny_config: Config, tiny_prior: Path, tmp_path: Path) -> tuple[str, ...]:
    output = replace(tiny_config.output, samples=24)
    config = replace(tiny_config, prompt="a red chair", prior=str(tiny_prior), output=output)
    (tmp_path / "settings.json").write_text(json.dumps(to_json(config)))
    return "--config", str(tmp_path / "settings.json")
