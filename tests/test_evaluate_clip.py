"""CLIP and SigLIP as scorers: randomly initialised miniatures, compared with what `transformers` itself computes."""

import pytest
import torch
from torch import Generator

from dreamfusion.errors import UserError
from dreamfusion.evaluate.scorer import open_scorer
from miniatures import CLIP_TEXT, save_contrastive

CAPTIONS = ["a red chair", "a frog", "a red frog, a chair"]


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_scores_rank_as_the_models_own_logits(kind, tmp_path):
    """`logits_per_image` is an affine function of the cosine that grows with it."""
    save_contrastive(kind, tmp_path)
    scorer = open_scorer(str(tmp_path))
    images = torch.rand(3, 32, 32, 3, generator=Generator().manual_seed(1))
    scores, opened = scorer.score(images, CAPTIONS), scorer.model
    tokens = opened.tokenizer(CAPTIONS, padding="max_length", max_length=CLIP_TEXT, return_tensors="pt")
    mask = {"attention_mask": tokens["attention_mask"]} if kind == "clip" else {}
    pixels = ((images * 255).round() / 255).permute(0, 3, 1, 2)
    mean, std = (torch.tensor(getattr(opened.preprocessing, name))[:, None, None] for name in ("mean", "std"))
    with torch.no_grad():
        own = opened.model(input_ids=tokens["input_ids"], pixel_values=(pixels - mean) / std, **mask)
    scale, bias = opened.model.logit_scale.exp(), getattr(opened.model, "logit_bias", torch.zeros(()))
    assert torch.allclose(scores, (own.logits_per_image - bias) / scale, atol=1e-4)
    assert scores.abs().max() <= 1
    assert scores.std() > 0


def test_pictures_of_any_size_are_brought_to_the_models_own(tmp_path):
    save_contrastive("clip", tmp_path)
    assert open_scorer(str(tmp_path)).score(torch.rand(2, 128, 128, 3), CAPTIONS).shape == (2, 3)


def test_what_is_no_scorer_is_refused(tmp_path):
    with pytest.raises(UserError, match="no scorer"):
        open_scorer(str(tmp_path / "missing" / "deep"))
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UserError, match="check the name or folder"):
        open_scorer(str(tmp_path))
