import math

import pytest
import torch

from dreamfusion.diffusion.view_words import ViewWords
from dreamfusion.errors import UserError

pytestmark = pytest.mark.processor

PAPER = ViewWords()
SIX = ViewWords(left="left side view", right="right side view", overhead="from above", overhead_above=math.radians(50))


def said(words: ViewWords, azimuth_deg: float, elevation_deg: float) -> str:
    """The one word that a view gets."""
    weights = words.weights(torch.deg2rad(torch.tensor([azimuth_deg])), torch.deg2rad(torch.tensor([elevation_deg])))
    assert weights.sum() == 1  # without blending, weights are 0 and 1
    assert weights.max() == 1
    return words.words[int(weights.argmax())]


def sphere(count: int = 5000) -> tuple[torch.Tensor, torch.Tensor]:
    u = torch.rand(2, count, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return (2 * u[0] - 1) * 2 * math.pi, (u[1] - 0.5) * math.pi


def test_the_papers_four_words_by_quadrant_and_elevation() -> None:
    assert set(PAPER.words) == {"front view", "side view", "back view", "overhead view"}
    spoken = {azimuth: said(PAPER, azimuth, 20) for azimuth in (0, 44, 46, 134, 136, 180, 224, 226, 314, 316, -44, -46)}
    front = [azimuth for azimuth, word in spoken.items() if word == "front view"]
    back = [azimuth for azimuth, word in spoken.items() if word == "back view"]
    assert front == [0, 44, 316, -44]
    assert back == [136, 180, 224]
    assert said(PAPER, 0, 59) == "front view"
    assert said(PAPER, 180, 61) == "overhead view"


def test_left_and_right_are_the_objects_own() -> None:
    # Azimuth 90 degrees is the camera on +x; the object faces +z with y up, so +x is its left hand.
    assert said(SIX, 90, 0) == "left side view"
    assert said(SIX, -90, 0) == said(SIX, 270, 0) == "right side view"
    assert said(SIX, 90, 49) == "left side view"
    assert said(SIX, 90, 51) == "from above"


@pytest.mark.parametrize("interpolate", [False, True])
@pytest.mark.parametrize("words", [PAPER, SIX])
def test_weights_sum_to_one_and_are_periodic(words: ViewWords, interpolate: bool) -> None:
    words = ViewWords(**{**vars(words), "interpolate": interpolate})
    azimuth, elevation = sphere()
    weights = words.weights(azimuth, elevation)
    assert weights.min() >= 0
    torch.testing.assert_close(weights.sum(-1), torch.ones_like(azimuth))
    torch.testing.assert_close(words.weights(azimuth + 2 * math.pi, elevation), weights)


def test_interpolated_weights_are_continuous_also_across_the_pole_and_the_back() -> None:
    words = ViewWords(left="left", right="right", interpolate=True)
    azimuth, elevation = sphere()
    step = 1e-3
    moved = words.weights(azimuth + step, elevation) - words.weights(azimuth, elevation)
    raised = words.weights(azimuth, elevation + step) - words.weights(azimuth, elevation)
    assert moved.abs().max() <= step / (math.pi / 2) * 1.001
    assert raised.abs().max() <= step / (math.pi / 3) * 1.001
    at_pole = words.weights(azimuth, torch.full_like(azimuth, math.pi / 2))
    torch.testing.assert_close(at_pole, at_pole[:1].expand_as(at_pole))
    assert at_pole[0, words.words.index("overhead view")] == pytest.approx(1)


def test_interpolation_agrees_with_the_nearest_view_at_the_centres_and_halves_at_the_borders() -> None:
    blended, nearest = ViewWords(left="left", right="right", interpolate=True), ViewWords(left="left", right="right")
    centre, level = torch.arange(-4, 5) * (math.pi / 2), torch.zeros(9)
    torch.testing.assert_close(blended.weights(centre, level), nearest.weights(centre, level))
    border = blended.weights(centre + math.pi / 4, level)
    torch.testing.assert_close(border.sort(dim=-1).values[:, -2:], torch.full((9, 2), 0.5))
    threshold = blended.weights(torch.zeros(1), torch.full((1,), blended.overhead_above))
    torch.testing.assert_close(threshold[0, blended.words.index("overhead view")], torch.tensor(0.5))


def test_overhead_can_be_switched_off() -> None:
    azimuth, elevation = sphere()
    for interpolate in (False, True):
        words = ViewWords(overhead_above=math.pi / 2, interpolate=interpolate)
        assert words.weights(azimuth, elevation)[:, words.words.index("overhead view")].max() == 0


def test_a_threshold_in_degrees_is_refused() -> None:
    with pytest.raises(UserError, match="overhead_above"):
        ViewWords(overhead_above=60.0)


def test_perp_neg_steers_away_from_what_a_view_is_not() -> None:
    """Nothing at the very view, most at the neighbour, the front most of all; left and right are alike."""
    degrees = torch.tensor([0.0, 45, 90, 135, 180], dtype=torch.float64)
    words, weight = SIX.perp_neg(degrees.deg2rad(), 0 * degrees)
    named = [[SIX.words[int(row.argmax())] for row in rows] for rows in words]
    assert named[1] == ["front view", "left side view"]
    front, side = weight.T
    most, half, e = 4 * (1 - math.exp(-0.5)), math.exp(-0.25) - math.exp(-0.5), 1 - math.exp(-0.5)
    torch.testing.assert_close(front, -degrees.new_tensor([0, 4 * half, most, most + half, most + e]))
    torch.testing.assert_close(side, -degrees.new_tensor([most, 4 * half, 0, half, e]))
    mirrored, again = SIX.perp_neg(-degrees.deg2rad(), 0 * degrees)
    torch.testing.assert_close(again, weight)
    assert [SIX.words[int(row[1].argmax())] for row in mirrored][1:4] == ["right side view"] * 3


def test_perp_neg_is_continuous_in_the_azimuth_and_silent_from_overhead() -> None:
    azimuth = torch.linspace(0, 4 * math.pi, 4001, dtype=torch.float64)
    weight = PAPER.perp_neg(azimuth, 0 * azimuth)[1]
    assert weight.diff(dim=0).abs().max() < 2.5 * azimuth.diff().max()
    assert weight.max() <= 0
    torch.testing.assert_close(weight[:2001], weight[2000:])
    assert not PAPER.perp_neg(azimuth, 0 * azimuth + 1.2)[1].any()
