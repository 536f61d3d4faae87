"""The scripts of `examples/` and README's Python, at sizes of seconds."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import dreamfusion
from dreamfusion import checkpoint
from dreamfusion.config.serialise import to_json
from dreamfusion.loop import start
from dreamfusion.mesh import MeshOptions, TextureOptions, make_mesh
from dreamfusion.runs import RunFolder
from examples import judge_and_export, make_object, own_field, own_law, own_prior

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def tiny(tiny_config, tiny_prior, monkeypatch):
    """The presets are small, their prior and their meshes too."""
    config = replace(tiny_config, prior=str(tiny_prior), steps=2, output=replace(tiny_config.output, samples=8))
    small = MeshOptions(12, 16, faces=100, texture=TextureOptions(64))
    monkeypatch.setattr("dreamfusion.config.presets.preset", lambda name: config)
    monkeypatch.setattr("dreamfusion.mesh.make_mesh", lambda scene, look, options=None: make_mesh(scene, look, small))
    return config


def test_make_object(tmp_path, capsys):
    make_object.main(["a red chair", str(tmp_path / "chair.glb"), "--steps", "1", "--resolution", "16"])
    assert (tmp_path / "chair.glb").read_bytes()[:4] == b"glTF"
    assert "triangles" in capsys.readouterr().out


@pytest.mark.parametrize(("law", "logged"), [("clipped", False), ("baseline", True)])
def test_own_law(law, logged, capsys):
    own_law.main(["--law", law, "--steps", "2"])
    assert ("'baseline'" in capsys.readouterr().out) == logged


def test_own_field_and_regulariser(tmp_path, capsys):
    own_field.main(["--folder", str(tmp_path), "--steps", "4"])
    assert re.findall(r"^\d", capsys.readouterr().out, re.MULTILINE) == ["1", "2", "3", "4"]
    assert (tmp_path / checkpoint.HEAD).exists()


def test_own_prior(tmp_path):
    own_prior.main(["--out", str(tmp_path / "disc"), "--steps", "2"])
    folder = RunFolder(tmp_path / "disc")
    assert folder.read_config()["custom"] == ["prior"]
    assert len(folder.read_metrics()) == 2


def test_judge_and_export(tiny, tmp_path, capsys):
    config = replace(tiny, prompt="a red chair")
    folder = RunFolder.create(tmp_path / "run", to_json(config))
    checkpoint.save(start(config, torch.device("cpu")), folder.checkpoint)
    judge_and_export.main([str(folder.path), "--resolution", "16", "--formats", "glb"])
    assert (folder.path / "judged.glb").exists()
    assert "textureless:" in capsys.readouterr().out


def test_readme_s_python_runs(tmp_path, monkeypatch):
    (block,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.DOTALL)
    monkeypatch.chdir(tmp_path)
    exec(block, {})
    assert (tmp_path / "chair.glb").exists()


def test_every_example_is_short_and_in_the_list_of_readme():
    scripts = sorted(path for path in (ROOT / "examples").glob("*.py"))
    assert len(scripts) == 5
    readme = (ROOT / "README.md").read_text("utf-8")
    for path in scripts:
        assert f"examples/{path.name}" in readme
        assert len(path.read_text("utf-8").splitlines()) <= 80


def test_names_of_the_package_are_those_that_checkers_of_types_see():
    source = Path(dreamfusion.__file__).read_text("utf-8")
    typed = set(re.findall(r"^    from (dreamfusion\.\S+) import (\w+) as \2$", source, re.MULTILINE))
    lazy = {(f"dreamfusion.{home}", name) for name, home in dreamfusion._HOME_OF.items()}
    assert typed == lazy
    assert Path(dreamfusion.__file__).with_name("py.typed").exists()
    for home, name in lazy:
        assert getattr(dreamfusion, name) is not None, home
        assert not (Path(dreamfusion.__file__).with_name(f"{name}.py")).exists(), f"{name} is a module too"
    assert callable(dreamfusion.optimise)
    assert callable(dreamfusion.render)
    with pytest.raises(AttributeError, match="nonsense"):
        dreamfusion.nonsense  # noqa: B018
