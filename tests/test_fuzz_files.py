"""Files are input: whatever stands in one that is read, it is accepted, or refused in one line of words.

Every kind of file is mutated (values of its JSON replaced, removed, added) and damaged (bytes). The cases are the same
in every run; the environment variable DREAMFUSION_FUZZ makes so many times more of them (with --timeout 0).
"""

import copy
import hashlib
import io
import json
import shutil
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import load_file
from safetensors.torch import save as tensor_bytes
from torch import Tensor

import test_compose
from dreamfusion import checkpoint, compose, generate
from dreamfusion.cli import arguments
from dreamfusion.compose.glb import glb_content, read_glb
from dreamfusion.config import Config, LearnedBackground, MlpFieldConfig
from dreamfusion.config.check import validate
from dreamfusion.config.distill import IsmLaw, VsdLaw
from dreamfusion.config.presets import PRESETS, preset
from dreamfusion.config.serialise import from_json, schedule_from_text, to_json
from dreamfusion.contrastive import open_contrastive, toybox
from dreamfusion.contrastive.network import new_network
from dreamfusion.diffusion.priors import embeddings, open_prior, open_prompt_encoder, weights
from dreamfusion.diffusion.priors import memory_plan as memory
from dreamfusion.diffusion.priors.card import Card
from dreamfusion.diffusion.priors.folder import read_pipeline
from dreamfusion.diffusion.priors.opening import require_whole
from dreamfusion.diffusion.priors.options import PriorOptions
from dreamfusion.evaluate import truth
from dreamfusion.evaluate.evaluation_views import Views, read_views, save_views
from dreamfusion.evaluate.judge import summary
from dreamfusion.evaluate.judge.judge import CARD, WEIGHTS, open_judge
from dreamfusion.evaluate.judge.network import JudgeNet
from dreamfusion.evaluate.making import cost_of
from dreamfusion.evaluate.suites import read_prompts
from dreamfusion.evaluate.truth import open_truths
from dreamfusion.loop import optimise, prompt_table, start
from dreamfusion.runs import RunFolder
from dreamfusion.studio.priors import offers, understanding
from dreamfusion.words import read_words, understand
from fuzzing import HUGE, JUNK, NESTED, ODD, SMALL, WORDS, answer, cases, damaged, mutated, texts
from miniatures import save_contrastive
from training.judge.card import make_card
from training.nouns import Assets, names, nouns

CPU = torch.device("cpu")


# --- configurations --------------------------------------------------------------------------------------------------


def configurations() -> list[Any]:
    every = [to_json(preset(name)) | {"prompt": "a chair"} for name in PRESETS]
    laws = [to_json(IsmLaw()) | {"kind": "IsmLaw"}, to_json(VsdLaw()) | {"kind": "VsdLaw"}]
    return every + [copy.deepcopy(every[0]) | {"distill": {"kind": "DistillConfig", "law": law}} for law in laws]


CONFIGURATIONS = st.one_of(*map(texts, configurations()))


@pytest.fixture
def run_folder(tmp_path: Path) -> RunFolder:
    return RunFolder.create(tmp_path / "run", {})


@cases(100)
@given(content=CONFIGURATIONS)
def test_configurations(run_folder, content):
    run_folder.config.write_bytes(content)
    answer(lambda: validate(generate.config_of(run_folder.path)))


@cases(20)
@given(content=CONFIGURATIONS)
def test_configurations_that_are_given(tmp_path, content):
    (tmp_path / "config.json").write_bytes(content)
    answer(lambda: validate(arguments.read_generate(["--config", str(tmp_path / "config.json")]).settings))


def small(tiny_config: Config, tiny_paper: Config) -> list[Any]:
    learned = to_json(LearnedBackground(2, 1, 8)) | {"kind": "LearnedBackground"}
    network = to_json(MlpFieldConfig(2, 1, 8)) | {"kind": "MlpField"}
    changed = to_json(tiny_config)
    changed["scene"] |= {"field": network, "background": learned}
    return [to_json(tiny_config), to_json(tiny_paper), changed]


@cases(50)
@given(data=st.data())
def test_what_is_accepted_starts(tiny_config, tiny_paper, data):
    base = data.draw(st.sampled_from(small(tiny_config, tiny_paper)))
    values = json.loads(json.dumps(data.draw(mutated(base, [*WORDS, *SMALL, *HUGE, *NESTED]))))
    answer(lambda: start(from_json(Config, values), CPU) if isinstance(values, dict) else None)


@cases(300)
@given(text=st.text("0123456789.,:~@-+eE naif_\0\ud800", max_size=24))
def test_schedules(text):
    answer(lambda: schedule_from_text(text))


# --- scenes and meshes -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shelf(tmp_path_factory) -> Path:
    """A folder with a run and two meshes."""
    place = tmp_path_factory.mktemp("shelf")
    RunFolder.create(place / "run", {}).mesh.write_bytes(test_compose.gem())
    (place / "gem.glb").write_bytes(test_compose.gem(1))
    (place / "poster.glb").write_bytes(test_compose.poster())
    return place


SCENE = {
    "title": "lunch",
    "assets": [
        {"file": "run", "position": [0, 1, 2.5], "rotation": [0, 90, 0], "scale": 0.5},
        {"file": "gem.glb", "name": "gem", "height": 0.5},
    ],
}


@cases(150)
@given(content=texts(SCENE, [*JUNK, "gem.glb", "poster.glb", "run", "."]))
def test_scenes(shelf, content):
    (shelf / "scene.json").write_bytes(content)
    answer(lambda: glb_content(compose.compose(compose.read(shelf / "scene.json"))))


def parts_of(content: bytes) -> tuple[Any, bytes]:
    return test_compose.taken_apart(content)


def container(tree: Any, block: bytes) -> bytes:
    """A binary glTF file around any JSON value."""
    text = tree if isinstance(tree, bytes) else json.dumps(tree).encode()
    text += b" " * (-len(text) % 4)
    head = struct.pack("<5I", 0x46546C67, 2, 28 + len(text) + len(block), len(text), 0x4E4F534A)
    return head + text + struct.pack("<2I", len(block), 0x004E4942) + block


def meshes() -> st.SearchStrategy[bytes]:
    extensions = [{"KHR_materials_unlit": None}, {"KHR_materials_a": {"aTexture": 1}}, "KHR_materials_unlit"]
    odd, made = [*JUNK, *extensions, {"index": 7}], []
    for content in (test_compose.gem(), test_compose.poster()):
        tree, block = parts_of(content)
        trees = *[mutated(tree, odd)] * 4, damaged(json.dumps(tree).encode())
        made += [each.map(lambda tree, block=block: container(tree, block)) for each in trees]
        made.append(damaged(content))
    return st.one_of(*made)


@cases(100)
@given(content=meshes(), height=st.booleans())
def test_meshes(shelf, content, height):
    (shelf / "fuzzed.glb").write_bytes(content)
    sized = {"height": 0.5} if height else {}
    (shelf / "scene.json").write_text(json.dumps({"assets": [{"file": "gem.glb"}, {"file": "fuzzed.glb", **sized}]}))
    made = answer(lambda: compose.write(compose.read(shelf / "scene.json"), shelf / "out"))
    if made is not None:
        assert len(read_glb(made[0]).roots) == 2  # what was made of it can be read again
        shutil.rmtree(shelf / "out")


# --- runs ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def saved(tiny_config, tmp_path) -> Path:
    """The checkpoint of a run after a step."""
    checkpoint.save(start(tiny_config, CPU), tmp_path)
    return tmp_path


@pytest.fixture
def begun(tiny_config, disc_prior, tmp_path) -> Path:
    run = start(tiny_config, CPU)
    for _ in optimise(run, disc_prior, prompt_table(run.config, disc_prior), 1):
        pass
    checkpoint.save(run, tmp_path)
    return tmp_path


@cases(50)
@given(data=st.data())
def test_heads_of_checkpoints(saved, data):
    head = json.loads((saved / checkpoint.HEAD).read_bytes())
    try:
        (saved / checkpoint.HEAD).write_bytes(data.draw(texts(head, [*WORDS, *ODD, *SMALL, *HUGE, *NESTED])))
        answer(lambda: checkpoint.load(saved, CPU))
    finally:
        (saved / checkpoint.HEAD).write_text(json.dumps(head))


@st.composite
def tensors(draw: st.DrawFn, true: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors that lack one, or have one too many, or one of another shape, type or content."""
    found = dict(true)
    for _ in range(draw(st.integers(1, 2))):
        name = draw(st.sampled_from(sorted(found)))
        tensor = found[name]
        match draw(st.integers(0, 6)):
            case 0:
                del found[name]
            case 1:
                found[draw(st.sampled_from([*(word for word in WORDS if word), *true]))] = tensor.clone()
            case 2:
                found[name] = tensor.flatten()[: draw(st.integers(0, 3))].clone()
            case 3:
                found[name] = tensor[None].clone()
            case 4:
                kinds = [torch.float64, torch.float16, torch.int64, torch.uint8, torch.bool]
                found[name] = tensor.to(draw(st.sampled_from(kinds)))
            case 5:
                found[name] = torch.full_like(tensor.float(), draw(st.sampled_from([float("nan"), float("inf"), -1.0])))
            case _:
                found[f"{name}{draw(st.sampled_from(['.a', '.0', '0']))}"] = found.pop(name)
        if not found:
            break
    return found


@cases(40)
@given(data=st.data())
def test_tensors_of_checkpoints(begun, disc_prior, data):
    head = json.loads((begun / checkpoint.HEAD).read_bytes())
    true = load_file(begun / head["tensors"])
    wrong = data.draw(st.one_of(*[tensors(true).map(tensor_bytes)] * 3, damaged(tensor_bytes(true))))
    (begun / "wrong.safetensors").write_bytes(wrong)
    told = head | {"tensors": "wrong.safetensors", "sha256": hashlib.sha256(wrong).hexdigest()}
    try:
        (begun / checkpoint.HEAD).write_text(json.dumps(told))
        run = answer(lambda: checkpoint.load(begun, CPU))
        if run is not None:  # what is accepted goes on
            answer(lambda: list(optimise(run, disc_prior, prompt_table(run.config, disc_prior), run.step + 1)))
    finally:
        (begun / checkpoint.HEAD).write_text(json.dumps(head))


LINE = {"step": 1, "losses": {"distillation": 1.5, "opacity": 0.1}, "opacity": 0.5, "occupied": 0.25}


@cases(200)
@given(lines=st.lists(texts(LINE), min_size=1, max_size=3), torn=st.booleans())
def test_metrics(run_folder, lines, torn):
    whole = json.dumps(LINE).encode()
    run_folder.metrics.write_bytes(
        b"\n".join([whole, *(line.replace(b"\n", b" ") for line in lines), b"" if not torn else whole[:9]])
    )
    answer(run_folder.read_metrics)
    answer(lambda: run_folder.rewind_metrics(1))


# --- priors ----------------------------------------------------------------------------------------------------------

SD, FLUX, TOY = "StableDiffusionPipeline", "FluxPipeline", "IFPipeline"


@pytest.fixture(scope="module")
def priors(miniature_folders, tmp_path_factory) -> dict[str, Path]:
    """Copies that may be changed."""
    place = tmp_path_factory.mktemp("priors")
    return {kind: Path(shutil.copytree(miniature_folders[kind], place / kind)) for kind in (SD, FLUX, TOY)}


def changes(folder: Path, data: st.DataObject, names: list[str], junk: list[Any]) -> tuple[Path, bytes, bytes]:
    """One of the folder's JSON files, what stands in it, and what shall."""
    path = folder / data.draw(st.sampled_from(names))
    true = path.read_bytes()
    return path, true, data.draw(texts(json.loads(true), junk))


SETTINGS = {
    SD: ["model_index.json", "scheduler/scheduler_config.json", "unet/config.json", "vae/config.json",
         "text_encoder/config.json", "tokenizer/tokenizer_config.json", "tokenizer/tokenizer.json"],
    FLUX: ["model_index.json", "scheduler/scheduler_config.json", "transformer/config.json"],
    TOY: ["model_index.json", "scheduler/scheduler_config.json", "unet/config.json", "tokenizer/tokenizer_config.json"],
}  # fmt: skip


def opened(folder: Path) -> None:
    """All that a run, `doctor` and `prior sample` ask of a folder."""
    answer(lambda: require_whole(str(folder), PriorOptions()))
    open_prompt_encoder(str(folder)).embed(["a chair"])
    open_prior(str(folder))


@cases(20)
@given(data=st.data())
def test_folders_of_priors(priors, data):
    kind = data.draw(st.sampled_from(sorted(SETTINGS)))
    path, true, changed = changes(priors[kind], data, SETTINGS[kind], JUNK)
    path.write_bytes(changed)
    try:
        answer(lambda: opened(priors[kind]))
    finally:
        path.write_bytes(true)


@cases(8)
@given(data=st.data())
def test_weights_of_priors(priors, data):
    kind = data.draw(st.sampled_from(sorted(SETTINGS)))
    path = data.draw(st.sampled_from(sorted(priors[kind].rglob("*.safetensors"))))
    true = path.read_bytes()
    path.write_bytes(data.draw(st.one_of(tensors(load_file(path)).map(tensor_bytes), damaged(true))))
    try:
        answer(lambda: opened(priors[kind]))
    finally:
        path.write_bytes(true)


NAME = "diffusion_pytorch_model-00001-of-00001.safetensors"
PARTS = {"metadata": {"total_size": 120_000}, "weight_map": {"a": NAME, "b.c": NAME}}


@cases(60)
@given(content=texts(PARTS))
def test_parts_of_weights(tmp_path, content):
    (tmp_path / NAME).write_bytes(tensor_bytes({"a": torch.zeros(2), "b.c": torch.zeros(1)}))
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "diffusion_pytorch_model.safetensors.index.json").write_bytes(content)

    def read() -> str:
        return weights.digest(
            tmp_path / "config.json", weights.find_weights(tmp_path, "diffusion_pytorch_model", "").files
        )

    found = answer(read)
    assert found is None or len(found) == 64


@cases(8)
@given(data=st.data())
def test_plans_of_memory(priors, data):
    kind = data.draw(st.sampled_from(sorted(SETTINGS)))
    names = [name for name in SETTINGS[kind] if name.endswith("/config.json")]
    path, true, changed = changes(priors[kind], data, names, JUNK)
    path.write_bytes(changed)
    try:
        answer(lambda: memory.plan(read_pipeline(priors[kind]), PriorOptions(), views=1))
    finally:
        path.write_bytes(true)


PRIOR_CARD = {
    "name": "toy", "image_size": 16, "overhead_above_deg": 60.0, "conditions": ["pose", "light"], "zero_padding": True,
    "vocabulary": ["a", "chair", "front", "side", "back", "overhead", "view"],
    "view_words": {"front": "front view", "left": "side view", "back": "back view", "right": "side view",
                   "overhead": "overhead view", "textureless": "bare"},
}  # fmt: skip


@cases(200)
@given(content=texts(PRIOR_CARD))
def test_cards_of_priors(priors, content):
    from dreamfusion.diffusion.priors.card import read_card

    path = priors[TOY] / "card.json"
    path.write_bytes(content)
    try:
        answer(lambda: read_card(priors[TOY], 16))
    finally:
        path.unlink()


@cases(5)
@given(content=texts(PRIOR_CARD | {"nouns": ["chair"], "colours": ["red"]}))
def test_cards_that_the_studio_reads(tmp_path, content):
    (tmp_path / "card.json").write_bytes(content)
    offered = answer(lambda: offers([str(tmp_path)]))
    if offered is not None:
        json.dumps(understanding(offered[str(tmp_path)], "a red chair"), allow_nan=False)


WORD_LIST = """
[nouns]
chair: stool, arm chair
[adjectives]
wooden: of wood
[learned]
wooden: chair
[colours]
red: crimson, scarlet
[tones]
words: dark, light
[views]
front view: from the front
[left out]
nice: nice, very nice
[not learned]
striped: dotted
[counts]
two: pair
[between]
and: with
[turned into]
upside down: upended
[outside]
table, chair: desk
"""


@cases(150)
@given(content=damaged(WORD_LIST.encode()))
def test_lists_of_words(tmp_path, content):
    (tmp_path / "words.ini").write_bytes(content)
    found = answer(lambda: read_words(tmp_path / "words.ini"))
    for prompt in ("a nice red stool", "two chairs", "a desk of wood, from the front"):
        answer(lambda: found and understand(prompt, found))  # noqa: B023 (called at once)


@cases(150)
@given(data=st.data())
def test_saved_embeddings(priors, tmp_path, data):
    folder, captions = read_pipeline(priors[SD]), ["a chair", "a chair, front view", ""]
    about = {"captions": json.dumps(captions), "pipeline": folder.pipeline, "denoiser": embeddings.fingerprint(folder)}
    true = {"embeddings": torch.rand(3, 77, 16, generator=torch.Generator().manual_seed(0))}
    changed = data.draw(
        st.one_of(
            tensors(true).map(lambda each: tensor_bytes(each, about)),
            texts(captions).map(lambda text: tensor_bytes(true, about | {"captions": text.decode("utf-8", "replace")})),
            st.sampled_from(sorted(about)).map(lambda key: tensor_bytes(true, about | {key: "a"})),
            damaged(tensor_bytes(true, about)),
        )
    )
    (tmp_path / "text.safetensors").write_bytes(changed)

    def read() -> Tensor:
        return embeddings.read(tmp_path / "text.safetensors", folder, Card("toy", 16), CPU).embed(captions[:2])

    found = answer(read)
    assert found is None or found.shape[2] == 16


# --- evaluations -----------------------------------------------------------------------------------------------------


@cases(300)
@given(content=st.one_of(damaged("a chair\nein grünes Haus\n\n a red chair \n".encode()), st.binary(max_size=60)))
def test_files_of_prompts(tmp_path, content):
    (tmp_path / "prompts.txt").write_bytes(content)
    found = answer(lambda: read_prompts(tmp_path / "prompts.txt"))
    assert found is None or all(prompt.strip() for prompt in found)


@pytest.fixture(scope="module")
def picture(tmp_path_factory) -> bytes:
    path = tmp_path_factory.mktemp("pictures") / "evaluation.png"
    pictures, surface = torch.rand(3, 8, 128, 128, 3).mul(4).round() / 4, torch.zeros(8, 128, 128, 3)
    save_views(Views(pictures, surface, surface[..., 0]), path)
    return path.read_bytes()


def png(width: int, height: int) -> bytes:
    page = io.BytesIO()
    Image.fromarray(np.zeros((height, width, 3), np.uint8)).save(page, "PNG")
    return page.getvalue()


@cases(100)
@given(data=st.data())
def test_pictures_of_evaluations(picture, tmp_path, data):
    sizes = st.tuples(st.integers(1, 40), st.integers(1, 40)).map(lambda size: png(*size))
    (tmp_path / "evaluation.png").write_bytes(data.draw(st.one_of(damaged(picture), damaged(picture[:64]), sizes)))
    answer(lambda: read_views(tmp_path / "evaluation.png"))


FIGURES = {"object_psnr_db": 25.5, "silhouette_iou": 0.9, "normal_error_deg": 15.5}


@cases(80)
@given(content=texts({"config": {"seed": 0}, "things": {"a chair": [FIGURES, {"step": 500, **FIGURES}]}}))
def test_truths(tmp_path, content):
    (tmp_path / truth.FIGURES).write_bytes(content)
    found = answer(lambda: open_truths(tmp_path))
    if found is not None:
        json.dumps({prompt: vars(each) for prompt, each in found.reached.items()}, allow_nan=False)


@cases(80)
@given(content=texts({"seconds": 12.5, "memory_mb": 500.0}))
def test_costs(run_folder, content):
    (run_folder.media / "cost.json").write_bytes(content)
    found = answer(lambda: cost_of(run_folder.path))
    if found is not None:
        json.dumps(vars(found), allow_nan=False)


@pytest.fixture(scope="module")
def contrastive(tmp_path_factory) -> dict[str, Path]:
    """A model of each kind, of random weights."""
    place, known = tmp_path_factory.mktemp("contrastive"), ["chair", "frog", "red"]
    for kind in ("clip", "siglip"):
        save_contrastive(kind, place / kind)
    (place / "toybox").mkdir()
    (place / "toybox" / toybox.CARD).write_text(json.dumps({"name": "tiny", "words": known, "nouns": known[:2]}))
    state = {name: tensor.half().contiguous() for name, tensor in new_network(len(known), seed=0).state_dict().items()}
    (place / "toybox" / toybox.WEIGHTS).write_bytes(tensor_bytes(state))
    return {path.name: path for path in place.iterdir()}


@cases(20)
@given(data=st.data())
def test_contrastive_models(contrastive, data):
    folder = contrastive[data.draw(st.sampled_from(["clip", "siglip", *["toybox"] * 3]))]
    path = data.draw(st.sampled_from(sorted(folder.iterdir())))
    true = path.read_bytes()
    if path.suffix == ".json":
        path.write_bytes(data.draw(texts(json.loads(true))))
    else:
        path.write_bytes(data.draw(st.one_of(tensors(load_file(path)).map(tensor_bytes), damaged(true))))
    try:
        model = answer(lambda: open_contrastive(str(folder)))
        if model is not None:
            answer(lambda: model.embed_text(["a red chair"]))
            answer(lambda: model.embed_images(torch.zeros(1, 16, 16, 3)))
    finally:
        path.write_bytes(true)


@pytest.fixture(scope="module")
def judge(tmp_path_factory) -> tuple[Path, Any]:
    """A judge of random weights, and its card."""
    folder, known = tmp_path_factory.mktemp("judge"), names(nouns())[:3]
    (folder / WEIGHTS).write_bytes(tensor_bytes(JudgeNet(len(known)).half().state_dict()))
    accuracy = {"new views": {"pictures": 10, "noun": 0.5, "side": 0.5, "colour": None}}
    full = make_card(Assets(folder, nouns()[:5]), {"steps": 1, "pictures": 2, "meshes": 5}, accuracy)
    real = {"shaded": dict.fromkeys(known, 0.5)}
    return folder, full | {"nouns": known, "with front": known[:1], "real meshes": real}


@cases(25)
@given(data=st.data())
def test_cards_of_judges(judge, data):
    folder, card = judge
    (folder / CARD).write_bytes(data.draw(texts(card)))
    answer(lambda: (open_judge(folder=folder), summary.describe(folder)))
