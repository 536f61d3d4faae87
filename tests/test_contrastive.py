"""Contrastive models: unit vectors, gradients, what opens and what does not, and the one that ships."""

import json
from importlib import resources
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Generator

from dreamfusion.contrastive import TOYBOX, ContrastiveModel, open_contrastive
from dreamfusion.contrastive.network import SIZE, new_network
from dreamfusion.contrastive.pretrained import Preprocessing
from dreamfusion.contrastive.toybox import CARD, WEIGHTS, ToyboxClip
from dreamfusion.errors import UserError
from dreamfusion.evaluate.captions import without_colour
from dreamfusion.evaluate.judge.judge import open_judge
from dreamfusion.evaluate.scorer import open_scorer
from dreamfusion.evaluate.suites import pool
from dreamfusion.evaluate.truth import open_truths
from miniatures import CLIP_SIZE, CLIP_TEXT, save_contrastive
from training.clip.ship import write

KINDS = ("clip", "siglip")
CAPTIONS = ["a red chair", "a frog", "a red frog, a chair"]
TINY = {"name": "tiny", "words": ["chair", "frog", "pine", "red", "tree"], "nouns": ["chair", "frog", "pine tree"]}


def toybox() -> ToyboxClip:
    return ToyboxClip(new_network(len(TINY["words"]), seed=0), TINY)


def opened(kind: str, folder: Path) -> ContrastiveModel:
    if kind == "toybox":
        return toybox()
    save_contrastive(kind, folder)
    return open_contrastive(str(folder))


def pictures(count: int, height: int, width: int) -> torch.Tensor:
    """Of 8 bits, as files hold them, and smooth enough that resampling is no matter of single pixels."""
    coarse = torch.rand(count, 3, 7, 5, generator=Generator().manual_seed(3))
    image = torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear")
    return (image.permute(0, 2, 3, 1) * 255).round() / 255


@pytest.mark.parametrize("kind", [*KINDS, "toybox"])
def test_embeddings_are_unit_vectors_of_one_space(kind, tmp_path):
    model = opened(kind, tmp_path)
    assert isinstance(model, ContrastiveModel)
    text, seen = model.embed_text(CAPTIONS), model.embed_images(pictures(2, 40, 56))
    assert text.shape == (3, seen.shape[1])
    assert len(seen) == 2
    for one in (text, seen):
        assert torch.allclose(one.norm(dim=1), torch.ones(len(one)), atol=1e-5)
    assert not text.requires_grad
    assert model.logit_scale > 0


@pytest.mark.parametrize("kind", [*KINDS, "toybox"])
def test_gradients_of_pictures_are_those_of_finite_differences(kind, tmp_path):
    """Along the gradient, of the cosine to a caption; pictures of another size and shape than the model's own."""
    model = opened(kind, tmp_path)
    image = (0.2 + 0.6 * pictures(1, 40, 48)).requires_grad_()
    caption = model.embed_text(["a frog"])

    def cosine(x):
        return (model.embed_images(x) * caption).sum()

    (gradient,) = torch.autograd.grad(cosine(image), image)
    direction = gradient / gradient.norm()
    step = 0.05
    with torch.no_grad():
        slope = (cosine(image + step * direction) - cosine(image - step * direction)) / (2 * step)
    assert float(slope) == pytest.approx(float(gradient.norm()), rel=0.03)
    assert float(slope) > 0


@pytest.mark.parametrize("kind", [*KINDS, "toybox"])
def test_the_networks_are_frozen(kind, tmp_path):
    model = opened(kind, tmp_path)
    network = model.network if isinstance(model, ToyboxClip) else model.model
    model.embed_images(pictures(1, 32, 32).requires_grad_()).sum().backward()
    assert not network.training
    assert all(p.grad is None and not p.requires_grad for p in network.parameters())


# CLIP and SigLIP, against what `transformers` makes of the same


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(32, 32), (64, 64), (50, 70), (90, 41), (20, 24)])
def test_pictures_are_prepared_as_by_the_models_own_processor(kind, shape, tmp_path):
    """To within the rounding of 8 bits, which the processor does after resizing."""
    from transformers import AutoImageProcessor

    save_contrastive(kind, tmp_path)
    model, image = open_contrastive(str(tmp_path)), pictures(2, *shape)
    files = [Image.fromarray(one) for one in (image * 255).round().to(torch.uint8).numpy()]
    own = AutoImageProcessor.from_pretrained(tmp_path)(images=files, return_tensors="pt")["pixel_values"]
    assert own.shape == (2, 3, CLIP_SIZE, CLIP_SIZE)
    assert model.image_size == CLIP_SIZE
    mine = model.preprocessing(image)
    assert (mine - own).abs().max() < 1.5 / 255 / min(model.preprocessing.std)
    with torch.no_grad():
        features = model.model.get_image_features(pixel_values=own)
    features = getattr(features, "pooler_output", features)
    features = features / features.norm(dim=1, keepdim=True)
    assert (model.embed_images(image) * features).sum(1).min() > 0.999


@pytest.mark.parametrize("kind", KINDS)
def test_captions_are_read_as_the_model_learnt_to(kind, tmp_path):
    """SigLIP has no mask: it sees the padding. Captions that are too long are cut."""
    save_contrastive(kind, tmp_path)
    model = open_contrastive(str(tmp_path))
    tokens = model.tokenizer(CAPTIONS, padding="max_length", max_length=CLIP_TEXT, return_tensors="pt")
    given = {"input_ids": tokens["input_ids"]}
    if kind == "clip":
        given["attention_mask"] = tokens["attention_mask"]
    with torch.no_grad():
        features = model.model.get_text_features(**given)
    features = getattr(features, "pooler_output", features)
    assert torch.allclose(model.embed_text(CAPTIONS), features / features.norm(dim=1, keepdim=True), atol=1e-5)
    assert model.embed_text(["a frog " * 50]).isfinite().all()


def test_clip_cuts_the_middle_out_and_siglip_squeezes():
    image = torch.zeros(1, 32, 96, 3)
    image[:, :, 32:64] = 1
    squeezed = Preprocessing(32, None, "bicubic", (0.0,) * 3, (1.0,) * 3)(image)
    cropped = Preprocessing(32, 32, "bicubic", (0.0,) * 3, (1.0,) * 3)(image)
    assert float(cropped.min()) > 0.99
    assert float(squeezed.mean()) == pytest.approx(1 / 3, abs=0.01)


def test_half_precision_takes_pictures_and_gives_floats(tmp_path):
    save_contrastive("clip", tmp_path)
    model = open_contrastive(str(tmp_path))
    exact = model.embed_images(pictures(2, 32, 32))
    model.model.to(torch.bfloat16)
    rounded = model.embed_images(pictures(2, 32, 32))
    assert rounded.dtype == torch.float32
    assert (exact * rounded).sum(1).min() > 0.99


# What opens, and what does not


def test_what_is_no_contrastive_model_is_refused(tmp_path):
    for name in ("nothing", str(tmp_path / "missing" / "deep")):
        with pytest.raises(UserError, match="there is no contrastive model"):
            open_contrastive(name)
    with pytest.raises(UserError, match="check the name or folder"):
        open_contrastive(str(tmp_path))


def test_a_model_of_another_kind_is_refused(tmp_path):
    from transformers import CLIPTextConfig, CLIPTextModel

    save_contrastive("clip", tmp_path)
    config = CLIPTextConfig(hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2)
    CLIPTextModel(config).save_pretrained(tmp_path)
    with pytest.raises(UserError, match="is a CLIPTextModel, no CLIP or SigLIP"):
        open_contrastive(str(tmp_path))


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_weights_are_refused(kind, tmp_path):
    save_contrastive(kind, tmp_path)
    file = tmp_path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(UserError, match="check the name or folder"):
        open_contrastive(str(tmp_path))


def saved(folder: Path) -> Path:
    write(toybox().network, folder)
    (folder / CARD).write_text(json.dumps(TINY))
    return folder


def test_a_trained_folder_opens_to_the_same_model(tmp_path):
    model, again = toybox(), open_contrastive(str(saved(tmp_path)))
    assert again.name == "tiny"
    image = pictures(2, SIZE, SIZE)
    assert (model.embed_images(image) * again.embed_images(image)).sum(1).min() > 0.999
    assert (model.embed_text(CAPTIONS) * again.embed_text(CAPTIONS)).sum(1).min() > 0.999


@pytest.mark.parametrize(
    "harm",
    [
        lambda folder: (folder / CARD).unlink(),
        lambda folder: (folder / CARD).write_text("{}"),
        lambda folder: (folder / CARD).write_text(json.dumps(TINY | {"nouns": ["tractor"]})),
        lambda folder: (folder / CARD).write_text(json.dumps(TINY | {"words": TINY["words"][1:], "nouns": ["frog"]})),
        lambda folder: (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:999]),
    ],
)
def test_a_damaged_trained_folder_is_refused(harm, tmp_path):
    harm(saved(tmp_path))
    with pytest.raises(UserError):
        open_contrastive(str(tmp_path))


# The embedded kind


def test_words_have_no_order_and_unknown_ones_do_not_count():
    model = toybox()
    said = model.embed_text(["a red chair", "chair, red", "the chair that is red", "a chair", "a Red Chair!"])
    cosine = said @ said[0]
    assert torch.allclose(cosine[[0, 1, 2, 4]], torch.ones(4), atol=1e-5)
    assert cosine[3] < 0.9999


def test_a_caption_without_a_known_thing_is_refused():
    model = toybox()
    model.embed_text(["a red pine tree"])
    for caption in ("", "red", "a tree", "a spaceship"):
        with pytest.raises(UserError, match="knows no thing"):
            model.embed_text(["a frog", caption])


def test_pictures_do_not_depend_on_each_other_nor_on_their_size():
    model, image = toybox(), pictures(3, 2 * SIZE, 2 * SIZE)
    together = model.embed_images(image)
    assert torch.allclose(together[1:2], model.embed_images(image[1:2]), atol=1e-5)
    small = torch.nn.functional.avg_pool2d(image.permute(0, 3, 1, 2), 2).permute(0, 2, 3, 1)
    assert (together * model.embed_images(small)).sum(1).min() > 0.99


def test_it_scores_as_a_scorer_does(tmp_path):
    scorer, image = open_scorer(str(saved(tmp_path))), pictures(2, SIZE, SIZE)
    scores = scorer.score(image, CAPTIONS[:2])
    expected = scorer.model.embed_images(image) @ scorer.model.embed_text(CAPTIONS[:2]).T
    assert scores.shape == (2, 2)
    assert torch.allclose(scores, expected, atol=1e-5)


# What ships


@pytest.fixture(scope="module")
def shipped():
    return open_contrastive(TOYBOX)


def test_the_weights_are_small_and_know_what_the_judge_knows(shipped):
    folder = Path(str(resources.files("dreamfusion.contrastive"))) / "weights"
    judge = open_judge()
    assert sum(file.stat().st_size for file in folder.iterdir()) < 8 * 2**20
    assert shipped.card["nouns"] == judge.nouns
    assert shipped.card["colours"] == judge.card["colours"]
    assert 1 < shipped.logit_scale <= 100


def test_its_nouns_lie_apart(shipped):
    nouns = shipped.embed_text([f"a {noun}" for noun in shipped.card["nouns"]])
    cosine = nouns @ nouns.T - 2 * torch.eye(len(nouns))
    assert cosine.max() < 0.99
    assert cosine.sum() / (len(nouns) * (len(nouns) - 1)) < 0.3 + 2 / (len(nouns) - 1)


@pytest.mark.processor
@pytest.mark.parametrize(("kind", "least"), [("colour", 0.5), ("textureless", 0.3)])
def test_it_finds_the_captions_of_real_things(shipped, kind, least):
    """Evaluation views of the 80 prompts' things (unlit), and of what a perfect prior made of them (textureless).

    Someone who guesses finds one of 80, or one of 60 without colours.
    """
    truths, prompts = open_truths(), pool()
    name = without_colour if kind == "textureless" else str
    captions = list(dict.fromkeys(map(name, prompts)))
    said, right = shipped.embed_text(captions), []
    for prompt in prompts:
        views = truths.made(prompt)[2] if kind == "textureless" else truths.true(prompt).pictures[0]
        right.append((shipped.embed_images(views) @ said.T).argmax(1) == captions.index(name(prompt)))
    assert torch.cat(right).float().mean() > least
