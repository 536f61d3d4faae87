"""The sketch shades and composites in closed form, what is told overrules its guess, and it says how far off it is."""

import math

import pytest
import torch
from torch import Generator, Tensor

from dreamfusion.cameras import orbit
from dreamfusion.embedded.sketch import MAPS, SKETCH, SUREST, Sketch, gaussian_nll, merge
from dreamfusion.embedded.unet import GROUPS, known_features
from dreamfusion.lights import Light

pytestmark = pytest.mark.processor

TEXT = 8
POSE = orbit(torch.tensor([0.5]), torch.tensor([0.2]), torch.tensor([3.0]), torch.tensor([0.7]), 64).pose
BEHIND = torch.tensor([[0.1, 0.5, 0.9]])


def drawing(
    brightness: float = 0.0,
    rest: float = 0.0,
    normal: tuple[float, ...] = (0, 0, 1),
    coverage: float = 30.0,
    log_sigma: float = -30.0,
):
    """A sketch that draws the same numbers everywhere, whatever it is told; its look still depends on all."""
    torch.manual_seed(0)
    sketch = Sketch(TEXT, GROUPS, 16)
    torch.nn.init.zeros_(sketch.draw.weight)
    maps = [[brightness], [rest] * 3, list(normal), [coverage], [log_sigma]]
    numbers = torch.tensor([number for group in maps for number in group])
    sketch.draw.bias.data = numbers.repeat_interleave(SKETCH**2)
    assert len(numbers) == sum(MAPS)
    return sketch


def seen(sketch: Sketch, light: Light | None, background: Tensor | None = BEHIND, seed: int = 0) -> Tensor:
    """The picture in [0, 1], "3 32 32"; words are noise."""
    words = torch.randn(1, TEXT, generator=Generator().manual_seed(seed))
    known = known_features(torch.zeros(1, 3, 64, 64), POSE, background, light)
    return (sketch(words, known)[0][0] + 1) / 2


def lamp(toward: Tensor, ambient: float, white: bool = False) -> Light:
    """A lamp in the direction `toward`, in the camera's axes."""
    position = (POSE[:, :3, :3] @ toward[:, None])[..., 0] * 5
    return Light(position, torch.tensor([ambient]), torch.tensor([1 - ambient]), torch.tensor([white]))


def test_where_nothing_is_covered_the_told_background_is_seen():
    picture = seen(drawing(coverage=-30.0), lamp(torch.tensor([0.0, 0.0, 1.0]), 0.4))
    assert torch.allclose(picture, BEHIND[0, :, None, None].expand_as(picture), atol=1e-5)


@pytest.mark.parametrize(("angle", "amount"), [(0.0, 1.0), (60.0, 0.65), (120.0, 0.3)])
def test_a_white_surface_shows_lamberts_law(angle, amount):
    radians = torch.tensor(angle).deg2rad()
    toward = torch.stack([radians.sin(), torch.zeros(()), radians.cos()])
    picture = seen(drawing(), lamp(toward, 0.3, white=True))
    assert torch.allclose(picture, torch.full_like(picture, amount), atol=1e-5)


def test_the_rest_keeps_its_colour_and_the_paint_takes_any():
    bare = seen(drawing(brightness=-30.0, rest=0.5), lamp(torch.tensor([0.0, 0.0, 1.0]), 1.0))
    assert torch.allclose(bare, torch.tensor(0.5).sigmoid().expand_as(bare), atol=1e-5)
    painted = [seen(drawing(rest=-30.0), lamp(torch.tensor([0.0, 0.0, 1.0]), 1.0), seed=seed) for seed in (1, 2)]
    assert (painted[0] - painted[1]).abs().max() > 0.01  # other words, other paint
    assert painted[0].flatten(1).std(1).max() < 1e-6  # of one colour


def test_what_is_told_overrules_the_guess():
    """Nothing but the paint's colour flows back into the look when background and light are known."""
    sketch = drawing(brightness=-30.0, rest=0.5, coverage=0.0)
    for light, background, flows in ((lamp(torch.tensor([0.0, 0.0, 1.0]), 0.4), BEHIND, False), (None, None, True)):
        sketch.zero_grad()
        seen(sketch, light, background).sum().backward()
        gradient = sketch.look[-1].weight.grad
        assert gradient is not None
        assert bool(gradient[3:].abs().sum() > 1e-3) == flows


@pytest.mark.parametrize(("coverage", "expected"), [(-30.0, 0.3), (30.0, 0.2), (0.0, math.hypot(0.15, 0.1))])
def test_doubts_of_object_and_background_add_up_where_each_is_seen(coverage, expected):
    sketch = drawing(coverage=coverage, log_sigma=math.log(0.4))
    torch.nn.init.zeros_(sketch.look[-1].weight)
    sketch.look[-1].bias.data[-2:] = torch.tensor([0.2, 0.3]).log()
    spread = sketch(torch.zeros(1, TEXT), torch.zeros(1, sum(GROUPS)))[1]
    assert torch.allclose(spread, torch.tensor(math.hypot(expected, 0.4, SUREST)).expand(1, 1, SKETCH, SKETCH))


def test_the_least_surprising_spread_is_the_root_mean_square_of_the_errors():
    errors = 0.3 * torch.randn(1000, 1, 4, 4, generator=Generator().manual_seed(0))
    spreads = torch.linspace(0.1, 0.5, 81)
    surprises = torch.stack([gaussian_nll(errors.square(), spread.expand_as(errors)) for spread in spreads])
    assert spreads[surprises.argmin()].item() == pytest.approx(errors.square().mean().sqrt().item(), abs=0.005)


def test_groups_of_numbers_weigh_the_same_at_first_however_many_they_are():
    torch.manual_seed(0)
    first = merge((1000, 4), 2000)[0]
    assert isinstance(first, torch.nn.Linear)
    spread = [columns.square().sum(1).mean().item() for columns in first.weight.split((1000, 4), dim=1)]
    assert spread == pytest.approx([1, 1], rel=0.1)
