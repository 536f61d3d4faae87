import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
import torch

from dreamfusion.cameras import Cameras, orbit
from dreamfusion.diffusion.priors import NoiseSchedule, Prior, ViewCondition
from dreamfusion.diffusion.prompts import PromptOptions, PromptTable
from dreamfusion.diffusion.view_words import ViewWords
from dreamfusion.errors import UserError
from dreamfusion.lights import Light, albedo_only, key_light


@dataclass
class Parrot:
    """A prior that can only embed: every prompt becomes the codes of its characters, padded to the longest one."""

    view_words: ViewWords
    conditions: frozenset[str] = frozenset()
    calls: list[list[str]] = field(default_factory=list)
    name: str = "parrot"
    image_size: int = 8
    vocabulary: frozenset[str] | None = None
    schedule: NoiseSchedule = field(
        default_factory=lambda: NoiseSchedule.variance_preserving(torch.linspace(0.99, 0.01, 10))
    )
    scale: torch.Tensor = field(default_factory=lambda: torch.ones(1, requires_grad=True))

    def embed(self, prompts: Sequence[str]) -> torch.Tensor:
        self.calls.append(list(prompts))
        length = max(map(len, prompts))
        codes = [[float(ord(letter)) for letter in prompt.ljust(length, "\0")] for prompt in prompts]
        return torch.tensor(codes)[..., None] * self.scale

    def encode(self, image: torch.Tensor) -> torch.Tensor:
        raise AssertionError("prompts do not encode pictures")

    def predict_noise(
        self, noisy: torch.Tensor, t: torch.Tensor, text: torch.Tensor, known: ViewCondition
    ) -> torch.Tensor:
        raise AssertionError("prompts do not run the network")


PLAIN_WORDS = ViewWords(left="left side view", right="right side view")
CLAY_WORDS = ViewWords(left="left side view", right="right side view", textureless="clay")


def read(embedding: torch.Tensor) -> list[str]:
    """The prompts that `Parrot` embedded."""
    return ["".join(chr(round(code)) for code in row).rstrip("\0") for row in embedding[..., 0].tolist()]


def five_views() -> Cameras:
    """Front, left, back, right, overhead."""
    azimuth = torch.tensor([0.1, 90, 180, -90, 30]).deg2rad()
    elevation = torch.tensor([0.0, 10, -5, 20, 80]).deg2rad()
    return orbit(azimuth, elevation, torch.full((5,), 3.0), torch.full((5,), 0.7), 8)


def mixed_light() -> Light:
    """White for every other view."""
    light = key_light(five_views(), textureless=False)
    return Light(light.position, light.ambient, light.diffuse, torch.arange(5) % 2 == 1)


def table(prior: Prior, **options: object) -> PromptTable:
    return PromptTable(prior, "a chair", PromptOptions(**options))  # pyright: ignore[reportArgumentType]


def test_each_view_gets_its_caption() -> None:
    given = table(Parrot(PLAIN_WORDS))(five_views(), mixed_light())
    sides = ["front view", "left side view", "back view", "right side view", "overhead view"]
    assert read(given.text) == [f"a chair, {side}" for side in sides]


def test_the_variety_is_told_where_the_prior_can_be_told_and_conditions_are_wanted() -> None:
    able = Parrot(PLAIN_WORDS, conditions=frozenset({"variety"}))
    told = table(able, variety=3)(five_views(), mixed_light()).known.variety
    assert told is not None
    assert told.tolist() == [3] * 5
    for silent in (table(able, variety=3, conditions="none"), table(Parrot(PLAIN_WORDS), variety=3)):
        assert silent(five_views(), mixed_light()).known.variety is None


def test_white_lights_add_the_textureless_word_where_the_prior_has_one() -> None:
    given = table(Parrot(CLAY_WORDS))(five_views(), mixed_light())
    assert read(given.text) == [
        "a chair, front view",
        "a chair, left side view, clay",
        "a chair, back view",
        "a chair, right side view, clay",
        "a chair, overhead view",
    ]


def test_without_view_words_only_the_surface_is_said() -> None:
    given = table(Parrot(CLAY_WORDS), view_dependent=False)(five_views(), mixed_light())
    assert read(given.text) == ["a chair", "a chair, clay", "a chair", "a chair, clay", "a chair"]


def test_the_papers_single_side_view_is_embedded_once() -> None:
    prior = Parrot(ViewWords())
    given = table(prior)(five_views(), mixed_light())
    assert read(given.text)[1] == read(given.text)[3] == "a chair, side view"
    assert sorted(prior.calls[0]) == sorted(
        ["a chair, front view", "a chair, side view", "a chair, back view", "a chair, overhead view", ""]
    )


def test_everything_is_embedded_in_one_call_without_gradient() -> None:
    prior = Parrot(CLAY_WORDS)
    prompts = table(prior)
    for _ in range(3):
        given = prompts(five_views(), mixed_light())
    assert len(prior.calls) == 1
    assert len(prior.calls[0]) == 11
    assert not given.text.requires_grad
    assert not given.null_text.requires_grad


def test_without_a_negative_prompt_there_is_none() -> None:
    given = table(Parrot(PLAIN_WORDS))(five_views(), mixed_light())
    assert read(given.null_text) == [""] * 5
    assert given.negative is None


def test_a_negative_prompt_comes_beside_the_empty_caption() -> None:
    negative = "blurry, ugly, a very long list of words that is longer than any caption"
    given = table(Parrot(PLAIN_WORDS), negative=negative)(five_views(), mixed_light())
    assert given.negative is not None
    assert read(given.negative) == [negative] * 5
    assert read(given.null_text) == [""] * 5
    assert given.negative.shape == given.null_text.shape == given.text.shape
    assert read(given.text)[0] == "a chair, front view"


def test_interpolating_words_blend_embeddings() -> None:
    prompts = table(Parrot(ViewWords(left="left side view", right="right side view", interpolate=True)))
    one = torch.ones(3)
    cameras = orbit(torch.tensor([0.0, math.pi / 8, math.pi / 2]), 0 * one, one, one, 8)
    front, between, left = prompts(cameras, albedo_only(3)).text
    torch.testing.assert_close(between, 0.75 * front + 0.25 * left)


def test_known_holds_what_the_prior_takes_and_nothing_else() -> None:
    cameras, light, background = five_views(), mixed_light(), torch.rand(5, 3)
    known = table(Parrot(PLAIN_WORDS, frozenset({"pose", "background", "light"})))(cameras, light, background).known
    assert known.pose is cameras.pose
    assert known.background is background
    assert known.light is light
    only_pose = table(Parrot(PLAIN_WORDS, frozenset({"pose"})))(cameras, light, background).known
    assert only_pose.pose is cameras.pose
    assert only_pose.background is None
    assert only_pose.light is None
    no_colour = table(Parrot(PLAIN_WORDS, frozenset({"background"})))(cameras, light).known
    assert no_colour.background is None


def test_the_text_only_way_tells_the_prior_nothing_else() -> None:
    prior = Parrot(CLAY_WORDS, frozenset({"pose", "background", "light"}))
    with_all = table(prior)(five_views(), mixed_light(), torch.rand(5, 3))
    text_only = table(prior, conditions="none")(five_views(), mixed_light(), torch.rand(5, 3))
    assert text_only.known.pose is text_only.known.background is text_only.known.light is None
    no_camera = table(prior, conditions="no-camera")(five_views(), mixed_light(), torch.rand(5, 3))
    assert no_camera.known.pose is None
    assert no_camera.known.background is not None
    assert no_camera.known.light is not None
    torch.testing.assert_close(text_only.text, with_all.text)


def test_plain_guidance_steers_against_nothing() -> None:
    given = table(Parrot(PLAIN_WORDS))(five_views(), mixed_light())
    assert given.perp_neg_text.shape == (5, 0, *given.text.shape[1:])
    assert given.perp_neg_weight.shape == (5, 0)


def test_perp_neg_steers_away_from_the_front_and_the_nearer_side_in_the_same_surface() -> None:
    given = table(Parrot(CLAY_WORDS), perp_neg=0.5)(five_views(), mixed_light())
    assert read(given.perp_neg_text[:, 0]) == [
        f"a chair, front view{clay}" for clay in ("", ", clay", "", ", clay", "")
    ]
    front, left, _, right, _ = read(given.perp_neg_text[:, 1])  # from behind, both sides are as near
    assert (front, left, right) == (
        "a chair, left side view",
        "a chair, left side view, clay",
        "a chair, right side view, clay",
    )
    cameras = five_views()
    torch.testing.assert_close(given.perp_neg_weight, 0.5 * CLAY_WORDS.perp_neg(cameras.azimuth, cameras.elevation)[1])
    assert bool((given.perp_neg_weight[4] == 0).all())  # from overhead


def test_views_can_be_blended_whatever_the_habit_of_the_prior() -> None:
    one = torch.ones(3)
    cameras = orbit(torch.tensor([0.0, math.pi / 8, math.pi / 2]), 0 * one, one, one, 8)
    front, between, left = table(Parrot(PLAIN_WORDS), blend_views=True)(cameras, albedo_only(3)).text
    torch.testing.assert_close(between, 0.75 * front + 0.25 * left)


@pytest.mark.parametrize("prompt", ["", "  \n"])
def test_an_empty_prompt_is_a_user_error(prompt: str) -> None:
    with pytest.raises(UserError, match="empty"):
        PromptTable(Parrot(PLAIN_WORDS), prompt)
