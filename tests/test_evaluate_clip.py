"""CLIP and SigLIP as scorers: randomly initialised miniatures, compared with what `transformers` itself computes."""

import pytest
import torch
from torch import Generator
from transformers import (
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    SiglipConfig,
    SiglipImageProcessor,
    SiglipModel,
)

from dreamfusion.errors import UserError
from dreamfusion.evaluate.scorer import open_scorer
from training.prior.ship import END, PAD, UNKNOWN, word_tokenizer

WORDS = [PAD, END, UNKNOWN, "a", "red", "chair", "frog"]
CAPTIONS = ["a red chair", "a frog", "a red frog, a chair"]
LENGTH = 8


def small(**more: int) -> dict[str, int]:
    return {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, **more}


def miniature(kind: str, folder) -> None:
    """A folder as `transformers` writes it; the real ones differ in size only."""
    text = small(vocab_size=len(WORDS), max_position_embeddings=LENGTH) | {
        "eos_token_id": 1, "bos_token_id": 3, "pad_token_id": 0, "projection_size": 16,
    }  # fmt: skip
    vision = small(image_size=32, patch_size=8)
    size = {"height": 32, "width": 32}
    torch.manual_seed(0)
    if kind == "clip":
        CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=12)).save_pretrained(folder)
        CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=size).save_pretrained(folder)
    else:
        SiglipModel(SiglipConfig(text_config=text, vision_config=vision)).save_pretrained(folder)
        SiglipImageProcessor(size=size).save_pretrained(folder)
    word_tokenizer(WORDS).save_pretrained(folder)


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_scores_rank_as_the_models_own_logits(kind, tmp_path):
    """`logits_per_image` is an affine function of the cosine that grows with it."""
    miniature(kind, tmp_path)
    scorer = open_scorer(str(tmp_path))
    images = torch.rand(3, 32, 32, 3, generator=Generator().manual_seed(1))
    scores = scorer.score(images, CAPTIONS)
    tokens = scorer.tokenizer(CAPTIONS, padding="max_length", max_length=LENGTH, return_tensors="pt")
    mask = {"attention_mask": tokens["attention_mask"]} if kind == "clip" else {}
    pixels = ((images * 255).round() / 255).permute(0, 3, 1, 2)
    mean, std = (torch.tensor(getattr(scorer.pictures, name))[:, None, None] for name in ("image_mean", "image_std"))
    with torch.no_grad():
        own = scorer.model(input_ids=tokens["input_ids"], pixel_values=(pixels - mean) / std, **mask)
    scale, bias = scorer.model.logit_scale.exp(), getattr(scorer.model, "logit_bias", torch.zeros(()))
    assert torch.allclose(scores, (own.logits_per_image - bias) / scale, atol=1e-4)
    assert scores.abs().max() <= 1
    assert scores.std() > 0


def test_pictures_of_any_size_are_brought_to_the_models_own(tmp_path):
    miniature("clip", tmp_path)
    assert open_scorer(str(tmp_path)).score(torch.rand(2, 128, 128, 3), CAPTIONS).shape == (2, 3)


def test_what_is_no_scorer_is_refused(tmp_path):
    with pytest.raises(UserError, match="no scorer"):
        open_scorer(str(tmp_path / "missing" / "deep"))
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UserError, match="check the name or folder"):
        open_scorer(str(tmp_path))
