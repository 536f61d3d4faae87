"""The main job with every kind of pipeline, offline; and what surrounds it: embeddings, memory, options, the hub."""

import importlib.util
import json
import re
import shutil
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import miniatures
from dreamfusion import __version__, build, generate, stepping
from dreamfusion.cli import main as cli
from dreamfusion.cli.memory import in_words, planned
from dreamfusion.config import Config, MemoryConfig
from dreamfusion.config.distill import CsdLaw, DistillConfig, IsmLaw, NfsdLaw, VsdLaw
from dreamfusion.config.presets import FOR_PIPELINES, PRESETS, preset
from dreamfusion.config.serialise import to_json
from dreamfusion.diffusion.priors import PriorOptions, ViewCondition, open_prior, open_prompt_encoder
from dreamfusion.diffusion.priors.kinds import KINDS
from dreamfusion.diffusion.priors.locate import locate
from dreamfusion.diffusion.priors.memory_plan import LiveBytes, plan
from dreamfusion.diffusion.priors.pipeline import PipelineEncoder
from dreamfusion.errors import UserError
from dreamfusion.loop import Metrics, advance, prompt_table, start
from dreamfusion.nerf.memory_plan import plan as scene_plan
from dreamfusion.provenance import prior_digest
from dreamfusion.schedules import Constant

SIZE = miniatures.CELLS * miniatures.FACTOR
SD, XL = "StableDiffusionPipeline", "StableDiffusionXLPipeline"


def config_for(config: Config, folder: Path, kind: str, **large: Any) -> Config:
    size = SIZE if KINDS[kind].latent else 0
    config = replace(config, prompt="a red ball", prior=str(folder), steps=4, views=2)
    return replace(config, memory=MemoryConfig(**{"size": size, "latent_until": 0.5, **large}))


def done(config: Config, path: Path) -> list[Metrics]:
    job = generate.create_run(config, path)
    with closing(stepping.train(job, lambda _: None)) as steps:
        return list(steps)


# --- the main job ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_the_main_job_runs_offline(miniature_folders, tiny_config, tmp_path, kind):
    """Half of the steps by the short cut; every step moves the scene; the prior's folder stays as it is."""
    folder = miniature_folders[kind]
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    metrics = done(config_for(tiny_config, folder, kind), tmp_path / "run")
    assert [step.step for step in metrics] == [1, 2, 3, 4]
    assert all(step.losses["distillation"] > 0 and step.gradient_norm > 0 for step in metrics)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
    assert (tmp_path / "run" / "checkpoint" / "checkpoint.json").exists()


def test_equal_seeds_give_equal_logs(miniature_folders, tiny_config, tmp_path):
    config = config_for(tiny_config, miniature_folders[SD], SD)
    logs = []
    for name in ("one", "other"):
        done(config, tmp_path / name)
        logs.append((tmp_path / name / "metrics.jsonl").read_text())
    assert logs[0] == logs[1]


@pytest.mark.parametrize("kind", [SD, "FluxPipeline"])
def test_a_law_that_learns_adapts_any_network(miniature_folders, tiny_config, tmp_path, kind):
    """Variational distillation: after a step its adapter says something else than the prior, which stays as it was."""
    config = replace(config_for(tiny_config, miniature_folders[kind], kind), steps=2)
    config = replace(config, distill=replace(config.distill, law=VsdLaw(rank=2)))
    job = generate.create_run(config, tmp_path / "run")
    before = [p.clone() for p in job.prior.denoiser.network.parameters()]
    with closing(stepping.train(job, lambda _: None)) as steps:
        assert all(metrics.losses["adapter"] > 0 for metrics in steps)
    law = job.run.distillation.law
    assert any(float(p.detach().abs().max()) > 0 for name, p in law.named_parameters() if "up" in name)
    assert all(torch.equal(*pair) for pair in zip(before, job.prior.denoiser.network.parameters(), strict=True))


LAWS = {
    "ism": DistillConfig(IsmLaw(inversions=2)),
    "csd": DistillConfig(CsdLaw()),
    "nfsd": DistillConfig(NfsdLaw()),
    "dreamtime": DistillConfig(timesteps="dreamtime", t_max=Constant(1.0), guidance_rescale=0.5),
}


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("kind", ["StableDiffusion3Pipeline"])
def test_every_law_takes_flows(miniature_folders, tiny_config, kind, law):
    config = replace(config_for(tiny_config, miniature_folders[kind], kind), negative="fog", distill=LAWS[law])
    run, parts = start(config, torch.device("cpu")), generate.open_parts(config, torch.device("cpu"))
    before = [p.clone() for p in run.scene.parameters()]
    steps = [advance(run, *parts) for _ in range(2)]
    assert all(metrics.losses["distillation"] > 0 for metrics in steps)
    assert any(not torch.equal(*pair) for pair in zip(before, run.scene.parameters(), strict=True))


@pytest.mark.parametrize("kind", [SD, "FluxPipeline"])
def test_a_prior_can_be_seen_drawing(miniature_folders, tmp_path, kind, monkeypatch):
    """`prior sample` decodes latents; a flow is followed from its noisy end, where no picture is left."""
    if kind == "FluxPipeline":  # its kind has no size of its own, and 1024 pixels take long even in miniature
        monkeypatch.setitem(KINDS, kind, replace(KINDS[kind], cells=miniatures.CELLS))
    out = tmp_path / "drawn.png"
    given = ["prior", "sample", "a red chair", "--prior", str(miniature_folders[kind])]
    with pytest.raises(SystemExit) as stop:
        cli.main([*given, "--steps", "2", "--device", "cpu", "--out", str(out)])
    assert stop.value.code == 0
    from PIL import Image

    picture = Image.open(out)
    assert picture.size == (2 * 4 * SIZE, 2 * SIZE)
    assert len(picture.getcolors(100_000) or []) > 10


def test_captions_are_read_before_the_denoiser_comes(miniature_folders, tmp_path, monkeypatch):
    def fail(*given: Any) -> None:
        raise UserError("the denoiser came")

    seen, read = [], PipelineEncoder.embed
    monkeypatch.setattr(PipelineEncoder, "embed", lambda reader, words: (seen.append(words), read(reader, words))[1])
    monkeypatch.setattr("dreamfusion.diffusion.priors.open_prior", fail)
    given = ["prior", "sample", "a red chair", "--prior", str(miniature_folders[SD]), "--device", "cpu"]
    with pytest.raises(SystemExit):
        cli.main([*given, "--out", str(tmp_path / "drawn.png")])
    assert len(seen) == 1


def test_nfsd_without_a_negative_prompt_is_said_to_be_csd(tmp_path, capsys):
    for given, said in (([], True), (["--negative", "fog"], False)):
        words = ["a chair", "--distill", "nfsd", *given, "--preset", "sd", "--prior", str(tmp_path), "--device", "cpu"]
        with pytest.raises(SystemExit):
            cli.main(words)
        assert ("nfsd without --negative" in capsys.readouterr().err) is said


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("kind", KINDS)
def test_the_main_job_runs_on_a_gpu_in_half_precision(miniature_folders, tiny_config, tmp_path, kind):
    """The 3D half stays in single precision; offloading gives the same run; the plan holds."""
    config = replace(config_for(tiny_config, miniature_folders[kind], kind), device="cuda", half=True)
    job = generate.create_run(config, tmp_path / "run")
    with closing(stepping.train(job, lambda _: None)) as steps:
        metrics = list(steps)
    assert all(step.losses["distillation"] > 0 for step in metrics)
    assert {p.dtype for p in job.run.scene.parameters()} == {torch.float32}
    assert job.prior.denoiser.network.dtype in (torch.float16, torch.bfloat16)
    offloaded = done(replace(config, memory=replace(config.memory, offload=True)), tmp_path / "offloaded")
    assert abs(offloaded[0].losses["distillation"] / metrics[0].losses["distillation"] - 1) < 0.05


# --- embeddings ------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("no_products")
def test_saved_embeddings_take_the_place_of_the_text_encoders(miniature_folders, tiny_config, tmp_path, capsys):
    """A run that saves them, and one that has no text encoders: the same steps, also resumed."""
    copy = Path(shutil.copytree(miniature_folders[XL], tmp_path / "prior"))
    config, saved = config_for(tiny_config, copy, XL), tmp_path / "text.safetensors"
    (tmp_path / "config.json").write_text(json.dumps(to_json(config)))
    given = ["generate", "--config", str(tmp_path / "config.json"), "--save-embeddings", str(saved)]
    with pytest.raises(SystemExit) as stop:
        cli.main([*given, "--out", str(tmp_path / "one")])
    assert stop.value.code == 0
    said = capsys.readouterr().err
    assert re.search(r"the run needs about .* GB while the prompt is read, then .* GB \(weights .*, 3D half", said)
    assert re.search(r"peak memory: \d+\.\d\d GB", said)
    for part in ("text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2"):
        shutil.rmtree(copy / part)
    job = generate.create_run(replace(config, memory=replace(config.memory, embeddings=str(saved))), tmp_path / "two")
    with closing(stepping.train(job, lambda _: None)) as steps:
        next(steps)
        next(steps)
    list(stepping.train(generate.resume_run(tmp_path / "two", "cpu"), lambda _: None))
    one, two = ((tmp_path / name / "metrics.jsonl").read_text() for name in ("one", "two"))
    assert one == two
    with pytest.raises(SystemExit):
        cli.main([*given, "--out", str(tmp_path / "three")])
    assert "choose another --save-embeddings" in capsys.readouterr().err


def test_a_run_writes_down_its_priors_weights_and_insists_on_them(miniature_folders, tiny_config, tmp_path):
    folder = Path(shutil.copytree(miniature_folders[SD], tmp_path / "prior"))
    config = config_for(tiny_config, folder, SD)
    run = generate.create_run(config, tmp_path / "run").run
    found = run.config.prior_sha256
    assert found == prior_digest(config)
    assert re.fullmatch("[0-9a-f]{64}", found)
    assert found != prior_digest(config_for(tiny_config, miniature_folders[XL], XL))
    told = json.loads((tmp_path / "run" / "config.json").read_text())
    assert (told["prior_sha256"], told["version"]) == (found, __version__)
    generate.resume_run(tmp_path / "run", "cpu")
    weights = next((folder / "unet").glob("*.safetensors"))
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(UserError, match=r"other weights than asked for: SHA-256 .* start a new run"):
        generate.resume_run(tmp_path / "run", "cpu")
    with pytest.raises(UserError, match="other weights"):
        generate.create_run(run.config, tmp_path / "again")
    assert not (tmp_path / "again").exists()


def save(config: Config, path: Path) -> None:
    prompts = prompt_table(config, open_prompt_encoder(config.prior, build.prior_options(config, torch.device("cpu"))))
    generate.save_embeddings(config, prompts, path)


def test_embeddings_of_something_else_are_refused(miniature_folders, tiny_config, tmp_path):
    config = config_for(tiny_config, miniature_folders[SD], SD)
    saved = tmp_path / "text.safetensors"
    save(config, saved)

    def refuses(match: str, **changes: Any) -> None:
        changed = replace(config, memory=replace(config.memory, embeddings=str(saved)), **changes)
        with pytest.raises(UserError, match=match):
            generate.create_run(changed, tmp_path / "run")
        assert not (tmp_path / "run").exists()

    refuses("no embedding of 'a blue ball.*--save-embeddings", prompt="a blue ball")
    refuses("no embedding of 'fog'", negative="fog", distill=DistillConfig(guidance_scale=7.0))
    refuses("made for another prior .StableDiffusionPipeline.", prior=str(miniature_folders[XL]))
    other = Path(shutil.copytree(miniature_folders[SD], tmp_path / "other"))
    settings = json.loads((other / "unet" / "config.json").read_text())
    (other / "unet" / "config.json").write_text(json.dumps({**settings, "layers_per_block": 2}))
    refuses("made for another prior", prior=str(other))
    for captions in ("[]", "3"):  # fewer than the file has embeddings, or none at all
        save_file({"embeddings": torch.zeros(2, 3, 4)}, saved, metadata={"captions": captions})
        refuses("holds no text embeddings")
    save(config, saved)
    saved.write_bytes(saved.read_bytes()[:-9])
    refuses("holds no text embeddings")
    saved.unlink()
    refuses("holds no text embeddings")


def test_embeddings_are_found_from_another_folder(miniature_folders, tiny_config, tmp_path, monkeypatch):
    config = config_for(tiny_config, miniature_folders[SD], SD)
    save(config, tmp_path / "text.safetensors")
    monkeypatch.chdir(tmp_path)
    generate.create_run(replace(config, memory=replace(config.memory, embeddings="text.safetensors")), tmp_path / "run")
    monkeypatch.chdir(tmp_path / "run")
    generate.resume_run(tmp_path / "run", "cpu")


def test_embeddings_are_saved_again_without_the_encoders(miniature_folders, tiny_config, tmp_path, monkeypatch):
    config, asked = config_for(tiny_config, miniature_folders[SD], SD, embeddings=str(tmp_path / "one")), []
    save(config_for(tiny_config, miniature_folders[SD], SD), tmp_path / "one")

    def note(name: str, texts: bool = True, half: bool = False) -> Any:
        asked.append(texts)
        return locate(name, texts, half)

    monkeypatch.setattr(generate, "locate", note)
    _, prompts = generate.open_parts(config, torch.device("cpu"))
    generate.save_embeddings(config, prompts, tmp_path / "other")
    assert asked == [False]
    assert (tmp_path / "other").exists()


def test_copies_of_a_model_share_embeddings(miniature_folders, tiny_config, tmp_path):
    saved = tmp_path / "text.safetensors"
    save(config_for(tiny_config, miniature_folders[SD], SD), saved)
    copy = Path(shutil.copytree(miniature_folders[SD], tmp_path / "moved"))
    config = config_for(tiny_config, copy, SD, embeddings=str(saved))
    _, prompts = generate.open_parts(config, torch.device("cpu"))
    expected = open_prompt_encoder(str(copy)).embed(prompts.captions)
    assert torch.equal(prompts.embeddings, expected)


# --- memory ----------------------------------------------------------------------------------------------------------


def held(module: torch.nn.Module) -> int:
    """Bytes of parameters and buffers."""
    return sum(tensor.nbytes for tensor in (*module.parameters(), *module.buffers()))


@pytest.mark.parametrize("kind", [SD, "IFPipeline", "StableDiffusion3Pipeline", "FluxPipeline", "PixArtSigmaPipeline"])
def test_the_plan_is_what_a_step_takes(miniature_folders, kind):
    """Bytes counted without weights and numbers equal those of the same work with them."""
    size = SIZE if KINDS[kind].latent else 0
    options = PriorOptions(size=size)
    needs = plan(locate(str(miniature_folders[kind])), options, views=4, copies=2)
    prior = open_prior(str(miniature_folders[kind]), options)
    image = torch.rand(4, prior.image_size, prior.image_size, 3, requires_grad=True)
    pose = torch.eye(4).repeat(8, 1, 1)
    pose[:, 2, 3] = 3.0
    text = prior.embed(["a red ball"]).expand(8, -1, -1).contiguous()
    with LiveBytes() as encoding:
        x = prior.encode(image)
    noisy, time = x.detach().repeat(2, 1, 1, 1), torch.full((8,), 500.0)
    with LiveBytes() as denoising, torch.no_grad():
        prior.denoiser(noisy, time, text, ViewCondition(pose=pose))
    weights = held(prior.denoiser.network)
    if KINDS[kind].latent:
        weights += held(prior.space.vae)
        assert abs(needs.encode / encoding.now - 1) < 0.15
    assert needs.weights == weights
    assert abs(needs.denoise / denoising.peak - 1) < 0.3
    assert needs.peak == max(needs.text, needs.weights + needs.encode + needs.denoise + needs.workspace)
    assert plan(locate(str(miniature_folders[kind])), replace(options, device=torch.device("cuda")), 4).workspace == 0


def test_the_embedded_prior_has_a_plan():
    """Its network is this package's own, which is told the time as a whole number."""
    needs = plan(locate("embedded"), PriorOptions(), views=1)
    network = open_prior("embedded").denoiser.network
    assert needs.weights == held(network)
    assert needs.encode == 0
    assert needs.denoise > 0


def test_the_plan_follows_the_options(miniature_folders):
    folder = locate(str(miniature_folders[SD]))
    plain = plan(folder, PriorOptions(size=64), views=2)
    assert plan(folder, PriorOptions(size=64), views=4).encode > 1.9 * plain.encode
    saving = plan(folder, PriorOptions(size=64, dtype=None, offload=True, texts=False), views=2)
    assert saving.denoise < 0.6 * plain.denoise
    assert saving.encode > 0.9 * plain.encode  # this auto-encoder stays in single precision
    assert saving.weights < 0.7 * plain.weights
    assert saving.text == 0


def test_doctor_tells_the_memory_of_a_prior(miniature_folders, tmp_path, capsys):
    def call(*given: str) -> int:
        with pytest.raises(SystemExit) as stop:
            cli.main(["doctor", *given])
        return stop.value.code

    call("--prior", str(miniature_folders[SD]), "--preset", "sd")
    assert re.search("prior: StableDiffusionPipeline, about .* 3D half 1.09", capsys.readouterr().out)
    vsd = replace(preset("sd"), prior=str(miniature_folders[SD]), distill=DistillConfig(VsdLaw()))
    needs = planned(vsd, torch.device("cpu"))
    assert "vsd" in in_words(needs, vsd)
    assert needs.step == needs.prior.step + scene_plan(vsd).peak
    call("--prior", str(miniature_folders["PixArtSigmaPipeline"]))
    assert "with preset sdxl" in capsys.readouterr().out
    assert call("--prior", str(miniature_folders[SD]), "--preset", "slow") == 2
    assert "use fast or paper" in capsys.readouterr().err
    assert call("--prior", str(tmp_path)) == 1
    assert "MISSING prior: " in capsys.readouterr().out


# --- options ---------------------------------------------------------------------------------------------------------


def answer(folder: Path, **options: Any) -> tuple[torch.Tensor, torch.Tensor]:
    prior = open_prior(str(folder), PriorOptions(size=4 * SIZE, **options))
    image = torch.rand(2, 4 * SIZE, 4 * SIZE, 3, generator=torch.Generator().manual_seed(0))
    x = prior.encode(image).detach()
    text = prior.embed(["a red ball"]).expand(2, -1, -1)
    return x, prior.predict_noise(x, torch.tensor([100, 700]), text, ViewCondition())


@pytest.mark.parametrize("option", ["attention_slicing", "vae_slicing", "offload"])
def test_saving_memory_changes_nothing(miniature_folders, option):
    plain, saving = answer(miniature_folders[SD]), answer(miniature_folders[SD], **{option: True})
    for one, other in zip(plain, saving, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


def test_tiles_are_encoded_apart(miniature_folders):
    """A picture four times as large as the auto-encoder's tiles is encoded tile by tile, to latents of one size."""
    plain, tiled = answer(miniature_folders[SD])[0], answer(miniature_folders[SD], vae_tiling=True)[0]
    assert plain.shape == tiled.shape
    assert not torch.equal(plain, tiled)


@pytest.mark.parametrize("option", ["vae_slicing", "vae_tiling"])
def test_encoding_in_parts_saves_memory_on_the_way_back_too(miniature_folders, option):
    """Bytes alive at once, until the gradient is there; it is the same, but for the seams of tiles."""

    def gradient(**options: Any) -> tuple[int, torch.Tensor]:
        prior = open_prior(str(miniature_folders[SD]), PriorOptions(size=4 * SIZE, **options))
        image = torch.rand(2, 4 * SIZE, 4 * SIZE, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
        with LiveBytes() as count:
            prior.encode(image).square().sum().backward()
        assert image.grad is not None
        return count.peak, image.grad

    (plain, whole), (saving, in_parts) = gradient(), gradient(**{option: True})
    assert saving < 0.6 * plain
    if option == "vae_slicing":
        torch.testing.assert_close(in_parts, whole, atol=1e-5, rtol=1e-4)
    needs = plan(locate(str(miniature_folders[SD])), PriorOptions(size=4 * SIZE, **{option: True}), views=2)
    assert 0.6 * saving < needs.encode < 1.2 * saving


def test_what_cannot_be_sliced_says_so(miniature_folders):
    with pytest.raises(UserError, match="attention slicing is for plain U-Nets"):
        open_prior(str(miniature_folders["FluxPipeline"]), PriorOptions(size=SIZE, attention_slicing=True))


def test_sizes_that_do_not_fit_are_refused(miniature_folders):
    with pytest.raises(UserError, match="multiple of 4 pixels, not 18"):
        open_prior(str(miniature_folders[SD]), PriorOptions(size=18))
    with pytest.raises(UserError, match="works on pixels: its pictures have 8 pixels, not 16"):
        open_prior(str(miniature_folders["IFPipeline"]), PriorOptions(size=16))
    with pytest.raises(UserError, match="multiple of 4 pixels, not 18"):
        plan(locate(str(miniature_folders["FluxPipeline"])), PriorOptions(size=18), views=1)
    with pytest.raises(UserError, match="its pictures have 8 pixels, not 16"):
        plan(locate(str(miniature_folders["IFPipeline"])), PriorOptions(size=16), views=1)


@pytest.mark.parametrize("damage", [{"block_out_channels": None}, {"layers_per_block": "x"}, []])
def test_a_plan_names_a_damaged_configuration(miniature_folders, tmp_path, damage):
    copy = Path(shutil.copytree(miniature_folders[SD], tmp_path / "prior"))
    path = copy / "unet" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | damage if damage else damage))
    with pytest.raises(UserError, match=r"unet/config\.json .*restore"):
        plan(locate(str(copy)), PriorOptions(size=SIZE), views=1)


# --- the hub ---------------------------------------------------------------------------------------------------------


def test_a_hub_id_is_pinned_and_only_what_is_needed_is_fetched(miniature_folders, monkeypatch):
    """The hub itself is not asked: its library is replaced by one that notes what it would be asked."""
    asked: list[tuple[str, dict[str, Any]]] = []

    def index(name: str, file: str, **given: Any) -> str:
        asked.append((f"{name}/{file}", given))
        return str(miniature_folders[XL] / file)

    def snapshot(name: str, **given: Any) -> str:
        asked.append((name, given))
        return str(miniature_folders[XL])

    monkeypatch.setattr("huggingface_hub.hf_hub_download", index)
    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    assert locate("somebody/some-model@refs/pr/1").pipeline == XL
    assert asked[0] == ("somebody/some-model/model_index.json", {"revision": "refs/pr/1"})
    name, given = asked[1]
    assert (name, given["revision"]) == ("somebody/some-model", "refs/pr/1")
    parts = {pattern.removesuffix("/*") for pattern in given["allow_patterns"]}
    wanted = {"unet", "vae", "scheduler", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2"}
    assert parts == wanted | {"model_index.json", "card.json"}
    assert "*.bin" in given["ignore_patterns"]
    locate("somebody/some-model", texts=False)
    assert asked[-1][1]["revision"] is None
    assert not any("text_encoder" in pattern for pattern in asked[-1][1]["allow_patterns"])


def test_a_hub_that_is_not_reached_is_said(monkeypatch):
    from huggingface_hub.errors import HTTPError

    def fail(*given: Any, **named: Any) -> None:
        raise HTTPError("connection reset")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", fail)
    with pytest.raises(UserError, match=r"the model hub did not give it .HTTPError"):
        locate("somebody/some-model")


def test_a_folder_never_makes_the_hub_be_asked(miniature_folders, tmp_path, monkeypatch):
    def fail(*given: Any, **named: Any) -> None:
        raise AssertionError("the hub was asked")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", fail)
    monkeypatch.setattr("huggingface_hub.snapshot_download", fail)
    open_prior(str(miniature_folders[SD]))
    monkeypatch.chdir(tmp_path)
    shutil.copytree(miniature_folders[SD], tmp_path / "owner" / "model@main")
    open_prompt_encoder("owner/model@main")
    with pytest.raises(UserError, match="there is no prior"):
        open_prompt_encoder("./owner/absent/model")


# --- the page --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def priors_table() -> Any:
    path = Path(__file__).parents[1] / "docs" / "priors_table.py"
    spec = importlib.util.spec_from_file_location("priors_table", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["priors_table"] = module
    spec.loader.exec_module(module)
    return module


def cells_of(module: Any) -> list[list[str]]:
    page = module.PAGE.read_text(encoding="utf-8").split(module.BEGIN)[1].split(module.END)[0]
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in page.splitlines() if line.startswith("| `")]


def test_the_page_has_a_row_for_every_kind(priors_table):
    rows = cells_of(priors_table)
    assert [row[:6] for row in rows] == [priors_table.facts(name, kind) for name, kind in KINDS.items()]


def test_the_memory_on_the_page_is_the_plans(priors_table):
    """Of two kinds, one encoded in parts; all of them take half a minute, for tens of billions of parameters."""
    rows = {row[0]: row for row in cells_of(priors_table)}
    for kind in (SD, "PixArtSigmaPipeline"):
        assert rows[f"`{kind}`"][6:] == priors_table.memory(kind, KINDS[kind])


def test_the_page_tells_what_was_measured_at_full_size(priors_table):
    """The estimate of every network is within 15 % of what a step took."""
    assert priors_table.full_size() in priors_table.PAGE.read_text(encoding="utf-8")
    found = json.loads(priors_table.MEASURED.read_text(encoding="utf-8"))["priors"]
    assert {
        name: ratio for name in found if not 0.85 < (ratio := found[name]["step_measured_over_estimated"]) < 1.15
    } == {}


def test_every_kind_has_a_preset_and_a_miniature():
    assert set(FOR_PIPELINES) == set(KINDS)
    assert set(FOR_PIPELINES.values()) <= set(PRESETS)
    assert set(miniatures.BUILDERS) == set(KINDS)
