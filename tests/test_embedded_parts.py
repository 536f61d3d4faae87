"""The embedded prior's parts against the libraries in whose layout they lie, and that those are not imported."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from diffusers import DDPMScheduler
from transformers import PreTrainedTokenizerFast, T5Config, T5EncoderModel

from dreamfusion.diffusion.priors import open_prior
from dreamfusion.diffusion.priors.locate import locate
from dreamfusion.embedded.noise import CosineScheduler
from dreamfusion.embedded.text import WordEncoder, WordTokenizer, distance_buckets
from dreamfusion.embedded.unet import ToyUNet
from dreamfusion.errors import UserError

FOLDER = locate("embedded").path
CAPTIONS = ["a red chair, front view", "", "a Hamburger!!", "two unknown wrds", "a b " * 30]


def test_words_become_the_tokens_of_transformers() -> None:
    ours = WordTokenizer.from_pretrained(str(FOLDER), "tokenizer")
    theirs = PreTrainedTokenizerFast.from_pretrained(FOLDER, subfolder="tokenizer")
    assert ours.model_max_length == theirs.model_max_length
    expected = theirs(CAPTIONS, padding="max_length", max_length=24)
    made = ours(CAPTIONS, padding="max_length", max_length=24)
    assert made == {key: expected[key] for key in ("input_ids", "attention_mask")}


@torch.no_grad()
@pytest.mark.parametrize("masked", [True, False])
def test_shipped_weights_say_what_they_say_in_transformers(masked: bool) -> None:
    ours, report = WordEncoder.from_pretrained(str(FOLDER), "text_encoder")
    theirs = T5EncoderModel.from_pretrained(FOLDER, subfolder="text_encoder", dtype=torch.float32)
    assert report["missing_keys"] == []
    tokens = WordTokenizer.from_pretrained(str(FOLDER), "tokenizer")(CAPTIONS[:4], max_length=24)
    ids, mask = (torch.tensor(tokens[key]) for key in ("input_ids", "attention_mask"))
    made = ours(ids, mask if masked else None)
    expected = theirs(input_ids=ids, attention_mask=mask if masked else None, output_hidden_states=True)
    for mine, other in zip(made.hidden_states, expected.hidden_states, strict=True):
        assert torch.allclose(mine, other, atol=1e-5)
    assert torch.allclose(made.last_hidden_state, expected.last_hidden_state, atol=1e-5)


@torch.no_grad()
def test_a_deeper_encoder_reads_long_captions_as_transformers_does(tmp_path: Path) -> None:
    """300 tokens: all classes of distances, and three blocks that share one table."""
    torch.manual_seed(0)
    sizes = {"vocab_size": 40, "d_model": 24, "d_kv": 5, "d_ff": 32, "num_layers": 3, "num_heads": 3}
    theirs = T5EncoderModel(T5Config(**sizes)).eval()
    theirs.save_pretrained(tmp_path / "text_encoder")
    ours, report = WordEncoder.from_pretrained(str(tmp_path), "text_encoder")
    assert report["missing_keys"] == []
    ids = torch.randint(0, 40, (2, 300))
    assert torch.allclose(ours(ids).last_hidden_state, theirs(input_ids=ids).last_hidden_state, atol=1e-5)


def test_distances_have_the_classes_of_the_paper() -> None:
    distance = torch.tensor([[0, -1, 1], [7, -7, 8], [127, 128, -5000]])
    assert distance_buckets(distance).tolist() == [[0, 1, 17], [23, 7, 24], [31, 31, 15]]


def test_noise_is_that_of_diffusers() -> None:
    ours = CosineScheduler.from_pretrained(str(FOLDER), "scheduler")
    theirs = DDPMScheduler.from_pretrained(FOLDER, subfolder="scheduler")
    assert torch.allclose(ours.alphas_cumprod, theirs.alphas_cumprod, rtol=1e-6, atol=0)
    assert ours.config.prediction_type == theirs.config.prediction_type


def test_a_network_is_saved_and_read_again(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = ToyUNet(width=16, wide=16, vector=8, sketch_width=8).half()
    network.save_pretrained(tmp_path / "unet")
    again, report = ToyUNet.from_pretrained(str(tmp_path), "unet", dtype=torch.float16)
    assert (report["missing_keys"], again.config) == ([], network.config)
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in network.state_dict().items())


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("scheduler/scheduler_config.json", "squaredcos_cap_v2", "linear"),
        ("scheduler/scheduler_config.json", '"num_train_timesteps": 1000', '"num_train_timesteps": 0'),
        ("text_encoder/config.json", '"num_layers": 1', '"num_layers": 0'),
        ("text_encoder/config.json", '"num_layers": 1', '"num_layers": 2'),
        ("unet/config.json", '"width": 128', '"width": 64'),
        ("tokenizer/tokenizer_config.json", '"<pad>"', '"<nothing>"'),
        ("tokenizer/tokenizer.json", "WordLevel", "Nothing"),
    ],
)
def test_files_that_do_not_fit_are_named(tmp_path: Path, file: str, old: str, new: str) -> None:
    shutil.copytree(FOLDER, tmp_path / "prior")
    path = tmp_path / "prior" / file
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    with pytest.raises(UserError, match=file.split("/")[0]):
        open_prior(str(tmp_path / "prior")).embed(["a chair"])


def test_neither_a_run_nor_its_mesh_imports_what_it_does_not_need_yet() -> None:
    """Importing them takes longer than the first hundred steps."""
    code = """
import sys
from dataclasses import replace
import torch
from dreamfusion import generate
from dreamfusion.loop import advance, start
from dreamfusion.config.presets import FAST
config = replace(FAST, prompt="a hamburger", size=16)
generate.prepare_process(config)
prior, prompts = generate.open_parts(config, torch.device("cpu"))
advance(start(config, torch.device("cpu")), prior, prompts)
import dreamfusion.mesh, dreamfusion.video, dreamfusion.viewer
print(sorted({"diffusers", "transformers", "scipy.ndimage", "av"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]", done.stdout


def test_the_measures_of_the_evaluation_import_neither_meshes_nor_large_models() -> None:
    code = """
import sys
import dreamfusion.evaluate.measure, dreamfusion.evaluate.r_precision, dreamfusion.evaluate.janus
import dreamfusion.evaluate.judge.judge, dreamfusion.evaluate.captions
print(sorted({"trimesh", "diffusers", "transformers", "scipy", "skimage", "av"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]", done.stdout
