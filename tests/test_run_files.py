"""What a run says of itself twice, and what another version wrote: nothing is ignored, and nothing guessed."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from dreamfusion import checkpoint, generate
from dreamfusion.cli import main as cli
from dreamfusion.cli.arguments import read_generate
from dreamfusion.config import Config, MemoryConfig
from dreamfusion.config.serialise import to_json
from dreamfusion.errors import UserError
from dreamfusion.loop import start
from dreamfusion.runs import RunFolder
from dreamfusion.version import VERSION

CPU = torch.device("cpu")


@pytest.fixture
def run(tiny_config, tmp_path) -> Path:
    """A run that was saved, without a prior."""
    config = replace(tiny_config, version=VERSION)
    saved = start(config, CPU)
    saved.step = 3
    folder = RunFolder.create(tmp_path / "run", to_json(config))
    checkpoint.save(saved, folder.checkpoint)
    return folder.path


def edit(path: Path, where: str, value: Any) -> None:
    """Put a value at a dotted place of a JSON file."""
    content = json.loads(path.read_text())
    part = content
    *outer, last = where.split(".")
    for name in outer:
        part = part[name]
    part[last] = value
    path.write_text(json.dumps(content))


# --- two truths ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("steps", 40), ("prior", "/elsewhere"), ("device", "cpu"), ("threads", 2), ("checkpoint_steps", 9),
        ("preview_seconds", 2.5), ("output.frames", 7), ("output.texture_size", 128), ("output.samples", 33),
        ("memory.embeddings", "/elsewhere.safetensors"),
    ],
)  # fmt: skip
def test_edits_of_what_may_change_are_obeyed(run, field, value):
    edit(run / "config.json", field, value)
    opened = generate.open_run(run, "cpu")[1]
    found: Any = opened.config
    for name in field.split("."):
        found = getattr(found, name)
    assert found == value
    assert opened.step == 3
    if field == "output.samples":
        assert opened.recipe.eval_render.samples == 33  # also by the parts that were made of it


@pytest.mark.parametrize(
    ("field", "value", "old"),
    [
        ("seed", 1, "0"), ("prompt", "a cube", "a ball"), ("prior_sha256", "0a", ""), ("views", 4, "2"),
        ("distill.guidance_scale", 7.5, "1.0"), ("scene.occupancy.margin", 2, "1"), ("memory.size", 8, "0"),
        ("camera.distance", [2.0, 3.0], r"\[3.0, 3.0\]"), ("half", True, "False"),
        ("scene.background", {"kind": "SolidBackground", "colour": [0.0, 0.0, 0.0]}, "{'kind'"),
    ],
)  # fmt: skip
def test_other_edits_are_refused_by_name(run, field, value, old):
    edit(run / "config.json", field, value)
    with pytest.raises(
        UserError, match=rf"^{field} is .*in config\.json, but the run was made with {old}.*generate --config"
    ):
        generate.open_run(run, "cpu")


def test_edits_that_no_run_could_have_are_refused(run):
    edit(run / "config.json", "output.frames", 0)
    with pytest.raises(UserError, match=r"--output\.frames must be at least 2"):
        generate.open_run(run, "cpu")
    edit(run / "config.json", "output.frames", 3)
    edit(run / "config.json", "steps", 2)
    with pytest.raises(UserError, match="has already done 3 steps"):
        generate.resume_run(run, "cpu")


def test_a_configuration_of_a_run_is_not_copied_into_another(run, tiny_config, tmp_path):
    """The large record counts but for the place of its file."""
    told = replace(tiny_config, memory=MemoryConfig(embeddings="/a", vae_slicing=True))
    with pytest.raises(UserError, match=r"memory\.vae_slicing is True"):
        checkpoint.agreed(told, tiny_config)


# --- newer files -----------------------------------------------------------------------------------------------------


def test_a_newer_configuration_names_its_version(run, capsys):
    """By whichever way it comes: as --config, or in the folder of a run."""
    path = run / "config.json"
    for field, value in (("colour_of_fog", 3), ("scene.fog", 1), ("preset", 3), ("scene.field.kind", "HashField")):
        before = path.read_bytes()
        edit(path, field, value)
        edit(path, "version", "9.1.0")
        said = (
            rf"config\.json was written by dreamfusion 9\.1\.0, and this is {VERSION}.*{field.split('.')[0]}.*use that"
        )
        for read in (lambda: read_generate(["--config", str(path)]), lambda: generate.open_run(run, "cpu")):
            with pytest.raises(UserError, match=said):
                read()
        path.write_bytes(before)
    edit(path, "colour_of_fog", 3)
    with pytest.raises(UserError, match="unknown setting colour_of_fog: remove it, or check its spelling"):
        generate.config_of(run)
    with pytest.raises(SystemExit):
        cli.main(["resume", str(run)])
    assert "unknown setting colour_of_fog" in capsys.readouterr().err


def test_a_newer_checkpoint_names_its_version(run):
    head = run / "checkpoint" / "checkpoint.json"
    before = head.read_bytes()
    edit(head, "config.fog", 1)
    edit(head, "config.version", "9.1.0")
    with pytest.raises(UserError, match=r"checkpoint\.json was written by dreamfusion 9\.1\.0"):
        generate.open_run(run, "cpu")
    head.write_text(json.dumps({"format": 9, "config": {"version": "9.1.0"}, "state": "elsewhere"}))
    with pytest.raises(UserError, match=r"dreamfusion 9\.1\.0 in format 9, .*use that version"):
        generate.open_run(run, "cpu")
    head.write_text(json.dumps({"format": 9}))
    with pytest.raises(UserError, match="another version of dreamfusion in format 9"):
        generate.open_run(run, "cpu")
    head.write_bytes(before)
    generate.open_run(run, "cpu")


# --- marks -----------------------------------------------------------------------------------------------------------


def test_settings_with_a_byte_order_mark_are_read(run):
    plain = run / "config.json"
    marked = plain.with_name("marked.json")
    marked.write_bytes(b"\xef\xbb\xbf" + plain.read_bytes().replace(b"\n", b"\r\n"))
    given = [read_generate(["--config", str(path)]).settings for path in (plain, marked)]
    assert given[0] == given[1]
    assert isinstance(given[0], Config)
