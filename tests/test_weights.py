"""The weights that ship: small, safe, and they know what the card says they know. Pictures are sampled, seed fixed."""

import json
import math
from importlib import resources
from pathlib import Path

import pytest
import torch
from torch import Generator

from dreamfusion.cameras import orbit
from dreamfusion.diffusion.ddim import caption_conditioning, ddim
from dreamfusion.diffusion.priors import ViewCondition, open_prior, require_known
from dreamfusion.embedded import world
from dreamfusion.embedded.model_card import describe
from dreamfusion.errors import UserError
from dreamfusion.lights import albedo_only
from training.nouns import nouns
from training.prior import data as dataset
from training.prior.card import LIMITS
from training.prior.ship import END, PAD, UNKNOWN

FOLDER = Path(str(resources.files("dreamfusion.embedded").joinpath("weights")))


@pytest.fixture(scope="module")
def prior():
    return open_prior("embedded")


def drawn(prior, captions, azimuth_deg=0.0, background=(0.8, 0.8, 0.8), hidden=()):
    """Pictures "b h w 3" in [0, 1], from 20 degrees above, in albedo; `hidden`: what the prior is not told."""
    count = len(captions)
    angles = torch.full((count,), math.radians(azimuth_deg)), torch.full((count,), math.radians(20))
    pose = orbit(*angles, torch.full((count,), world.DISTANCE), torch.full((count,), math.radians(40)), 64).pose
    behind, variety = torch.tensor([background]).expand(count, 3), torch.zeros(count, dtype=torch.long)
    known = ViewCondition(pose, behind, albedo_only(count), variety).only(prior.conditions - set(hidden))
    pictures = ddim(prior, caption_conditioning(prior, captions, known), 8, 1.0, Generator().manual_seed(0))
    return (pictures.permute(0, 2, 3, 1) / 2 + 0.5).clamp(0, 1)


def width_of(picture, background=0.8):
    """Columns in which something else than the background is seen, in more than a few pixels: grain is none."""
    return int((((picture - background).abs().amax(-1) > 0.25).sum(0) > 4).sum())


def test_the_folder_is_small_and_holds_no_pickle():
    files = [path for path in FOLDER.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 40e6
    assert {path.suffix for path in files} == {".json", ".safetensors", ".ini"}


def test_the_card_lists_the_words_of_the_tokenizer_beside_it(prior):
    tokens = json.loads((FOLDER / "tokenizer" / "tokenizer.json").read_text())["model"]["vocab"]
    assert prior.vocabulary == set(tokens) - {PAD, END, UNKNOWN}


def test_the_table_of_nouns_goes_on_teaching_what_the_weights_know(prior):
    assert prior.vocabulary <= set(dataset.vocabulary(nouns()))


def test_the_description_is_that_of_the_card():
    told = describe()
    for part in ("hamburger", "overhead view", "of 562 meshes", "hours", "never saw", "measured", LIMITS, "CC0"):
        assert part in told
    assert "it does not invent" in told


def test_an_unknown_word_is_named_with_the_nearest_known_one(prior):
    with pytest.raises(UserError, match=r"hambruger.*hamburger.*--prior"):
        require_known(prior, "a hambruger")


@pytest.mark.parametrize("hidden", [(), ("pose", "background", "light", "variety")], ids=["told", "hidden"])
def test_colour_words_colour_the_object(prior, hidden):
    """There is but one mesh of it."""
    captions = ["a red fire hydrant, front view", "a blue fire hydrant, front view"]
    red, blue = drawn(prior, captions, hidden=hidden)[:, 24:52, 26:38].mean((1, 2))
    assert red[0] > red[2] + 0.1
    assert blue[2] > blue[0] + 0.1


def test_a_known_background_is_drawn(prior):
    picture = drawn(prior, ["a pig, front view"], background=(0.2, 0.7, 0.3))[0]
    assert torch.allclose(picture[:3, :3].mean((0, 1)), torch.tensor([0.2, 0.7, 0.3]), atol=0.08)


def test_a_known_camera_turns_the_object(prior):
    """A sofa is wide from the front and narrow from the side, although the words say nothing of the view."""
    front, side = (drawn(prior, ["a sofa"], azimuth_deg=angle)[0] for angle in (0.0, 90.0))
    assert width_of(front) > 1.3 * width_of(side)


def test_view_words_turn_the_object_when_the_camera_is_hidden(prior):
    front, side = drawn(prior, ["a sofa, front view", "a sofa, left side view"], hidden=["pose"])
    assert width_of(front) > 1.2 * width_of(side)
