"""Pictures and videos of a scene, for people."""

import math
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from dreamfusion.cameras import Cameras, turntable
from dreamfusion.errors import UserError
from dreamfusion.files import replacing
from dreamfusion.lights import Light, key_light
from dreamfusion.nerf.render import Picture, RenderOptions, render_views
from dreamfusion.nerf.scene import Scene

SHEET_SIDES = 8


@dataclass(frozen=True)
class PreviewCamera:
    """How the scene is looked at: square pictures, from where the bounding ball just fills them."""

    size: int = 192
    """pixels per side, even"""
    elevation: float = math.radians(20)
    fov_y: float = math.radians(40)
    backdrop: float = 0.94
    """grey level behind the object, in place of the scene's own background"""

    def __post_init__(self) -> None:
        if self.size < 16 or self.size % 2:
            raise UserError(f"a picture size of {self.size} will not do: give an even number of at least 16 pixels")

    def cameras(self, scene: Scene, views: int) -> Cameras:
        """`views` cameras around the scene, the first one in front, azimuth growing."""
        distance = scene.radius / math.sin(self.fov_y / 2)
        cameras = turntable(views, self.elevation, distance, self.fov_y, self.size)
        return cameras.to(scene.occupancy.occupied.device).about(scene.centre)

    def render(self, scene: Scene, cameras: Cameras, light: Light, options: RenderOptions) -> Picture:
        """The views before the backdrop."""
        behind = torch.full_like(cameras.position, self.backdrop)
        return render_views(scene, cameras, light, options, background=behind)


def soft_light(cameras: Cameras) -> Light:
    """Mostly ambient: the colours stay nearly as they are, with enough shading to see the shape."""
    light = key_light(cameras, textureless=False)
    return replace(light, ambient=torch.full_like(light.ambient, 0.6), diffuse=torch.full_like(light.diffuse, 0.45))


def turntable_frames(
    scene: Scene, options: RenderOptions, frames: int = 40, shot: PreviewCamera = PreviewCamera()
) -> UInt8[np.ndarray, "{frames} h w 3"]:
    """One round about the scene in soft light."""
    cameras = shot.cameras(scene, frames)
    return to_bytes(shot.render(scene, cameras, soft_light(cameras), options).rgb)


def contact_sheet(
    scene: Scene, options: RenderOptions, shot: PreviewCamera = PreviewCamera(size=144), sides: int = SHEET_SIDES
) -> UInt8[np.ndarray, "h w 3"]:
    """Rows: colour, geometry (textureless), normals. Columns: azimuth 0 (the front), 45, ... 315 degrees."""
    return to_bytes(_rows(scene, options, shot, shot.cameras(scene, sides)))


def preview(
    scene: Scene, options: RenderOptions, shot: PreviewCamera = PreviewCamera(size=128)
) -> UInt8[np.ndarray, "h w 3"]:
    """Colour, geometry and normals of one view, a little from the side, next to each other."""
    column = _rows(scene, options, shot, shot.cameras(scene, 12)[1:2])
    return to_bytes(torch.cat(column.chunk(3, dim=0), dim=1))


def _rows(scene: Scene, options: RenderOptions, shot: PreviewCamera, cameras: Cameras) -> Float[Tensor, "h w 3"]:
    """Three rows of pictures (colour, geometry, normals), a column per camera."""
    colour = shot.render(scene, cameras, soft_light(cameras), options)
    shape = shot.render(scene, cameras, key_light(cameras, textureless=True), replace(options, normals=True))
    assert shape.normal is not None  # because they were asked for
    rows = (colour.rgb, shape.rgb, normal_picture(shape.normal, shape.opacity, cameras, shot.backdrop))
    return torch.cat([torch.cat(list(row), dim=1) for row in rows], dim=0)


def normal_picture(
    normal: Float[Tensor, "b h w 3"], opacity: Float[Tensor, "b h w"], cameras: Cameras, backdrop: float
) -> Float[Tensor, "b h w 3"]:
    """Normals as colours in [0, 1]: red grows to the right, green upwards, blue towards the camera."""
    world_from_camera = cameras.pose[:, None, :3, :3]
    in_camera = torch.nn.functional.normalize(normal, dim=-1) @ world_from_camera
    return torch.lerp(torch.full_like(normal, backdrop), 0.5 + 0.5 * in_camera, opacity[..., None])


def to_bytes(image: Float[Tensor, "*b h w 3"]) -> UInt8[np.ndarray, "*b h w 3"]:
    """Display values in [0, 1] as bytes."""
    return (image.clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy()


def write_png(picture: UInt8[np.ndarray, "h w 3"], path: Path) -> None:
    """Write one picture."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as part:
        Image.fromarray(picture).save(part, format="PNG")


def write_webp(frames: UInt8[np.ndarray, "f h w 3"], path: Path, seconds: float = 4.0) -> None:
    """Write an endless animated picture whose round takes `seconds`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    first, *others = (Image.fromarray(frame) for frame in frames)
    milliseconds = round(1000 * seconds / len(frames))
    with replacing(path) as part:
        first.save(
            part,
            format="WEBP",
            save_all=True,
            append_images=others,
            duration=milliseconds,
            loop=0,
            quality=85,
            method=2,
        )


# Macroblock-tree rate control of x264 reads memory that nobody wrote: equal frames gave up to eight different files.
_H264 = {"crf": "18", "preset": "medium", "threads": "1", "x264-params": "mbtree=0"}


def write_mp4(frames: UInt8[np.ndarray, "f h w 3"], path: Path, seconds: float = 4.0) -> None:
    """Write an H.264 video that every browser plays; height and width must be even."""
    import av  # here, as a run needs it only at its end

    path.parent.mkdir(parents=True, exist_ok=True)
    rate = Fraction(len(frames) / seconds).limit_denominator(1000)
    with replacing(path) as part, av.open(str(part), "w", format="mp4", options={"movflags": "+faststart"}) as file:
        stream = file.add_stream("libx264", rate=rate, options=_H264)
        stream.height, stream.width, stream.pix_fmt = frames.shape[1], frames.shape[2], "yuv420p"
        for frame in frames:
            file.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        file.mux(stream.encode())
