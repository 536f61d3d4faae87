"""Pictures and videos: what they show, and that other programs can read them."""

import math
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from dreamfusion import video
from dreamfusion.cameras import Cameras
from dreamfusion.config import BlobConfig, GridFieldConfig, OccupancyConfig, SolidBackground
from dreamfusion.errors import UserError
from dreamfusion.nerf.background import Solid
from dreamfusion.nerf.fields import FieldOutput, Gaussians
from dreamfusion.nerf.fields.density import DensityActivation, Exp
from dreamfusion.nerf.fields.grid import GridField
from dreamfusion.nerf.occupancy import Occupancy
from dreamfusion.nerf.render import RenderOptions
from dreamfusion.nerf.scene import Scene

OPTIONS = RenderOptions(samples=32)
SMALL = video.PreviewCamera(size=32)


class MarkedBall(nn.Module):
    """The ball that a run begins with; red where z > 0 (the front), green where x > 0, blue elsewhere."""

    uses_covariance = False

    def __init__(self, config: GridFieldConfig, law: DensityActivation) -> None:
        super().__init__()
        self.grid = GridField(config, law, 1.0, torch.Generator().manual_seed(0))

    def density(self, at: Gaussians) -> torch.Tensor:
        return self.grid.density(at)

    def evaluate(self, at: Gaussians) -> FieldOutput:
        return self._marked(self.grid.evaluate(at), at)

    def surface(self, at: Gaussians) -> FieldOutput:
        return self._marked(self.grid.surface(at), at)

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        return self.grid.parameter_groups()

    def _marked(self, matter: FieldOutput, at: Gaussians) -> FieldOutput:
        red, green, blue = torch.eye(3)
        x, _, z = at.mean[:, :, None].unbind(1)
        albedo = torch.where(z > x.abs(), red, torch.where(x > z.abs(), green, blue))
        return FieldOutput(matter.density, albedo, matter.normal)


@pytest.fixture(scope="module")
def ball() -> Scene:
    law = DensityActivation(Exp(bias=-5.0, clamp=5.0), BlobConfig(height=8.0, width=0.35))
    field = MarkedBall(GridFieldConfig(cells=(32,), colour_cells=(2,)), law)
    with torch.no_grad():
        field.grid.logits[0].add_(1.5)
    return Scene(field, Solid(SolidBackground((0.0, 0.0, 0.0))), Occupancy(OccupancyConfig(cells=8), 1.0), 1.0)


@pytest.fixture(scope="module")
def frames(ball: Scene) -> np.ndarray:
    return video.turntable_frames(ball, OPTIONS, 8, SMALL)


def channel_at_the_middle(frame: np.ndarray) -> int:
    half = frame.shape[0] // 2
    return int(frame[half, half].argmax())


def test_the_round_begins_in_front_and_goes_to_the_objects_left(frames: np.ndarray) -> None:
    assert frames.shape == (8, 32, 32, 3)
    assert [channel_at_the_middle(frames[k]) for k in (0, 2, 4)] == [0, 1, 2]


def test_the_backdrop_replaces_the_scenes_own_background(frames: np.ndarray) -> None:
    assert (frames[:, 0, 0] == round(0.94 * 255)).all()


def test_the_bounding_ball_just_fills_the_picture(ball: Scene) -> None:
    eye = SMALL.cameras(ball, 5).position
    assert eye.norm(dim=-1).numpy() == pytest.approx(np.full(5, 1 / math.sin(SMALL.fov_y / 2)), rel=1e-5)


def test_the_sheet_has_eight_sides_of_colour_geometry_and_normals(ball: Scene, frames: np.ndarray) -> None:
    sheet = video.contact_sheet(ball, OPTIONS, SMALL)
    assert sheet.shape == (3 * 32, 8 * 32, 3)
    cells = sheet.reshape(3, 32, 8, 32, 3).swapaxes(1, 2)
    assert np.array_equal(cells[0], frames)
    assert (np.ptp(cells[1].astype(int), axis=-1) <= 1).all()  # geometry is grey
    front = cells[2, 0, 16, 16].astype(int)  # the middle of a ball faces the camera: no red, no green, all blue
    assert front == pytest.approx([128, 128, 255], abs=25)
    assert cells[2, 0, 16, 22, 0] > 160 > 100 > cells[2, 0, 16, 10, 0]  # red to the right
    assert cells[2, 0, 11, 16, 1] > 160 > 100 > cells[2, 0, 20, 16, 1]  # green upwards


def test_the_preview_shows_one_view_three_times(ball: Scene) -> None:
    picture = video.preview(ball, OPTIONS, SMALL)
    sheet = video._rows(ball, OPTIONS, SMALL, SMALL.cameras(ball, 12)[1:2])
    assert picture.shape == (32, 96, 3)
    assert np.array_equal(picture[:, 32:64], video.to_bytes(sheet)[32:64])


def test_normals_turn_with_the_camera() -> None:
    turned = Cameras(torch.eye(4)[None].repeat(2, 1, 1), torch.full((2,), 0.7), 1, 1)
    turned.pose[1, :3, :3] = torch.tensor([[0.0, 0, 1], [0, 1, 0], [-1, 0, 0]])  # it looks along -x, its right is -z
    normal = torch.tensor([0.0, 0, 1]).expand(2, 1, 1, 3)
    picture = video.normal_picture(normal, torch.ones(2, 1, 1), turned, 0.0)
    assert picture[:, 0, 0].numpy() == pytest.approx(np.array([[0.5, 0.5, 1], [0, 0.5, 0.5]]), abs=1e-6)


def test_the_mp4_plays_back(frames: np.ndarray, tmp_path: Path) -> None:
    path = tmp_path / "media" / "turntable.mp4"
    video.write_mp4(frames, path, seconds=2.0)
    with av.open(str(path)) as file:
        stream = file.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert float(stream.duration * stream.time_base) == pytest.approx(2.0, abs=0.01)
        read = np.stack([frame.to_ndarray(format="rgb24") for frame in file.decode(stream)])
    assert read.shape == frames.shape
    assert np.abs(read.astype(int) - frames.astype(int)).mean() < 8
    content = path.read_bytes()
    assert content.index(b"moov") < content.index(b"mdat")  # it starts before it is loaded


def test_the_webp_plays_back(frames: np.ndarray, tmp_path: Path) -> None:
    path = tmp_path / "media" / "turntable.webp"
    video.write_webp(frames, path, seconds=2.0)
    with Image.open(path) as file:
        assert (file.n_frames, file.size, file.info["loop"]) == (8, (32, 32), 0)
        read = []
        for index in range(file.n_frames):
            file.seek(index)
            read.append(np.asarray(file.convert("RGB")).astype(int))
            assert file.info["duration"] == 250
    assert np.abs(np.stack(read) - frames.astype(int)).mean() < 8


def test_the_png_is_exact(frames: np.ndarray, tmp_path: Path) -> None:
    video.write_png(frames[0], tmp_path / "media" / "a.png")
    assert np.array_equal(np.asarray(Image.open(tmp_path / "media" / "a.png")), frames[0])


def test_equal_frames_give_equal_files(frames: np.ndarray, tmp_path: Path) -> None:
    for suffix, write in ((".mp4", video.write_mp4), (".webp", video.write_webp)):
        contents = set()
        for index in range(12):
            used = [np.full(size, index, np.uint8) for size in (3_000, 20_000, 100_000, 400_000)]
            del used  # an encoder that reads freed memory finds other bytes in it each time
            write(frames, tmp_path / f"{index}{suffix}")
            contents.add((tmp_path / f"{index}{suffix}").read_bytes())
        assert len(contents) == 1


@pytest.mark.parametrize("size", [0, -2, 33])
def test_sizes_that_no_video_can_have_are_refused(size: int) -> None:
    with pytest.raises(UserError, match="even number"):
        video.PreviewCamera(size=size)
