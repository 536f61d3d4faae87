"""The parts of the embedded prior's `diffusers` folder: made new for training, written for shipping."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import DDPMScheduler
from jaxtyping import Float
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast, T5Config, T5EncoderModel

from dreamfusion.embedded.unet import ToyUNet
from training.nouns import Noun
from training.prior import data as dataset

PAD, END, UNKNOWN = "<pad>", "</s>", "<unk>"


@dataclass(frozen=True)
class Parts:
    """What a text-to-image pipeline is made of; the text encoder and the U-Net are trained together."""

    tokenizer: PreTrainedTokenizerFast
    text_encoder: T5EncoderModel
    unet: ToyUNet
    scheduler: DDPMScheduler

    def networks(self) -> nn.ModuleDict:
        """The trained parts as one module."""
        return nn.ModuleDict({"text_encoder": self.text_encoder, "unet": self.unet})

    def embed(self, captions: list[str]) -> Float[Tensor, "b l d"]:
        """Encode captions, differentiably; padded places are zero."""
        tokens = self.tokenizer(captions, padding=True, return_tensors="pt")
        mask = tokens["attention_mask"]
        states = self.text_encoder(input_ids=tokens["input_ids"], attention_mask=mask).last_hidden_state
        return states * mask[..., None]


def new_parts(table: Sequence[Noun], seed: int) -> Parts:
    """Untrained parts for the words of the manifest and its captions."""
    torch.manual_seed(seed)
    words = [PAD, END, UNKNOWN, *dataset.vocabulary(table)]
    config = T5Config(
        vocab_size=len(words), d_model=128, d_kv=32, d_ff=256, num_layers=1, num_heads=4, dropout_rate=0.0,
        pad_token_id=0, eos_token_id=1,
    )  # fmt: skip
    scheduler = DDPMScheduler(beta_schedule="squaredcos_cap_v2", prediction_type="sample", clip_sample=False)
    return Parts(word_tokenizer(words), T5EncoderModel(config), ToyUNet(text_width=128), scheduler)


def word_tokenizer(words: list[str]) -> PreTrainedTokenizerFast:
    """Lower-case words without punctuation, one token each, closed by the end token."""
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token=UNKNOWN))
    strip = normalizers.Replace(Regex("[^a-z0-9 ]"), " ")
    tokenizer.normalizer = normalizers.Sequence([normalizers.Lowercase(), strip])
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    end = [(END, words.index(END))]
    tokenizer.post_processor = processors.TemplateProcessing(single=f"$A {END}", special_tokens=end)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=PAD, eos_token=END, unk_token=UNKNOWN, model_max_length=24
    )


def write(parts: Parts, folder: Path, card: dict[str, Any]) -> None:
    """Write a folder that `diffusers`' classes read back, in half precision, with the model card beside it."""
    parts.tokenizer.save_pretrained(folder / "tokenizer")
    parts.text_encoder.half().save_pretrained(folder / "text_encoder")
    parts.unet.half().save_pretrained(folder / "unet")
    parts.scheduler.save_pretrained(folder / "scheduler")
    index = {
        "_class_name": "IFPipeline",
        "scheduler": ["dreamfusion.embedded.noise", "CosineScheduler"],
        "text_encoder": ["dreamfusion.embedded.text", "WordEncoder"],
        "tokenizer": ["dreamfusion.embedded.text", "WordTokenizer"],
        "unet": ["dreamfusion.embedded.unet", "ToyUNet"],
    }
    (folder / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")
    (folder / "card.json").write_text(json.dumps(card, indent=2) + "\n")
