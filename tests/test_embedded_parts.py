"""The embedded prior's parts against the libraries in whose layout they lie, and that those are not imported."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from diffusers import DDPMScheduler
from safetensors.torch import load_file, save_file
from transformers import PreTrainedTokenizerFast

from dreamfusion.diffusion.priors import open_prior
from dreamfusion.diffusion.priors.locate import locate
from dreamfusion.embedded.denoiser import TablesDenoiser
from dreamfusion.embedded.noise import CosineScheduler
from dreamfusion.embedded.text import WordEncoder, WordTokenizer
from dreamfusion.errors import UserError
from miniatures import tables
from training.nouns import learned, nouns

FOLDER = locate("embedded").path
CAPTIONS = ["a red chair, front view", "", "a Hamburger!!", "two unknown wrds", "a b " * 30]


def test_words_become_the_tokens_of_transformers() -> None:
    ours = WordTokenizer.from_pretrained(str(FOLDER), "tokenizer")
    theirs = PreTrainedTokenizerFast.from_pretrained(FOLDER, subfolder="tokenizer")
    assert ours.model_max_length == theirs.model_max_length
    expected = theirs(CAPTIONS, padding="max_length", max_length=24)
    made = ours(CAPTIONS, padding="max_length", max_length=24)
    assert made == {key: expected[key] for key in ("input_ids", "attention_mask")}


def test_captions_are_the_words_that_they_hold(tmp_path: Path) -> None:
    ours, report = WordEncoder.from_pretrained(str(FOLDER), "text_encoder")
    assert report["missing_keys"] == []
    said = open_prior("embedded").embed(["a red chair", "chair red a", "", "a chair"]).sum(1)
    assert torch.equal(said[0], said[1])
    assert said.sum(1).tolist() == [3, 3, 0, 2]
    assert torch.equal(ours(torch.tensor([[0, 1, 2]])).last_hidden_state, torch.zeros(1, 3, said.shape[1]))
    made = WordEncoder(5, 2)
    made.save_pretrained(tmp_path / "text_encoder")
    again, _ = WordEncoder.from_pretrained(str(tmp_path), "text_encoder")
    ids = torch.tensor([[4, 1, 2]])
    assert torch.equal(again(ids).last_hidden_state, made(ids).last_hidden_state)
    assert again(ids).last_hidden_state[0].argmax(1).tolist() == [4, 0, 2]


def test_noise_is_that_of_diffusers() -> None:
    ours = CosineScheduler.from_pretrained(str(FOLDER), "scheduler")
    theirs = DDPMScheduler.from_pretrained(FOLDER, subfolder="scheduler")
    assert torch.allclose(ours.alphas_cumprod, theirs.alphas_cumprod, rtol=1e-6, atol=0)
    assert ours.config.prediction_type == theirs.config.prediction_type


def test_a_network_is_saved_and_read_again(tmp_path: Path) -> None:
    network = tables(learned(nouns())[:3]).half()
    network.save_pretrained(tmp_path / "unet")
    again, report = TablesDenoiser.from_pretrained(str(tmp_path), "unet", dtype=torch.float16)
    assert (report["missing_keys"], again.config) == ([], network.config)
    assert again.shape == network.shape
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in network.state_dict().items())


def test_of_weights_in_parts_the_later_one_counts(tmp_path: Path) -> None:
    network, folder = tables(learned(nouns())[:3]), tmp_path / "unet"
    network.save_pretrained(folder)
    first, second = (folder / f"diffusion_pytorch_model-0000{part}-of-00002.safetensors" for part in (1, 2))
    whole = folder / "diffusion_pytorch_model.safetensors"
    older = load_file(whole)
    whole.unlink()
    newer = {"spread": older["spread"] + 1, "luma": older.pop("luma")}
    save_file(older, first)
    save_file(newer, second)
    names = dict.fromkeys(older, first.name) | dict.fromkeys(newer, second.name)
    Path(f"{whole}.index.json").write_text(json.dumps({"weight_map": names}))
    again, report = TablesDenoiser.from_pretrained(str(tmp_path), "unet")
    assert report["missing_keys"] == []
    assert torch.equal(again.spread, network.spread + 1)
    assert torch.equal(again.luma, network.luma)
    second.unlink()
    with pytest.raises(UserError, match=r"00002-of-00002\.safetensors is missing"):
        TablesDenoiser.from_pretrained(str(tmp_path), "unet")


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("scheduler/scheduler_config.json", "squaredcos_cap_v2", "linear"),
        ("scheduler/scheduler_config.json", '"num_train_timesteps": 1000', '"num_train_timesteps": 0'),
        ("text_encoder/config.json", '"vocab_size": ', '"vocab_size": 1'),
        ("unet/config.json", '"width": 256', '"width": 64'),
        ("unet/config.json", '"things": 562', '"things": 5'),
        ("unet/config.json", '"nodes"', '"knots"'),
        ("unet/config.json", '"rank": 2', '"rank": 3'),
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
