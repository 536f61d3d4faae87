"""The adapter on miniature pipelines with random weights, made and saved by diffusers and transformers themselves."""

import json
import math
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from dreamfusion.diffusion.priors import (
    Prediction,
    Prior,
    PriorOptions,
    ViewCondition,
    open_prior,
    require_known,
    unknown_words,
    words_of,
)
from dreamfusion.diffusion.priors.card import Card
from dreamfusion.diffusion.priors.denoisers import TextUNet
from dreamfusion.diffusion.view_words import ViewWords
from dreamfusion.errors import UserError
from dreamfusion.lights import albedo_only
from gaussian_prior import GaussianPrior, cosine_schedule

SIZE, WORDS = 8, ["a", "red", "chair", "hamburger", "front", "side", "back", "view"]


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory) -> Path:
    """A folder like DeepFloyd IF's first stage, but tiny: a U-Net for epsilon and a learned variance, T5."""
    from diffusers import DDPMScheduler, UNet2DConditionModel
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, T5Config, T5EncoderModel

    folder = tmp_path_factory.mktemp("priors") / "miniature"
    torch.manual_seed(0)
    UNet2DConditionModel(
        sample_size=SIZE, in_channels=3, out_channels=6, cross_attention_dim=16, attention_head_dim=4,
        layers_per_block=1, block_out_channels=(8, 8), norm_num_groups=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
    ).save_pretrained(folder / "unet")  # fmt: skip
    config = T5Config(vocab_size=len(WORDS) + 2, d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2)
    T5EncoderModel(config).save_pretrained(folder / "text_encoder")
    words = Tokenizer(
        models.WordLevel({word: i for i, word in enumerate(["<pad>", "<unk>", *WORDS])}, unk_token="<unk>")
    )
    words.normalizer, words.pre_tokenizer = normalizers.Lowercase(), pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", unk_token="<unk>", model_max_length=6
    ).save_pretrained(folder / "tokenizer")
    DDPMScheduler(beta_schedule="squaredcos_cap_v2", variance_type="learned_range", clip_sample=False).save_pretrained(
        folder / "scheduler"
    )
    index = {
        "_class_name": "IFPipeline",
        "unet": ["diffusers", "UNet2DConditionModel"],
        "text_encoder": ["transformers", "T5EncoderModel"],
        "tokenizer": ["transformers", "PreTrainedTokenizerFast"],
        "scheduler": ["diffusers", "DDPMScheduler"],
        "safety_checker": [None, None],
        "requires_safety_checker": False,
    }
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


@pytest.fixture(scope="module")
def prior(pipeline) -> Prior:
    return open_prior(str(pipeline))


@pytest.fixture
def copy(pipeline, tmp_path) -> Path:
    """A folder to damage."""
    return Path(shutil.copytree(pipeline, tmp_path / "copy"))


def edit(path: Path, **changes) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def batch(seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(3, 3, SIZE, SIZE, generator=generator), torch.tensor([20, 500, 979])


# --- what the networks say -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prediction", ["epsilon", "sample", "v_prediction"])
def test_noise_equals_what_diffusers_makes_of_the_network(copy, prediction):
    """The clean picture that our epsilon stands for is the one diffusers' scheduler takes from the network's output."""
    from diffusers import DDPMScheduler

    edit(copy / "scheduler" / "scheduler_config.json", prediction_type=prediction)
    prior = open_prior(str(copy))
    noisy, t = batch()
    text = prior.embed(["a red chair"] * 3)
    x0 = prior.schedule.x0_from_eps(prior.predict_noise(noisy, t, text, ViewCondition()), noisy, t)
    scheduler = DDPMScheduler.from_pretrained(copy, subfolder="scheduler")
    for picture in range(3):
        one = slice(picture, picture + 1)
        with torch.no_grad():
            output = prior.denoiser.network(noisy[one], t[one], encoder_hidden_states=text[one]).sample
        step = scheduler.step(output, t[picture], noisy[one], generator=torch.Generator())
        scale = step.pred_original_sample.abs().max()
        torch.testing.assert_close(x0[one] / scale, step.pred_original_sample / scale, atol=2e-5, rtol=0)


def test_schedule_is_the_schedulers(pipeline, prior):
    from diffusers import DDPMScheduler

    scheduler = DDPMScheduler.from_pretrained(pipeline, subfolder="scheduler")
    x0, t = batch()
    eps, _ = batch(1)
    torch.testing.assert_close(prior.schedule.add_noise(x0, eps, t), scheduler.add_noise(x0, eps, t))
    v, noisy = scheduler.get_velocity(x0, eps, t), scheduler.add_noise(x0, eps, t)
    torch.testing.assert_close(prior.schedule.eps_from_v(v, noisy, t), eps, atol=1e-4, rtol=1e-4)


def test_text_is_embedded_as_deepfloyd_if_does(copy):
    """Padded to 77 tokens though the tokenizer allows more, with the attention mask, padding left as it comes out."""
    from diffusers import IFPipeline

    edit(copy / "tokenizer" / "tokenizer_config.json", model_max_length=512)
    pipeline = IFPipeline.from_pretrained(copy, local_files_only=True)
    text, empty = pipeline.encode_prompt("hamburger, side view")
    embedded = open_prior(str(copy)).embed(["hamburger, side view", ""])
    torch.testing.assert_close(embedded, torch.cat([text, empty]))
    assert embedded.shape[1] == 77
    assert not torch.equal(text, empty)


def test_pictures_keep_their_pixels_at_the_priors_size(prior):
    image = torch.rand(2, SIZE, SIZE, 3, generator=torch.Generator().manual_seed(0))
    encoded = prior.encode(image)
    torch.testing.assert_close(encoded.permute(0, 2, 3, 1) / 2 + 0.5, image)
    assert (encoded[1, 2, 3, 5] - (2 * image[1, 3, 5, 2] - 1)).abs() < 1e-6


def test_larger_pictures_are_averaged_down_and_give_gradients(prior):
    """Neither a checkerboard's phase nor a shift by one source pixel aliases, unlike with plain bilinear sampling."""
    fine = 8 * SIZE
    board = (torch.arange(fine)[:, None] + torch.arange(fine)[None]) % 2
    image = board.float()[None, :, :, None].repeat(1, 1, 1, 3).requires_grad_()
    encoded = prior.encode(image)
    assert encoded[..., 1:-1, 1:-1].abs().max() < 1e-2
    encoded.sum().backward()
    # Every source pixel counts; in total 2 (the scale) per target pixel.
    assert bool((image.grad > 0).all())
    torch.testing.assert_close(image.grad.sum(), torch.tensor(2.0 * 3 * SIZE * SIZE))


def test_pictures_that_are_not_square_are_refused(prior):
    with pytest.raises(ValueError, match="square"):
        prior.encode(torch.zeros(1, SIZE, 2 * SIZE, 3))


def test_the_prior_is_frozen(prior):
    noisy, t = batch()
    text = prior.embed(["a chair"] * 3)
    predicted = prior.predict_noise(noisy, t, text, ViewCondition())
    network = prior.denoiser.network
    assert not any(parameter.requires_grad for parameter in network.parameters())
    assert not network.training
    assert not predicted.requires_grad
    assert not text.requires_grad


def test_half_precision_networks_leave_the_pictures_in_their_dtype(pipeline):
    """The conversion to epsilon happens in the pictures' precision."""
    noisy, t = batch()
    full, half = open_prior(str(pipeline)), open_prior(str(pipeline), PriorOptions(dtype=torch.bfloat16))
    said = [prior.predict_noise(noisy, t, prior.embed(["a chair"] * 3), ViewCondition()) for prior in (full, half)]
    assert said[1].dtype == torch.float32
    assert next(half.denoiser.network.parameters()).dtype == torch.bfloat16
    assert not torch.equal(*said)
    torch.testing.assert_close(*said, atol=0.1, rtol=0.1)


# --- cards -----------------------------------------------------------------------------------------------------------

CARD = {
    "name": "toy",
    "image_size": SIZE,
    "view_words": {
        "front": "front view", "left": "left view", "right": "right view", "back": "back view",
        "overhead": "top view", "textureless": "grey",
    },
    "overhead_above_deg": 45.0,
    "conditions": ["pose", "light"],
    "vocabulary": WORDS,
}  # fmt: skip


def test_without_a_card_a_prior_is_the_papers(prior):
    assert isinstance(prior, Prior)
    assert (prior.name, prior.image_size, prior.view_words) == ("miniature", SIZE, ViewWords())
    assert (prior.conditions, prior.vocabulary) == (frozenset(), None)


def test_card_is_read(copy):
    (copy / "card.json").write_text(json.dumps(CARD))
    prior = open_prior(str(copy))
    words = prior.view_words
    assert (words.front, words.left, words.right, words.back) == ("front view", "left view", "right view", "back view")
    assert (words.overhead, words.textureless) == ("top view", "grey")
    assert math.isclose(words.overhead_above, math.pi / 4)
    assert (prior.name, prior.conditions) == ("toy", {"pose", "light"})
    assert prior.vocabulary == set(WORDS)


def test_a_cards_padding_is_zero(copy, prior):
    """Real tokens are embedded as before; the positions after them are exactly zero, if the card says so."""
    (copy / "card.json").write_text(json.dumps(CARD))
    assert torch.equal(open_prior(str(copy)).embed(["a red chair"]), prior.embed(["a red chair"]))
    (copy / "card.json").write_text(json.dumps({**CARD, "zero_padding": True}))
    padded = open_prior(str(copy)).embed(["a red chair", ""])
    torch.testing.assert_close(padded[0, :3], prior.embed(["a red chair"])[0, :3])
    assert torch.equal(padded[0, 3:], torch.zeros_like(padded[0, 3:]))
    assert torch.equal(padded[1], torch.zeros_like(padded[1]))


@pytest.mark.parametrize(
    "change",
    [{"view_words": {"front": "x"}}, {"conditions": ["mood"]}, {"overhead_above_deg": "high"}, {"vocabulary": 3}],
)
def test_senseless_cards_are_refused(copy, change):
    (copy / "card.json").write_text(json.dumps({**CARD, **change}))
    with pytest.raises(UserError, match=r"card\.json"):
        open_prior(str(copy))


def test_network_hears_the_conditions_of_the_card_and_no_others(prior):
    heard = {}

    class Listening(torch.nn.Module):
        """Predicts the noisy picture itself; not wrapped in a record, as the embedded prior's network."""

        config = {"text_width": 16}  # noqa: RUF012 (as diffusers has it)

        def forward(self, sample, timestep, encoder_hidden_states, **known):
            heard.update(known)
            return sample

    told = frozenset({"pose", "light"})
    listening = replace(prior, card=Card("listening", SIZE, conditions=told), denoiser=TextUNet(Listening(), told))
    assert prior.prediction is Prediction.EPSILON
    noisy, t = batch()
    known = ViewCondition(torch.eye(4).expand(3, 4, 4), torch.ones(3, 3), albedo_only(3))
    assert torch.equal(listening.predict_noise(noisy, t, prior.embed(["a"] * 3), known), noisy)
    assert heard == {"pose": known.pose, "light": known.light}


# --- words -----------------------------------------------------------------------------------------------------------


def test_words_of_a_prompt():
    assert words_of("A red, RED t-shirt (café's)!") == ["a", "red", "red", "t", "shirt", "café", "s"]
    assert unknown_words("A blue chair, a BLUE zebra", frozenset(WORDS)) == ["blue", "zebra"]
    assert unknown_words("a red chair, front view", frozenset(WORDS)) == []


def test_unknown_words_are_answered_with_known_ones():
    schedule = cosine_schedule(10)
    knows = GaussianPrior({"": torch.zeros(3, 1, 1)}, 1.0, schedule, 1, vocabulary=frozenset(WORDS))
    require_known(knows, "A hamburger")
    with pytest.raises(UserError, match=r"'hamburgr' \(nearest: hamburger\).*'zzz'.*--prior FOLDER"):
        require_known(knows, "a hamburgr zzz")
    require_known(GaussianPrior({}, 1.0, schedule, 1), "anything goes")


def test_long_prompts_are_never_cut(prior):
    prior.embed(["a red chair a red chair"])
    with pytest.raises(UserError, match="7 tokens"):
        prior.embed(["a chair", "a red chair a red chair a"])


# --- folders that are none -------------------------------------------------------------------------------------------


def refuses(folder: Path | str, match: str) -> None:
    with pytest.raises(UserError, match=match) as caught:
        open_prior(str(folder)).embed(["a chair"])
    assert "\n" not in str(caught.value)


def test_folders_that_are_no_pipeline(copy, tmp_path):
    refuses(tmp_path / "absent", "there is no prior")
    refuses(tmp_path, r"no diffusers pipeline.*model_index\.json")
    refuses(copy / "model_index.json", "one file of a pipeline: give its folder")
    (copy / "model_index.json").write_text("{")
    refuses(copy, r"model_index\.json cannot be read as JSON")
    (copy / "model_index.json").write_text("[]")
    refuses(copy, r"model_index\.json names no pipeline class")


def test_kinds_of_pipelines(copy):
    edit(copy / "model_index.json", _class_name="KandinskyPipeline")
    refuses(copy, "KandinskyPipeline, which is not supported: use one of StableDiffusionPipeline, .*IFPipeline")


def test_code_in_a_folder_is_never_run_nor_asked_about(copy):
    """`auto_map` names a file of the folder, which transformers' Auto classes offer to run; named classes do not."""
    ran = copy / "ran"
    (copy / "tokenizer" / "own.py").write_text(f"open({str(ran)!r}, 'w')\nclass Own:\n    pass\n")
    edit(copy / "tokenizer" / "tokenizer_config.json", auto_map={"AutoTokenizer": ["own.Own", None]})
    open_prior(str(copy)).embed(["a red chair"])
    edit(copy / "model_index.json", tokenizer=["transformers", "AutoTokenizer"])
    refuses(copy, r"leaves the class of its tokenizer open .transformers\.AutoTokenizer.")
    assert not ran.exists()


def test_classes_come_from_known_libraries_only(copy):
    edit(copy / "model_index.json", unet=["os", "system"])
    refuses(copy, "'os'.*allowed")
    edit(copy / "model_index.json", unet=["diffusers", "NoSuchNet"])
    refuses(copy, r"diffusers\.NoSuchNet.*does not exist")
    edit(copy / "model_index.json", unet=["diffusers", "utils"])
    refuses(copy, r"diffusers\.utils.*cannot be loaded")
    edit(copy / "model_index.json", unet=[None, None])
    refuses(copy, "names no unet")


@pytest.mark.parametrize("part", ["unet/diffusion_pytorch_model", "text_encoder/model"])
def test_damaged_weights_name_the_file(copy, part):
    path = copy / f"{part}.safetensors"
    whole = path.read_bytes()
    for bad in (whole[: len(whole) // 2], whole[:5], b"", b"not weights at all" * 9):
        path.write_bytes(bad)
        refuses(copy, rf"{path.name} is damaged or cut short")
    path.unlink()
    refuses(copy, r"has no \*\.safetensors weights")
    path.with_suffix(".bin").write_bytes(whole)
    refuses(copy, r"\.bin is a pickle")
    shutil.rmtree(path.parent)
    refuses(copy, f"no folder .*{path.parent.name}")


def test_incomplete_weights_are_not_filled_up_with_random_ones(copy):
    from safetensors.torch import load_file, save_file

    for name in ("unet/diffusion_pytorch_model", "text_encoder/model"):
        path = copy / f"{name}.safetensors"
        tensors = load_file(path)
        fewer = dict(list(tensors.items())[1:])
        save_file(fewer, path, metadata={"format": "pt"})
        refuses(copy, f"{path.parent.name} (lack|cannot)")
        save_file(tensors, path, metadata={"format": "pt"})


def test_weights_of_another_network(copy):
    edit(copy / "unet" / "config.json", cross_attention_dim=32)
    refuses(copy, "unet cannot be loaded as UNet2DConditionModel")


@pytest.mark.parametrize("path", ["unet/config.json", "tokenizer/tokenizer.json", "scheduler/scheduler_config.json"])
def test_damaged_settings_name_the_file(copy, path):
    (copy / path).write_text((copy / path).read_text()[:-9])
    refuses(copy, rf"{Path(path).name} cannot be read as JSON")
    (copy / path).unlink()
    refuses(copy, f"{Path(path).parent.name}")


def test_schedules_of_another_kind(copy):
    edit(copy / "scheduler" / "scheduler_config.json", prediction_type="flow_prediction")
    refuses(copy, "predictions other than")
    edit(copy / "model_index.json", scheduler=["diffusers", "FlowMatchEulerDiscreteScheduler"])
    refuses(copy, "scheduler")


def test_hub_ids_without_a_hub():
    refuses("nobody/no-such-model", "model hub did not give it.*without a network.*--local-dir DIR.*--prior DIR")


def test_importing_priors_is_light():
    """Model libraries take seconds to import; nothing that only speaks of priors waits for them."""
    heavy = ("diffusers", "transformers", "safetensors")
    code = f"import sys, dreamfusion.diffusion.priors; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_shrinking_is_torchs_antialiased_bilinear(prior):
    image = torch.rand(1, 20, 20, 3, generator=torch.Generator().manual_seed(0))
    expected = F.interpolate(image.permute(0, 3, 1, 2), (SIZE, SIZE), mode="bilinear", antialias=True)
    torch.testing.assert_close(prior.encode(image), 2 * expected - 1)
