"""What people's folders of priors are like: variants, parts, copies, links, stray files, other users' files."""

import contextlib
import json
import logging
import os
import re
import shutil
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import miniatures
from dreamfusion import generate
from dreamfusion.cli import main as cli
from dreamfusion.config import Config, MemoryConfig
from dreamfusion.diffusion.priors import PriorOptions, ViewCondition, open_prior, open_prompt_encoder
from dreamfusion.diffusion.priors.locate import locate, rooted
from dreamfusion.diffusion.priors.opening import require_whole
from dreamfusion.diffusion.priors.weights import find_weights, preferred, variant_of
from dreamfusion.errors import UserError
from dreamfusion.evaluate.scorer import open_scorer
from dreamfusion.files import permitted, read_json, read_lines, visible
from dreamfusion.places import HubId, find
from dreamfusion.provenance import prior_digest
from dreamfusion.quiet import quiet

SD, SD3 = "StableDiffusionPipeline", "StableDiffusion3Pipeline"
SIZE = miniatures.CELLS * miniatures.FACTOR
NETWORKS = {"unet": "diffusion_pytorch_model", "vae": "diffusion_pytorch_model", "text_encoder": "model"}
PARTS = "4KB"
"""so that the weights of a miniature come in several files"""


@pytest.fixture
def folder(miniature_folders, tmp_path) -> Path:
    """A copy of the smallest pipeline, to be changed."""
    return Path(shutil.copytree(miniature_folders[SD], tmp_path / "prior"))


def config_for(config: Config, folder: Path | str) -> Config:
    return replace(config, prompt="a red ball", prior=str(folder), steps=2, memory=MemoryConfig(size=SIZE))


def digest_of(folder: Path | str, half: bool = False) -> str:
    return prior_digest(Config(prompt="a", prior=str(folder), half=half))


def save_again(folder: Path, component: str, **how: Any) -> None:
    """Write a component's weights as its library does, beside those that are there."""
    import diffusers
    import transformers

    library, name = json.loads((folder / "model_index.json").read_text())[component]
    loader = getattr({"diffusers": diffusers, "transformers": transformers}[library], name)
    dtype = torch.float16 if how.get("variant") == "fp16" else torch.float32
    with quiet():
        network = loader.from_pretrained(folder / component, torch_dtype=dtype)
        network.save_pretrained(folder / "new", **how)
    for path in (folder / "new").glob("*.safetensors*"):
        path.replace(folder / component / path.name)
    shutil.rmtree(folder / "new")


def in_parts(folder: Path, component: str) -> None:
    save_again(folder, component, max_shard_size=PARTS)
    (folder / component / f"{NETWORKS[component]}.safetensors").unlink()


def only_halves(folder: Path, size: str = "1GB") -> None:
    """Leave the weights in half precision alone, in parts of at most this size."""
    for component, stem in NETWORKS.items():
        save_again(folder, component, variant="fp16", max_shard_size=size)
        (folder / component / f"{stem}.safetensors").unlink()


def said_of(folder: Path, dtype: torch.dtype | None = torch.float32) -> torch.Tensor:
    prior = open_prior(str(folder), PriorOptions(size=SIZE, dtype=dtype))
    image = torch.rand(2, SIZE, SIZE, 3, generator=torch.Generator().manual_seed(0))
    text = prior.embed(["a red ball"]).expand(2, -1, -1)
    return prior.predict_noise(prior.encode(image), torch.tensor([100, 700]), text, ViewCondition())


def refused(capsys, *given: str) -> str:
    """The one line with which a command ends."""
    with pytest.raises(SystemExit) as stop:
        cli.main(list(given))
    assert stop.value.code == 2
    errors = capsys.readouterr().err.splitlines()
    assert errors[-1].startswith("error: ")
    return errors[-1].removeprefix("error: ")


# --- where a prior is ------------------------------------------------------------------------------------------------


def test_a_run_writes_down_where_its_prior_is(folder, tiny_config, tmp_path, monkeypatch):
    """Given as a relative path, it is found from anywhere."""
    monkeypatch.chdir(tmp_path)
    generate.create_run(config_for(tiny_config, "prior"), tmp_path / "run")
    assert json.loads((tmp_path / "run" / "config.json").read_text())["prior"] == str(folder)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    generate.resume_run(tmp_path / "run", "cpu")


def test_only_folders_are_written_down_otherwise_than_given(folder, monkeypatch):
    monkeypatch.setenv("HOME", str(folder.parent))
    assert rooted("~/prior") == str(folder)
    for name in ("embedded", "owner/model", "owner/model@main", "~nobody-at-all/prior"):
        assert rooted(name) == name


NAMES = [
    "./models/sd", "../models/sd", "./sd", ".models/sd", "~/models/sd", "/models/sd", "models/sd/unet", "models\\sd",
    "C:\\models\\sd", "models/sd.safetensors", "models/sd.ckpt", "here/sd", "here/sd@main", "sd", "models/sd/",
    "https://huggingface.co/owner/model", "https://huggingface.co/owner/model/tree/main", "a\0b/c", "x" * 5000 + "/y",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_what_looks_like_a_path_never_goes_to_the_hub(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").mkdir()
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda *_, **__: pytest.fail("the hub was asked"))
    monkeypatch.setattr("transformers.AutoModel.from_pretrained", lambda *_, **__: pytest.fail("the hub was asked"))
    assert find(name) is None
    with pytest.raises(UserError, match="there is no prior"):
        locate(name)
    with pytest.raises(UserError, match="there is no scorer"):
        open_scorer(name)


def test_what_is_said_of_names_that_mean_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find("here/sd@refs/pr/1") == HubId("here/sd", "refs/pr/1")
    (tmp_path / "here").mkdir()
    with pytest.raises(UserError, match="here/ is a folder here, without this in it"):
        locate("here/sd")
    with pytest.raises(UserError, match="give its hub id, owner/model"):
        locate("https://huggingface.co/owner/model/tree/main")


def test_a_prior_that_moved_is_found_again(folder, tiny_config, tmp_path, capsys, monkeypatch):
    generate.create_run(config_for(tiny_config, folder), tmp_path / "run")
    folder.rename(tmp_path / "moved")
    assert "dreamfusion resume RUN --prior FOLDER" in refused(capsys, "resume", str(tmp_path / "run"))
    monkeypatch.setattr(cli, "_work", lambda job: 0)
    with pytest.raises(SystemExit) as stop:
        cli.main(["resume", str(tmp_path / "run"), "--prior", str(tmp_path / "moved")])
    assert stop.value.code == 0
    assert generate.config_of(tmp_path / "run").prior == str(tmp_path / "moved")
    generate.resume_run(tmp_path / "run", "cpu")  # the new place is written down


def test_a_prior_that_moved_must_be_the_same(folder, tiny_config, tmp_path):
    generate.create_run(config_for(tiny_config, folder), tmp_path / "run")
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(weights)
    folder.rename(tmp_path / "moved")
    before = (tmp_path / "run" / "config.json").read_bytes()
    tensors[next(iter(tensors))] += 1
    save_file(tensors, tmp_path / "moved" / "unet" / weights.name, metadata={"format": "pt"})
    with pytest.raises(UserError, match="other weights than asked for"):
        generate.resume_run(tmp_path / "run", "cpu", prior_now=str(tmp_path / "moved"))
    assert (tmp_path / "run" / "config.json").read_bytes() == before


# --- identity --------------------------------------------------------------------------------------------------------


def test_copies_links_parts_and_names_leave_the_identity(folder, tmp_path):
    """A hub's snapshot of links, a full download, the same in parts, beside other variants and stray files."""
    found = digest_of(folder)
    snapshot = tmp_path / "snapshots" / "0a1b"
    for path in (path for path in folder.rglob("*") if path.is_file()):
        link = snapshot / path.relative_to(folder)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(path)
    assert digest_of(snapshot) == found
    save_again(folder, "unet", variant="fp16")
    (folder / "unet" / "diffusion_pytorch_model.non_ema.safetensors").write_bytes(b"another model")
    (folder / "unet" / "readme.json").write_text("{}")
    assert digest_of(folder) == found
    whole = folder / "unet" / "diffusion_pytorch_model.safetensors"
    whole.rename(whole.with_name("diffusion_pytorch_model.odd.safetensors"))
    for path in folder.glob("unet/*.fp16.*"):
        path.unlink()
    (folder / "unet" / "diffusion_pytorch_model.non_ema.safetensors").unlink()
    assert digest_of(folder) == found  # under another variant's name
    whole.with_name("diffusion_pytorch_model.odd.safetensors").rename(whole)
    in_parts(folder, "unet")
    assert len(list((folder / "unet").glob("*.safetensors"))) > 1
    assert digest_of(folder) == found


def test_what_is_loaded_makes_the_identity(folder):
    found, half = digest_of(folder), []
    save_again(folder, "unet", variant="fp16")
    assert digest_of(folder, half=True) != found
    whole = folder / "unet" / "diffusion_pytorch_model.safetensors"
    content = whole.read_bytes()
    half.append(digest_of(folder, half=True))
    whole.unlink()
    half.append(digest_of(folder, half=True))  # the same with less around it
    half.append(digest_of(folder))
    assert len(set(half)) == 1
    whole.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert digest_of(folder) not in (found, *half)
    whole.write_bytes(content)
    settings = json.loads((folder / "unet" / "config.json").read_text())
    (folder / "unet" / "config.json").write_text(json.dumps({**settings, "act_fn": "gelu"}))
    assert digest_of(folder) != found


def test_the_embedded_priors_identity_is_that_of_the_published_results():
    """Weights of one type in one file: the digest is that of the file's own bytes."""
    report = json.loads((Path(__file__).parents[1] / "docs" / "results" / "report.json").read_text())
    assert report["facts"]["prior_sha256"] == digest_of("embedded")


def test_a_variant_that_comes_later_does_not_stop_a_run(folder, tiny_config, tmp_path):
    generate.create_run(config_for(tiny_config, folder), tmp_path / "run")
    for component in NETWORKS:
        save_again(folder, component, variant="fp16")
    generate.resume_run(tmp_path / "run", "cpu")


# --- variants --------------------------------------------------------------------------------------------------------


def test_names_of_weights():
    told = {
        "model.safetensors": "",
        "model.fp16.safetensors": "fp16",
        "model-00001-of-00002.safetensors": "",
        "model.fp16-00001-of-00002.safetensors": "fp16",
        "diffusion_pytorch_model-00001-of-00002.bf16.safetensors": "bf16",
        "diffusion_pytorch_model.non_ema.safetensors": "non_ema",
        "model.safetensors.index.json": "",
        "model.safetensors.index.fp16.json": "fp16",
        "diffusion_pytorch_model.safetensors.fp16.index.json": "fp16",
        "config.json": None,
        "pytorch_model.fp16.bin": None,
        "unet.safetensors": None,
    }
    assert {name: variant_of(name) for name in told} == told
    assert preferred(["non_ema", "bf16", "fp16", ""], "") == ["", "fp16", "bf16", "non_ema"]
    assert preferred(["", "fp16", "bf16"], "bf16") == ["bf16", "", "fp16"]


@pytest.mark.parametrize("size", ["1GB", PARTS], ids=["whole", "parts"])
def test_a_folder_with_a_variant_alone_opens(folder, size):
    expected = said_of(folder)
    only_halves(folder, size)
    names = {path.name for path in folder.rglob("*.safetensors*")}
    assert all("fp16" in name for name in names)
    assert (len(names) > len(NETWORKS)) is (size == PARTS)
    torch.testing.assert_close(said_of(folder), expected, atol=0.05, rtol=0.05)
    assert not torch.equal(said_of(folder), expected)


@pytest.mark.parametrize("kind", [SD, "FluxPipeline"])
def test_half_precision_takes_the_variant_made_for_it(kind, folder, miniature_folders, tmp_path):
    """fp16 or bf16, as the kind has it; single precision takes the plain weights."""
    own, name = ("unet", "fp16") if kind == SD else ("transformer", "bf16")
    copy = Path(shutil.copytree(miniature_folders[kind], tmp_path / "copy"))
    where = copy / own
    for variant in ("fp16", "bf16"):
        shutil.copy(
            where / "diffusion_pytorch_model.safetensors", where / f"diffusion_pytorch_model.{variant}.safetensors"
        )
    for half, variant in ((False, ""), (True, name)):
        assert find_weights(where, "diffusion_pytorch_model", locate(str(copy), half=half).variant).variant == variant


def test_an_index_without_its_parts_is_no_variant(folder):
    """Downloads of one variant often bring the settings of all."""
    save_again(folder, "unet", max_shard_size=PARTS)
    save_again(folder, "unet", variant="fp16")
    for path in folder.glob("unet/*.safetensors"):
        if "fp16" not in path.name:
            path.unlink()
    assert (folder / "unet" / "diffusion_pytorch_model.safetensors.index.json").exists()
    assert find_weights(folder / "unet", "diffusion_pytorch_model", "").variant == "fp16"
    said_of(folder)


HARM = {
    "a part is missing": (lambda where: next(where.glob("*-00002-*")).unlink(), "is missing, a part of the weights"),
    "a part is cut short": (lambda where: os.truncate(next(where.glob("*-00002-*")), 50), "damaged or cut short"),
    "no index": (lambda where: next(where.glob("*.index.json")).unlink(), "a part of weights whose index is missing"),
    "an index of nothing": (lambda where: next(where.glob("*.index.json")).write_text("{}"), "names no files"),
    "an index of other folders": (
        lambda where: next(where.glob("*.index.json")).write_text('{"weight_map": {"a": "../vae/x.safetensors"}}'),
        "names weights in another folder",
    ),
}


@pytest.mark.parametrize("component", NETWORKS)
@pytest.mark.parametrize("harm", HARM)
def test_parts_that_are_not_whole_are_named(folder, harm, component):
    in_parts(folder, component)
    do, message = HARM[harm]
    do(folder / component)
    with pytest.raises(UserError, match=message):
        said_of(folder)


# --- what doctor says ------------------------------------------------------------------------------------------------


def no_weights(folder: Path) -> None:
    (folder / "unet" / "diffusion_pytorch_model.safetensors").unlink()


def pickled(folder: Path) -> None:
    (folder / "vae" / "diffusion_pytorch_model.safetensors").rename(folder / "vae" / "diffusion_pytorch_model.bin")


def other_names(folder: Path) -> None:
    (folder / "unet" / "diffusion_pytorch_model.safetensors").rename(folder / "unet" / "unet.safetensors")


def short_text(folder: Path) -> None:
    os.truncate(folder / "text_encoder" / "model.safetensors", 100)


def no_tokenizer(folder: Path) -> None:
    shutil.rmtree(folder / "tokenizer")


def other_schedule(folder: Path) -> None:
    path = folder / "scheduler" / "scheduler_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "prediction_type": "x"}))


def other_class(folder: Path) -> None:
    path = folder / "model_index.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "text_encoder": ["diffusers", "NoSuchThing"]}))


@pytest.mark.parametrize(
    "harm", [no_weights, pickled, other_names, short_text, no_tokenizer, other_schedule, other_class]
)
def test_doctor_says_what_generate_will_say(folder, harm, capsys, tmp_path):
    harm(folder)
    given = [
        "--preset",
        "sd",
        "--memory.size",
        str(SIZE),
        "--device",
        "cpu",
        "--no-half",
        "--out",
        str(tmp_path / "run"),
    ]
    said = refused(capsys, "a red ball", "--prior", str(folder), *given)
    with pytest.raises(SystemExit) as stop:
        cli.main(["doctor", "--prior", str(folder), "--preset", "sd"])
    assert stop.value.code == 1
    assert f"MISSING prior: {said}" in capsys.readouterr().out.splitlines()


def test_doctor_says_that_a_variant_is_enough(folder, capsys):
    only_halves(folder)
    with pytest.raises(SystemExit):
        cli.main(["doctor", "--prior", str(folder)])
    assert "\nprior: StableDiffusionPipeline, about" in capsys.readouterr().out


def test_a_pipeline_without_its_third_encoder_is_whole(miniature_folders, tmp_path, capsys):
    copy = Path(shutil.copytree(miniature_folders[SD3], tmp_path / "copy"))
    path = copy / "model_index.json"
    path.write_text(
        json.dumps({**json.loads(path.read_text()), "text_encoder_3": [None, None], "tokenizer_3": [None, None]})
    )
    require_whole(str(copy), PriorOptions())
    with pytest.raises(SystemExit):  # which asks for pictures of 512 pixels
        cli.main(["doctor", "--prior", str(copy)])
    assert "do not take pictures of 512 pixels" in capsys.readouterr().out


@pytest.mark.parametrize("length", ["", None, 64], ids=repr)  # 64 is the longest: a division by zero
def test_a_scheduler_that_tells_no_noise_levels_is_refused(miniature_folders, tmp_path, length):
    copy = Path(shutil.copytree(miniature_folders["FluxPipeline"], tmp_path / "copy"))
    path = copy / "scheduler" / "scheduler_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "base_image_seq_len": length}))
    with pytest.raises(UserError, match="is no flow matching scheduler"):
        open_prior(str(copy))


def test_settings_that_are_a_text_are_no_name_of_a_model(folder, monkeypatch):
    monkeypatch.setattr("huggingface_hub.file_download.get_hf_file_metadata", lambda *_, **__: pytest.fail("asked"))
    (folder / "scheduler" / "scheduler_config.json").write_text('"gpt2"')
    with pytest.raises(UserError, match=r"scheduler_config\.json holds no JSON object"):
        open_prior(str(folder))


@pytest.mark.parametrize("kind", [SD, "IFPipeline"])
def test_a_tokenizer_without_its_words_is_refused(miniature_folders, tmp_path, kind):
    """It would open, and take every word for an unknown one."""
    copy = Path(shutil.copytree(miniature_folders[kind], tmp_path / "copy"))
    (copy / "tokenizer" / "tokenizer.json").unlink()
    with pytest.raises(UserError, match=r"tokenizer has neither tokenizer\.json nor"):
        open_prompt_encoder(str(copy)).embed(["a chair"])


@pytest.mark.parametrize(
    ("kind", "file", "setting", "message"),
    [
        ("IFPipeline", "tokenizer/tokenizer_config.json", {"extra_ids": 10**30}, "more than any model"),
        ("IFPipeline", "tokenizer/tokenizer_config.json", {"model_max_length": -1}, "which no encoder reads"),
        ("IFPipeline", "tokenizer/tokenizer_config.json", {"model_max_length": "long"}, "fail at work"),
        (SD, "tokenizer/tokenizer_config.json", {"model_max_length": 10**30}, "which no encoder reads"),
        (SD, "text_encoder/config.json", {"num_hidden_layers": 2**31}, "more than any model"),
    ],
)
def test_numbers_that_no_model_has_are_refused(miniature_folders, tmp_path, kind, file, setting, message):
    """The libraries would count up to them until the memory is full."""
    copy = Path(shutil.copytree(miniature_folders[kind], tmp_path / "copy"))
    (copy / file).write_text(json.dumps(json.loads((copy / file).read_text()) | setting))
    with pytest.raises(UserError, match=message):
        open_prompt_encoder(str(copy)).embed(["a chair"])


@pytest.mark.parametrize("size", ["", 0, [8]], ids=str)
def test_a_size_that_is_none_is_refused(miniature_folders, tmp_path, size):
    copy = Path(shutil.copytree(miniature_folders["IFPipeline"], tmp_path / "copy"))
    path = copy / "unet" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"sample_size": size}))
    with pytest.raises(UserError, match="does not say how large pictures are"):
        open_prompt_encoder(str(copy))


@pytest.mark.parametrize("axes", [None, "a", [True, 4, 8]], ids=str)
def test_a_network_that_fails_at_work_is_refused_before_it_is_loaded(miniature_folders, tmp_path, axes, capsys):
    copy = Path(shutil.copytree(miniature_folders["FluxPipeline"], tmp_path / "copy"))
    path = copy / "transformer" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "axes_dims_rope": axes}))
    with pytest.raises(SystemExit):
        cli.main(["doctor", "--prior", str(copy)])
    assert "restore the folder" in capsys.readouterr().out


# --- the hub ---------------------------------------------------------------------------------------------------------

REPOSITORY = [
    "model_index.json", "v1-5-pruned.safetensors", "unet/config.json",
    *(f"unet/diffusion_pytorch_model{variant}.safetensors" for variant in ("", ".fp16", ".non_ema")),
    "vae/diffusion_pytorch_model.safetensors",
    "text_encoder/model.safetensors.index.json", "text_encoder/model-00001-of-00002.safetensors",
    "text_encoder/model.safetensors.index.fp16.json", "text_encoder/model.fp16-00001-of-00002.safetensors",
]  # fmt: skip


@pytest.mark.parametrize("half", [False, True])
def test_the_hub_gives_the_variant_that_is_asked_for(half, miniature_folders, monkeypatch):
    asked: dict[str, Any] = {}
    monkeypatch.setattr(
        "huggingface_hub.hf_hub_download", lambda *_, **__: str(miniature_folders[SD] / "model_index.json")
    )
    monkeypatch.setattr(
        "huggingface_hub.snapshot_download", lambda _, **given: (asked.update(given), str(miniature_folders[SD]))[1]
    )
    monkeypatch.setattr("huggingface_hub.HfApi.list_repo_files", lambda *_, **__: REPOSITORY)
    locate("owner/model", half=half)
    left_out = {name for name in asked["ignore_patterns"] if "*" not in name}
    weights = {name for name in REPOSITORY if "/" in name and "safetensors" in name and "vae" not in name}
    assert left_out == {name for name in weights if "non_ema" in name or ("fp16" in name) is not half}


# --- stray files -----------------------------------------------------------------------------------------------------


def test_hidden_files_are_ignored(folder, tiny_config, tmp_path):
    """What macOS and others leave in every folder that they touch."""
    found = digest_of(folder)
    for path in [path for path in folder.rglob("*") if path.is_file()]:
        path.with_name(f"._{path.name}").write_bytes(b"\0\5\x16\7")
        (path.parent / ".DS_Store").write_bytes(b"\0\0\0\1Bud1")
    assert digest_of(folder) == found
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".DS_Store").write_bytes(b"\0\0\0\1Bud1")
    generate.create_run(config_for(tiny_config, folder), tmp_path / "run")  # an empty folder
    generate.resume_run(tmp_path / "run", "cpu")
    assert [path.name for path in visible(tmp_path / "run")] == ["checkpoint", "config.json", "media"]


def test_a_single_file_is_said_to_be_one(tmp_path, capsys):
    """What it is and how it becomes a folder; never that there is no prior."""
    one = {"a": torch.zeros(1)}
    layouts = {
        "StableDiffusionPipeline": ["model.diffusion_model.input_blocks.0.0.weight", "cond_stage_model.x"],
        "StableDiffusionXLPipeline": ["model.diffusion_model.input_blocks.0.0.weight", "conditioner.embedders.1.x"],
        "StableDiffusion3Pipeline": ["model.diffusion_model.joint_blocks.0.x"],
        "FluxPipeline": ["double_blocks.0.img_attn.norm.key_norm.scale"],
    }
    for pipeline, names in layouts.items():
        path = tmp_path / f"{pipeline}.safetensors"
        save_file({name: torch.zeros(1) for name in names}, path)
        said = refused(capsys, "a ball", "--prior", str(path), "--preset", "sd")
        assert f"single-file checkpoint of a {pipeline}" in said
        assert f"from_single_file('{path}').save_pretrained('{tmp_path / pipeline}')" in said
        assert said.endswith(f"--prior {tmp_path / pipeline}")
        with pytest.raises(UserError, match="single-file checkpoint"):
            locate(str(tmp_path))  # its folder
        path.unlink()
    save_file({"unet.down.lora_A.weight": torch.zeros(1)}, tmp_path / "lora.safetensors")
    save_file(one, tmp_path / "odd.safetensors")
    for name in ("sd.ckpt", "model.bin", "cut.safetensors", "notes.txt", "model.gguf"):
        (tmp_path / name).write_bytes(b"\x80\x02}q\x00.")
    told = {
        "lora.safetensors": "is a LoRA", "odd.safetensors": "names of no known model", "model.bin": "a pickle",
        "sd.ckpt": "a pickle.*if you trust", "cut.safetensors": "damaged or cut short",
        "notes.txt": "is a file, no prior", "model.gguf": "is a file, no prior",
    }  # fmt: skip
    for name, message in told.items():
        with pytest.raises(UserError, match=message):
            open_prior(str(tmp_path / name))


def test_a_part_of_a_pipeline_names_the_whole(folder):
    for part in ("unet", "unet/diffusion_pytorch_model.safetensors", "model_index.json"):
        with pytest.raises(UserError, match=rf"give its folder, --prior {re.escape(str(folder))}$"):
            open_prior(str(folder / part))


# --- one voice -------------------------------------------------------------------------------------------------------


def test_nothing_foreign_is_printed(folder, capfd):
    """Parts of weights, a prompt that is too long, what cannot be loaded: no bar, no line of a library."""
    for component in NETWORKS:
        in_parts(folder, component)
    capfd.readouterr()
    said_of(folder)
    with pytest.raises(UserError, match="shorten the prompt"):
        open_prompt_encoder(str(folder)).embed(["a red ball " * 40])
    settings = json.loads((folder / "unet" / "config.json").read_text())
    (folder / "unet" / "config.json").write_text(json.dumps({**settings, "cross_attention_dim": 32, "odd": 1}))
    with pytest.raises(UserError, match="unet cannot be loaded"):
        said_of(folder)
    assert capfd.readouterr() == ("", "")


def test_the_libraries_speak_again_afterwards(caplog):
    from diffusers.utils import logging as bars

    assert bars.is_progress_bar_enabled()
    with quiet():
        logging.getLogger("diffusers").error("foreign")
        warnings.warn("foreign", UserWarning, stacklevel=1)
        assert not bars.is_progress_bar_enabled()
    assert caplog.messages == []
    assert bars.is_progress_bar_enabled()
    assert logging.root.manager.disable == logging.NOTSET


# --- marks and rights ------------------------------------------------------------------------------------------------

BOM = b"\xef\xbb\xbf"


def test_byte_order_marks_are_read(folder, tiny_config, tmp_path):
    config = config_for(tiny_config, folder)
    generate.create_run(config, tmp_path / "run")
    run = tmp_path / "run"
    for path in (run / "config.json", run / "checkpoint" / "checkpoint.json", folder / "model_index.json"):
        path.write_bytes(BOM + path.read_bytes())
    generate.resume_run(tmp_path / "run", "cpu")
    (tmp_path / "prompts.txt").write_bytes(BOM + "a café\r\na ball\r\n".encode())
    assert read_lines(tmp_path / "prompts.txt", "") == ["a café", "a ball"]


def test_a_mark_that_a_library_will_not_read_is_named(folder):
    path = folder / "unet" / "config.json"
    path.write_bytes(BOM + path.read_bytes())
    with pytest.raises(UserError, match=r"unet/config\.json begins with a byte order mark"):
        open_prior(str(folder))


@contextlib.contextmanager
def as_somebody_else() -> Iterator[None]:
    """The superuser may read everything; inside, this process is nobody."""
    superuser = os.geteuid() == 0
    if superuser:
        os.seteuid(65534)
    try:
        yield
    finally:
        if superuser:
            os.seteuid(0)


@pytest.fixture
def shared(folder, tiny_config) -> Iterator[Path]:
    """A folder that everybody may enter, with a prior and a run."""
    import tempfile

    with tempfile.TemporaryDirectory() as place:
        os.chmod(place, 0o755)
        shutil.copytree(folder, Path(place) / "prior")
        generate.create_run(config_for(tiny_config, Path(place) / "prior"), Path(place) / "run")
        said_of(Path(place) / "prior")  # every library is imported
        for path in Path(place).rglob("*"):
            path.chmod(0o755)
        yield Path(place)


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="no rights of this kind")
@pytest.mark.parametrize(
    "name",
    [
        "prior", "prior/model_index.json", "prior/unet", "prior/unet/config.json", "prior/tokenizer/tokenizer.json",
        "prior/unet/diffusion_pytorch_model.safetensors", "prior/text_encoder/model.safetensors",
        "prior/scheduler/scheduler_config.json", "run", "run/config.json", "run/checkpoint",
        "run/checkpoint/checkpoint.json", "run/metrics.jsonl",
    ],
)  # fmt: skip
def test_a_right_that_is_missing_is_no_damage(shared, name):
    """One line that names the file and the right."""
    path = shared / name
    if not path.exists():
        path.write_text("")
    os.chmod(path, 0)
    with (
        as_somebody_else(),
        pytest.raises(UserError, match=rf"permission denied for .*{re.escape(str(path))}"),
    ):
        generate.resume_run(shared / "run", "cpu") if name.startswith("run") else said_of(shared / "prior")


def test_rights_are_told_by_whoever_reads(shared):
    (shared / "text.json").write_text("{}")
    (shared / "text.json").chmod(0)
    with as_somebody_else():
        for read in (read_json, lambda path: read_lines(path, "")):
            with pytest.raises(UserError, match=r"permission denied for .*text\.json"):
                read(shared / "text.json")
        with pytest.raises(UserError, match="permission denied"), permitted():
            (shared / "text.json").open()
