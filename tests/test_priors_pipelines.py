"""Every kind of pipeline, in miniature: what the adapter says equals what diffusers' own pipeline computes."""

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import torch

import miniatures
from dreamfusion.diffusion.ddim import caption_conditioning
from dreamfusion.diffusion.guidance import Guidance
from dreamfusion.diffusion.priors import LinearEncodingPrior, Prior, PriorOptions, ViewCondition, open_prior
from dreamfusion.diffusion.priors.denoisers import blocks, places, unblocked
from dreamfusion.diffusion.priors.kinds import KINDS
from dreamfusion.diffusion.priors.pipeline import PipelinePrior
from dreamfusion.diffusion.priors.text_encoders import packed, packed_shape, unpacked

CELLS, SIZE = miniatures.CELLS, miniatures.CELLS * miniatures.FACTOR
PROMPTS = ["a red chair", "a blue frog, side view"]
SCALE = 3.0
VIEWS = 4


@pytest.fixture(scope="module")
def opened(miniature_folders) -> Callable[..., PipelinePrior]:
    """Opens a miniature at its own size; those with the same options once."""

    @lru_cache
    def open_miniature(kind: str, dtype: torch.dtype = torch.float32) -> PipelinePrior:
        size = SIZE if KINDS[kind].latent else 0
        return open_prior(str(miniature_folders[kind]), PriorOptions(size=size, dtype=dtype))

    return open_miniature


def pipeline_of(folders, kind: str) -> Any:
    from diffusers import DDIMScheduler, DiffusionPipeline

    pipeline = DiffusionPipeline.from_pretrained(folders[kind], local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    if kind == "StableDiffusionXLPipeline":
        # Euler's scheduler divides pictures by alpha, which is another way to write the same step.
        pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config, clip_sample=False)
    return pipeline


def pictures(count: int, size: int = SIZE, seed: int = 0) -> torch.Tensor:
    return torch.rand(count, size, size, 3, generator=torch.Generator().manual_seed(seed))


def poses(count: int) -> torch.Tensor:
    from dreamfusion.cameras import turntable

    return turntable(4, 0.3, 3.0, 0.7, 8).pose.repeat(count // 4, 1, 1)


# --- against diffusers -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_text_is_what_the_pipeline_makes_of_it(opened, miniature_folders, kind):
    pipeline, text = pipeline_of(miniature_folders, kind), opened(kind).embed([*PROMPTS, ""])
    match kind:
        case "StableDiffusionPipeline":
            tokens, empty = pipeline.encode_prompt(PROMPTS, "cpu", 1, True)
            expected = torch.cat([tokens, empty[:1]])
        case "IFPipeline":
            tokens, empty = pipeline.encode_prompt(PROMPTS)
            expected = torch.cat([tokens, empty[:1]])
        case "PixArtAlphaPipeline" | "PixArtSigmaPipeline":
            tokens, mask, empty, empty_mask = pipeline.encode_prompt(PROMPTS)
            expected = packed(torch.cat([tokens, empty[:1]]), torch.cat([mask, empty_mask[:1]]).float())
        case "FluxPipeline":
            tokens, pooled, _ = pipeline.encode_prompt([*PROMPTS, ""], None)
            expected = packed(tokens, pooled)
        case "StableDiffusion3Pipeline":
            tokens, empty, pooled, empty_pooled = pipeline.encode_prompt(PROMPTS, None, None)
            expected = packed(torch.cat([tokens, empty[:1]]), torch.cat([pooled, empty_pooled[:1]]))
        case _:
            tokens, empty, pooled, empty_pooled = pipeline.encode_prompt(PROMPTS)
            expected = packed(torch.cat([tokens, empty[:1]]), torch.cat([pooled, empty_pooled[:1]]))
    torch.testing.assert_close(text, expected, atol=1e-4, rtol=1e-4)
    assert not torch.equal(text[0], text[1])


def recorded(pipeline: Any, kind: str) -> list[tuple[torch.Tensor, ...]]:
    """What the pipeline gives its scheduler, and gets back, while it draws PROMPTS in two steps."""
    calls, step = [], pipeline.scheduler.step

    def note(output: Any, t: Any, sample: Any, *rest: Any, **named: Any) -> Any:
        done = step(output, t, sample, *rest, **named)
        calls.append((output, t, sample, done[0]))
        return done

    pipeline.scheduler.step = note
    given: dict[str, Any] = {"output_type": "latent", "height": SIZE, "width": SIZE, "guidance_scale": SCALE}
    match kind:
        case "IFPipeline":
            text, empty = pipeline.encode_prompt(PROMPTS)
            given = {"prompt_embeds": text, "negative_prompt_embeds": empty, "guidance_scale": SCALE}
            given |= {"output_type": "pt", "num_inference_steps": 2}
        case "FluxPipeline":
            given |= {"prompt": PROMPTS, "negative_prompt": [""] * 2, "true_cfg_scale": SCALE, "guidance_scale": 1.0}
            given |= {"sigmas": [1.0, 0.5]}
        case "StableDiffusion3Pipeline":
            given |= {"prompt": PROMPTS, "sigmas": [1.0, 0.5]}
        case "PixArtAlphaPipeline" | "PixArtSigmaPipeline":
            given |= {"prompt": PROMPTS, "clean_caption": False, "use_resolution_binning": False}
            given |= {"num_inference_steps": 2}
        case _:
            given |= {"prompt": PROMPTS, "num_inference_steps": 2}
    pipeline(**given, generator=torch.Generator().manual_seed(1))
    return calls


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_is_the_pipelines_own(opened, miniature_folders, kind):
    """The guided noise is that of the pipeline, and leads where its scheduler goes."""
    pipeline, prior = pipeline_of(miniature_folders, kind), opened(kind)
    schedule = prior.schedule
    output, time, sample, after = recorded(pipeline, kind)[1 if KINDS[kind].flow else 0]
    if kind == "FluxPipeline":
        output, sample, after = (
            pipeline._unpack_latents(tokens, SIZE, SIZE, miniatures.FACTOR) for tokens in (output, sample, after)
        )
    if KINDS[kind].flow:
        index = int((schedule.sigmas - time / 1000).abs().argmin())
        torch.testing.assert_close(schedule.sigmas[index], time / 1000)
    else:
        index = int(time)
    t = torch.tensor([index] * 2)
    expected = schedule.epsilon(prior.prediction, output[:, : sample.shape[1]], sample, t)
    given = caption_conditioning(prior, PROMPTS, ViewCondition())
    eps = Guidance(SCALE).guided(prior, sample, t, given)
    torch.testing.assert_close(eps, expected, atol=2e-5, rtol=2e-4)
    if kind == "IFPipeline":
        return  # its scheduler draws noise; test_priors compares its estimate of the picture
    clean = schedule.x0_from_eps(eps, sample, t)
    if KINDS[kind].flow:
        torch.testing.assert_close(after, clean, atol=2e-5, rtol=2e-4)  # the last step goes all the way
    else:
        then = torch.tensor([index - 500] * 2)
        torch.testing.assert_close(after, schedule.add_noise(clean, eps, then), atol=2e-4, rtol=2e-4)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if KINDS[kind].latent])
def test_latents_are_the_auto_encoders(opened, miniature_folders, kind):
    from diffusers import AutoencoderKL

    prior, vae = (
        opened(kind),
        AutoencoderKL.from_pretrained(miniature_folders[kind], subfolder="vae"),
    )
    image = pictures(2)
    with torch.no_grad():
        mode = vae.encode(2 * image.permute(0, 3, 1, 2) - 1).latent_dist.mode()
        expected = (mode - (vae.config.shift_factor or 0.0)) * vae.config.scaling_factor
        torch.testing.assert_close(prior.encode(image), expected)
        torch.testing.assert_close(
            prior.decode(expected), (vae.decode(mode).sample / 2 + 0.5).clamp(0, 1).movedim(1, 3)
        )


# --- as a prior ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_reach_the_picture_and_never_the_prior(opened, kind):
    prior = opened(kind)
    assert isinstance(prior, Prior)
    assert isinstance(prior, LinearEncodingPrior)
    image = pictures(VIEWS, 3 * SIZE).requires_grad_()
    x = prior.encode(image)
    x.square().sum().backward()
    assert image.grad is not None
    assert bool(image.grad.isfinite().all())
    assert float(image.grad.abs().min()) > 0
    text = prior.embed(PROMPTS[:1]).expand(VIEWS, -1, -1)
    eps = prior.predict_noise(x.detach(), torch.tensor([500] * VIEWS), text, ViewCondition(pose=poses(VIEWS)))
    assert not eps.requires_grad
    assert eps.shape == x.shape
    networks = [prior.denoiser.network, *([prior.space.vae] if KINDS[kind].latent else [])]
    assert all(not p.requires_grad and p.grad is None for network in networks for p in network.parameters())


@pytest.mark.parametrize(
    ("kind", "dtype", "tolerance"),
    [
        *((kind, torch.bfloat16, 0.15) for kind in KINDS),
        *((kind, torch.float64, 1e-4) for kind in ("StableDiffusionXLPipeline", "FluxPipeline")),
    ],
)
def test_other_precisions_say_the_same(opened, kind, dtype, tolerance):
    """Each picture's answer, in the dtype of the pictures, whatever the networks compute in."""
    x = torch.randn(VIEWS, 3 if kind == "IFPipeline" else 4, CELLS, CELLS, generator=torch.Generator().manual_seed(0))
    t, known, said = torch.tensor([50, 300, 600, 900]), ViewCondition(pose=poses(VIEWS)), []
    for prior in (opened(kind), opened(kind, dtype=dtype)):
        text = prior.embed(PROMPTS[:1]).expand(VIEWS, -1, -1)
        said.append(prior.predict_noise(x, t, text, known))
    assert said[1].dtype == torch.float32
    assert not torch.equal(said[0], said[1])
    torch.testing.assert_close(said[0], said[1], atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("kind", KINDS)
def test_pictures_of_a_batch_do_not_mix(opened, kind):
    """A batch of eight answers as two batches of four."""
    prior, generator = opened(kind), torch.Generator().manual_seed(0)
    x = torch.randn(8, 3 if kind == "IFPipeline" else 4, CELLS, CELLS, generator=generator)
    t, known = torch.randint(0, 1000, (8,), generator=generator), ViewCondition(pose=poses(8))
    text = prior.embed(PROMPTS * 4)
    whole = prior.predict_noise(x, t, text, known)
    half = prior.predict_noise(x[4:], t[4:], text[4:], ViewCondition(pose=known.pose[4:]))
    torch.testing.assert_close(whole[4:], half, atol=1e-5, rtol=1e-4)


def test_a_text_encoder_leaves_before_the_next_one_comes(opened, monkeypatch):
    """Three encoders of Stable Diffusion 3: never two in memory, and none afterwards."""
    import gc
    import weakref

    from dreamfusion.diffusion.priors import text_encoders as text

    alive: list[Any] = []
    load = text.load_network

    def watched(*given: Any) -> Any:
        gc.collect()
        assert [ref for ref in alive if ref() is not None] == []
        network = load(*given)
        alive.append(weakref.ref(network))
        return network

    prior = opened("StableDiffusion3Pipeline")
    monkeypatch.setattr(text, "load_network", watched)
    prior.embed(PROMPTS)
    gc.collect()
    assert len(alive) == 3
    assert [ref for ref in alive if ref() is not None] == []


def test_stable_diffusion_3_does_without_t5(miniature_folders, tmp_path):
    import json
    import shutil

    from diffusers import StableDiffusion3Pipeline

    folder = Path(shutil.copytree(miniature_folders["StableDiffusion3Pipeline"], tmp_path / "copy"))
    index = json.loads((folder / "model_index.json").read_text())
    index |= {"text_encoder_3": [None, None], "tokenizer_3": [None, None]}
    (folder / "model_index.json").write_text(json.dumps(index))
    pipeline = StableDiffusion3Pipeline.from_pretrained(
        folder, text_encoder_3=None, tokenizer_3=None, local_files_only=True
    )
    tokens, _, pooled, _ = pipeline.encode_prompt(PROMPTS, None, None)
    torch.testing.assert_close(open_prior(str(folder)).embed(PROMPTS), packed(tokens, pooled))


# --- the parts -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 5, 6, 7, 18])
def test_packing_comes_apart_again(size):
    tokens, vector = torch.randn(2, 4, 6), torch.randn(2, size)
    text = packed(tokens, vector)
    assert text.shape[1:] == packed_shape(4, 6, size)
    again = unpacked(text, size)
    assert torch.equal(again[0], tokens)
    assert torch.equal(again[1], vector)


def test_flux_blocks_are_the_pipelines():
    from diffusers import FluxPipeline

    latents = torch.randn(2, 4, 6, 8)
    tokens = FluxPipeline._pack_latents(latents, 2, 4, 6, 8)
    assert torch.equal(blocks(latents), tokens)
    assert torch.equal(unblocked(tokens, 3, 4), latents)
    assert torch.equal(places(3, 4), FluxPipeline._prepare_latent_image_ids(2, 3, 4, "cpu", torch.float32))


def test_the_short_cut_is_exact_for_a_linear_encoder(opened):
    """An auto-encoder whose latents are affine in the mean colour of their pixels is its own short cut."""
    from dataclasses import replace
    from types import SimpleNamespace

    matrix, offset = torch.randn(4, 3, generator=torch.Generator().manual_seed(3)), torch.tensor([0.1, -2, 0.3, 0])

    class Linear:
        config = SimpleNamespace(block_out_channels=(4, 8), scaling_factor=0.7, shift_factor=0.2)
        dtype = torch.float32

        def encode(self, x):
            means = torch.nn.functional.avg_pool2d(x, 2)
            latent = torch.einsum("ci,bihw->bchw", matrix, means) + offset[:, None, None]
            return SimpleNamespace(latent_dist=SimpleNamespace(mean=latent))

    space = replace(opened("StableDiffusionPipeline").space, vae=Linear())
    flat = pictures(2, CELLS).repeat_interleave(2, 1).repeat_interleave(2, 2)
    at_cells = flat[:, ::2, ::2]
    torch.testing.assert_close(space.encode_linear(at_cells), space.encode(flat), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_the_short_cut_leads_to_the_same_place(opened, kind):
    """Of the same shape as the encoder's answer, in the pictures' dtype, and with a gradient to every pixel."""
    prior, image = opened(kind), pictures(2, 3 * SIZE).requires_grad_()
    rough = prior.encode_linear(image)
    assert rough.shape == prior.encode(image).shape
    assert rough.dtype == image.dtype
    (rough * torch.randn(rough.shape, generator=torch.Generator().manual_seed(0))).sum().backward()
    assert image.grad is not None
    assert float(image.grad.abs().max()) > 0
