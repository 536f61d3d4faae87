"""Layouts of published models (tests/published): what is known of them without their weights comes out right."""

import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, TCDScheduler
from safetensors.torch import load_file, save_file

import miniatures
from dreamfusion import memory
from dreamfusion.cli import main as cli
from dreamfusion.cli.arguments import read_generate
from dreamfusion.cli.hints import hints
from dreamfusion.config.presets import PRESETS, preset
from dreamfusion.diffusion.priors import Prediction, PriorOptions, open_prior, open_prompt_encoder
from dreamfusion.diffusion.priors.folder import load_component
from dreamfusion.diffusion.priors.kinds import KINDS
from dreamfusion.diffusion.priors.locate import index_of, locate, preset_for
from dreamfusion.diffusion.priors.memory_plan import empty, plan
from dreamfusion.diffusion.priors.opening import image_size, shown_size
from dreamfusion.diffusion.priors.schedulers import (
    for_few_steps,
    prediction_of,
    rectified_flow_schedule,
    variance_preserving_schedule,
)
from dreamfusion.errors import UserError
from dreamfusion.studio.priors import offers

PUBLISHED = Path(__file__).parent / "published"


@dataclass(frozen=True)
class Known:
    """What is known of a model from elsewhere than its configuration (published/SOURCES.md)."""

    preset: str
    pixels: int
    prediction: Prediction
    text: tuple[int, int]
    """rows of an embedding and their width: tokens, and what else the network takes"""
    billions: float
    """parameters of the denoiser, as published"""


EPSILON, V, FLOW = Prediction.EPSILON, Prediction.V, Prediction.FLOW
KNOWN = {
    "stable-diffusion-1.5": Known("sd", 512, EPSILON, (77, 768), 0.860),
    "stable-diffusion-2.1": Known("sd", 768, V, (77, 1024), 0.866),
    "sd-turbo": Known("sd", 512, EPSILON, (77, 1024), 0.866),
    "bk-sdm-tiny": Known("sd", 512, EPSILON, (77, 768), 0.33),
    "stable-diffusion-xl": Known("sdxl", 1024, EPSILON, (77 + 1, 2048), 2.6),
    "if-i-xl": Known("if", 64, EPSILON, (77, 4096), 4.3),
    "if-i-m": Known("if", 64, EPSILON, (77, 4096), 0.40),
    "stable-diffusion-3-medium": Known("flux", 1024, FLOW, (77 + 256 + 1, 4096), 2.0),
    "stable-diffusion-3.5-large": Known("flux", 1024, FLOW, (77 + 256 + 1, 4096), 8.1),
    "flux.1-dev": Known("flux", 1024, FLOW, (512 + 1, 4096), 12),
    "flux.1-schnell": Known("flux", 1024, FLOW, (256 + 1, 4096), 12),
    "pixart-alpha": Known("sdxl", 1024, EPSILON, (120 + 1, 4096), 0.6),
    "pixart-sigma": Known("sdxl", 1024, EPSILON, (300 + 1, 4096), 0.6),
}


@lru_cache
def network(name: str, component: str) -> Any:
    """A network of a model, on the meta device."""
    return empty(locate(str(PUBLISHED / name)), component, torch.float32)


def denoiser_of(name: str) -> Any:
    return network(name, KINDS[locate(str(PUBLISHED / name)).pipeline].network)


def test_every_class_has_a_published_layout():
    assert {json.loads(path.read_text())["_class_name"] for path in PUBLISHED.glob("*/model_index.json")} >= set(KINDS)
    assert {path.name for path in PUBLISHED.iterdir() if path.is_dir()} == {*KNOWN, "lcm-dreamshaper-7"}


def test_every_layout_says_where_it_is_from():
    sources = (PUBLISHED / "SOURCES.md").read_text(encoding="utf-8")
    assert [path.name for path in PUBLISHED.iterdir() if path.is_dir() and f"| `{path.name}` |" not in sources] == []


@pytest.mark.parametrize("name", KNOWN)
def test_a_layout_becomes_the_network_that_was_published(name):
    """Its size, that of the pictures it takes, and the length of its text; the preset is the kind's."""
    folder, known, net = locate(str(PUBLISHED / name)), KNOWN[name], denoiser_of(name)
    kind = KINDS[folder.pipeline]
    found = sum(weight.numel() for weight in net.parameters()) / 1e9
    assert abs(found / known.billions - 1) < 0.08
    size = image_size(folder, kind)
    assert size == known.pixels
    assert kind.denoiser(net, size, frozenset()).text_shape == known.text
    assert preset_for(str(PUBLISHED / name)) == known.preset
    shown = PRESETS[known.preset].memory.size
    assert shown_size(folder, kind, PriorOptions(size=shown), size) == (shown or size)


@pytest.mark.parametrize("name", KNOWN)
def test_a_layout_predicts_what_its_scheduler_says(name):
    folder, known = locate(str(PUBLISHED / name)), KNOWN[name]
    scheduler = load_component(folder, "scheduler")
    if known.prediction is FLOW:
        assert KINDS[folder.pipeline].flow
        schedule = rectified_flow_schedule(folder, scheduler, cells=64)
    else:
        assert prediction_of(folder, scheduler) is known.prediction
        schedule = variance_preserving_schedule(folder, scheduler)
    assert schedule.steps == 1000
    assert float(schedule.sigmas[0]) < 0.05
    assert float(schedule.sigmas[-1]) > 0.99
    channels = denoiser_of(name).config.out_channels
    learned_variance = folder.pipeline in ("IFPipeline", "PixArtAlphaPipeline", "PixArtSigmaPipeline")
    assert learned_variance == (channels == 2 * denoiser_of(name).config.in_channels)


FILES = [
    (path.parent.name, file, size)
    for path in sorted(PUBLISHED.glob("*/files.json"))
    for file, size in json.loads(path.read_text()).items()
]


def as_published(name: str, component: str) -> dict[str, torch.Tensor]:
    """Tensors by the names that files have: transformers leaves the first word of CLIP's away, and an index that older
    releases saved.
    """
    net = network(name, component)
    if type(net).__name__ == "T5EncoderModel":  # one table under two names
        return dict(net.named_parameters())
    tensors = net.state_dict()
    if component.startswith("text_encoder"):
        tensors = {key if key.startswith("text_") else f"text_model.{key}": value for key, value in tensors.items()}
        if name in ("stable-diffusion-1.5", "stable-diffusion-2.1"):
            tensors["text_model.embeddings.position_ids"] = torch.arange(77)[None]
    return tensors


WIDTHS = {"F16": 2, "F32": 4, "I64": 8}
ALIGNMENT = 8
"""to whose multiples newer releases of safetensors fill headers up"""


def safetensors_size(tensors: dict[str, torch.Tensor], dtype: str) -> int:
    """Bytes of the file that holds these tensors: a header with every name, type, shape and place, and the numbers."""
    header, end = dict[str, Any](__metadata__={"format": "pt"}), 0
    for key, tensor in sorted(tensors.items()):
        kind = dtype if tensor.is_floating_point() else "I64"
        begin, end = end, end + WIDTHS[kind] * tensor.numel()
        header[key] = {"dtype": kind, "shape": list(tensor.shape), "data_offsets": [begin, end]}
    return 8 + len(json.dumps(header, separators=(",", ":"))) + end


@pytest.mark.parametrize(("name", "file", "published"), FILES)
def test_names_and_shapes_fill_files_of_the_published_size(name, file, published):
    """To the byte, but for alignment: so a name or a shape that differs from the published ones is seen."""
    component, _, stem = file.partition("/")
    half = ".fp16" in stem or name.startswith(("stable-diffusion-3", "flux")) or stem.endswith(".index.json")
    tensors = as_published(name, component)
    size = safetensors_size(tensors, "F16" if half else "F32")
    if isinstance(published, str):  # three digits
        number, unit = published.split()
        assert f"{size / {'GB': 1e9, 'MB': 1e6}[unit]:.3g}" == f"{float(number):.3g}"
    elif stem.endswith(".index.json"):  # of all parts, without their headers
        assert sum(WIDTHS["F16"] * tensor.numel() for tensor in tensors.values()) == published
    else:
        assert abs(size - published) < ALIGNMENT


def test_weights_under_their_published_names_are_loaded(miniature_folders, tmp_path):
    """Names that releases of the libraries have changed since: CLIP's first word, which transformers 5.0
    still has, the index beside it, attention of the auto-encoder.
    """
    old = {".to_q.": ".query.", ".to_k.": ".key.", ".to_v.": ".value.", ".to_out.0.": ".proj_attn."}

    def vae(key: str) -> str:
        for now, then in old.items():
            key = key.replace(now, then)
        return key

    def clip(key: str) -> str:
        return key if key.startswith("text_") else f"text_model.{key}"

    before = Path(shutil.copytree(miniature_folders["StableDiffusionPipeline"], tmp_path / "before"))
    after = Path(shutil.copytree(before, tmp_path / "after"))
    for path, renamed in (
        (after / "vae" / "diffusion_pytorch_model.safetensors", vae),
        (after / "text_encoder" / "model.safetensors", clip),
    ):
        weights = load_file(path)
        changed = {renamed(key): value for key, value in weights.items()}
        if renamed is clip:
            changed["text_model.embeddings.position_ids"] = torch.arange(77)[None]
        assert set(changed) != set(weights)
        save_file(changed, path, metadata={"format": "pt"})
    size = miniatures.CELLS * miniatures.FACTOR
    image = torch.rand(1, size, size, 3, generator=torch.Generator().manual_seed(0))
    one, other = (open_prior(str(path), PriorOptions(size=size)) for path in (before, after))
    assert torch.equal(one.encode(image), other.encode(image))
    assert torch.equal(one.embed(["a fox"]), other.embed(["a fox"]))


def test_pixart_under_its_first_class_is_the_same_network(miniature_folders, tmp_path):
    """Its first releases were saved as a `Transformer2DModel`, which diffusers now takes for a PixArt."""
    kind = "PixArtSigmaPipeline"
    copy = Path(shutil.copytree(miniature_folders[kind], tmp_path / "prior"))
    for path in (copy / "model_index.json", copy / "transformer" / "config.json"):
        path.write_text(path.read_text().replace('"PixArtTransformer2DModel"', '"Transformer2DModel"'))
    options = PriorOptions(size=miniatures.CELLS * miniatures.FACTOR)
    one, other = (open_prior(str(path), options).network for path in (miniature_folders[kind], copy))
    assert type(one) is type(other)
    assert all(torch.equal(*pair) for pair in zip(one.parameters(), other.parameters(), strict=True))


# --- the preset that goes with them ----------------------------------------------------------------------------------


def test_a_preset_is_chosen_by_the_class():
    for name, known in KNOWN.items():
        chosen = read_generate(["a fox", "--prior", str(PUBLISHED / name)]).settings
        assert chosen == replace(preset(known.preset), prompt="a fox", prior=str(PUBLISHED / name))


def test_a_preset_that_is_given_wins():
    for given in (["--preset", "fast"], ["--preset=fast"]):
        assert read_generate(["a fox", f"--prior={PUBLISHED / 'if-i-m'}", *given]).settings.preset == "fast"


def test_priors_of_this_package_keep_the_fast_preset(tiny_prior):
    assert preset_for("embedded") == preset_for(str(tiny_prior)) == "fast"
    assert read_generate(["a red chair", "--prior", "embedded"]).settings.preset == "fast"


def test_the_studio_offers_it_without_opening_the_prior(tmp_path):
    """Also of a folder that is none: what is wrong with it the worker says."""
    names = [str(PUBLISHED / "if-i-m"), str(tmp_path), "owner/model"]
    assert [offer.preset for offer in offers(names).values()] == ["fast", "if", "fast", "fast"]


def test_the_index_alone_is_fetched_for_it(monkeypatch):
    asked = []

    def index(name: str, file: str, **given: Any) -> str:
        asked.append((name, file, given))
        return str(PUBLISHED / "flux.1-dev" / file)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", index)
    assert index_of("somebody/some-model@main").pipeline == "FluxPipeline"
    assert preset_for("somebody/some-model@main") == "flux"
    assert asked == [("somebody/some-model", "model_index.json", {"revision": "main"})] * 2


@pytest.fixture
def told(miniature_folders, tmp_path, monkeypatch, capsys) -> Callable[..., tuple[int, str]]:
    """What `generate` says of a prior before it works, and how it ends."""
    monkeypatch.setattr("dreamfusion.generate.create_run", lambda *_, **__: sys.exit(0))

    def call(*given: str) -> tuple[int, str]:
        folder = miniature_folders["StableDiffusionPipeline"]
        with pytest.raises(SystemExit) as stop:
            cli.main(["a fox", "--prior", str(folder), "--device", "cpu", *given, "--out", str(tmp_path / "run")])
        return int(stop.value.code or 0), capsys.readouterr().err

    return call


def test_a_run_says_which_preset_and_why(told):
    said = "preset sd, as the prior is a StableDiffusionPipeline; --preset chooses another"
    assert said in told("--memory.size", "16")[1]
    assert said not in told("--memory.size", "16", "--preset", "sd")[1]


def test_what_cannot_fit_is_refused_before_the_work(told, monkeypatch):
    """The estimate comes first; a text encoder that is too large has another way out than a step."""
    for free, message in ((None, ""), (10**10, ""), (10**8, "error: a step needs"), (10, "error: a text encoder of")):
        monkeypatch.setattr(memory, "available", lambda free=free: free)
        code, said = told("--memory.size", "64")
        assert "the run needs about" in said
        assert (code, message in said) == (2 if message else 0, True)
        assert not message or " free: give --half" in said


# --- small and few-step models ---------------------------------------------------------------------------------------


def test_the_laptop_preset_fits_a_laptop():
    """A distilled Stable Diffusion in single precision leaves room for the rest in 8 GB."""
    config = preset("laptop")
    options = PriorOptions(size=config.memory.size, vae_slicing=config.memory.vae_slicing)
    needs = plan(locate(str(PUBLISHED / "bk-sdm-tiny")), options, config.views)
    assert needs.peak < 5e9
    assert not config.half


def test_a_scheduler_tells_a_model_of_few_steps():
    names = [name for name in KNOWN if for_few_steps(load_component(locate(str(PUBLISHED / name)), "scheduler"))]
    assert names == ["sd-turbo"]
    assert "--guidance-scale 1" in hints(replace(preset("sd"), prior=str(PUBLISHED / "sd-turbo")))[0]
    for config in (
        replace(preset("sd"), prior=str(PUBLISHED / "stable-diffusion-2.1")),
        replace(preset("fast"), prior=str(PUBLISHED / "sd-turbo")),  # whose guidance scale is 1
        replace(preset("sd"), prior=preset("fast").prior),  # whose scheduler says little
        replace(preset("clip-mesh"), prior=str(PUBLISHED / "sd-turbo")),  # which has no use for the prior
    ):
        assert hints(config) == []


def test_a_trailing_schedule_that_was_rescaled_is_of_an_ordinary_model():
    options: dict[str, Any] = {"timestep_spacing": "trailing", "rescale_betas_zero_snr": True}
    assert not for_few_steps(DDIMScheduler(prediction_type="v_prediction", **options))
    assert for_few_steps(TCDScheduler())


REFUSED = {
    "LatentConsistencyModelPipeline": "LatentConsistencyModelPipeline, which is not supported",
    "StableDiffusionPipeline": "it is a consistency model",
}


@pytest.mark.parametrize(("kind", "message"), REFUSED.items(), ids=list(REFUSED))
def test_consistency_models_are_refused(tmp_path, kind, message):
    """Under their own class, and under that of their teacher, as some copies have them."""
    copy = Path(shutil.copytree(PUBLISHED / "lcm-dreamshaper-7", tmp_path / "lcm"))
    path = copy / "model_index.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"_class_name": kind}))
    (copy / "vae").mkdir()
    shutil.copy(PUBLISHED / "stable-diffusion-1.5" / "vae" / "config.json", copy / "vae")
    with pytest.raises(UserError, match=message):
        open_prompt_encoder(str(copy))
    with pytest.raises(UserError, match=message):
        plan(locate(str(copy)), PriorOptions(), views=1)
