"""Scenes from sentences: thirty are understood as expected, laid out with simple solids, and are then as they say."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from manifold3d import Manifold

from dreamfusion import compose
from dreamfusion.batch.folder import Item
from dreamfusion.cli import main as cli
from dreamfusion.config.presets import preset
from dreamfusion.config.serialise import to_json
from dreamfusion.diffusion.priors import PriorOptions, open_prompt_encoder
from dreamfusion.diffusion.priors.protocol import WordListedEncoder
from dreamfusion.diffusion.priors.vocabulary import understood
from dreamfusion.errors import UserError
from dreamfusion.mesh import Mesh, glb_bytes
from dreamfusion.mesh.extract import mesh_of
from dreamfusion.runs import RunFolder, folder_name
from dreamfusion.scenes import make
from dreamfusion.scenes.bodies import Placed, overlap, solid_of
from dreamfusion.scenes.check import check, holds
from dreamfusion.scenes.grammar import Relation, Sentence, Thing, parse
from dreamfusion.scenes.layout import layout
from dreamfusion.scenes.sizes import size_of, table
from dreamfusion.words import Understood

SENTENCES = json.loads(Path(__file__).with_name("scene_sentences.json").read_text(encoding="utf-8"))
PRIOR = open_prompt_encoder("embedded", PriorOptions(device=torch.device("cpu")))
assert isinstance(PRIOR, WordListedEncoder)


def read(text: str) -> Sentence:
    return parse(text, lambda prompt: understood(PRIOR, prompt), PRIOR.words)


def any_words(text: str) -> Sentence:
    """As a prior without a word list has it read."""
    return parse(text, Understood)


def box(size: tuple[float, float, float], low: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> Manifold:
    """With its lowest corner, but for x and z, where its middle is."""
    return Manifold.cube(size).translate((low[0] - size[0] / 2, low[1], low[2] - size[2] / 2))


def on_legs(width: float, height: float, depth: float) -> Manifold:
    legs = [
        box((0.06, height, 0.06), (x * (width - 0.06), 0, z * (depth - 0.06))) for x in (-0.5, 0.5) for z in (-0.5, 0.5)
    ]
    return sum(legs, box((width, 0.05, depth), (0, height - 0.05, 0)))


def bowl(width: float, height: float) -> Manifold:
    outer = Manifold.cylinder(height, width / 3, width / 2, 24).rotate((-90, 0, 0))
    return outer - Manifold.cylinder(height, width / 3.6, width / 2.2, 24).rotate((-90, 0, 0)).translate(
        (0, 0.1 * height, 0)
    )


def ball(width: float, height: float) -> Manifold:
    return Manifold.sphere(0.5, 20).scale((width, height, width)).translate((0, height / 2, 0))


SHAPES = {
    "table": on_legs(1.0, 0.6, 0.7),
    "desk": on_legs(1.0, 0.55, 0.5),
    "bench": on_legs(1.0, 0.35, 0.3),
    "chair": on_legs(0.5, 0.5, 0.5) + box((0.5, 0.5, 0.05), (0, 0.5, -0.225)),
    "sofa": box((1, 0.2, 0.45)) + box((1, 0.45, 0.1), (0, 0, -0.175)),
    "bowl": bowl(1.0, 0.45),
    "bucket": bowl(0.9, 1.0),
    "tree": box((0.1, 0.5, 0.1)) + ball(0.8, 0.6).translate((0, 0.4, 0)),
    "horse": on_legs(0.9, 0.6, 0.25) + box((0.2, 0.4, 0.2), (0.4, 0.6, 0)),
    "apple": ball(1.0, 0.95),
    "lemon": ball(0.8, 1.0),
    "onion": ball(0.9, 1.0),
    "plate": box((1, 0.06, 1)),
    "book": box((0.75, 0.15, 1)),
    "pizza": box((1, 0.05, 1)),
    "cake": box((1, 0.6, 1)),
    "bed": box((0.8, 0.3, 1)),
    "fish": box((0.25, 0.45, 1.0)),
}


def solid(thing: Thing) -> Manifold:
    size = size_of(thing.caption, {})
    assert size is not None
    shape = SHAPES.get(thing.caption.split()[-1], box((0.5, 1, 0.4)))
    return shape.scale((size * thing.scale,) * 3)


def built(sentence: Sentence) -> tuple[Placed, ...]:
    return layout(sentence, [solid(thing) for thing in sentence.things])[0]


@pytest.mark.parametrize("expected", SENTENCES, ids=[each["text"] for each in SENTENCES])
def test_a_sentence_is_understood(expected: dict) -> None:
    found = read(expected["text"])
    assert [[thing.caption, thing.count] for thing in found.things] == expected["things"]
    assert [[each.place, each.thing, each.other] for each in found.relations] == expected["relations"]
    plain = any_words(expected["text"])
    assert plain.relations == found.relations
    assert [thing.count for thing in plain.things] == [thing.count for thing in found.things]


@pytest.mark.parametrize("expected", SENTENCES, ids=[each["text"] for each in SENTENCES])
def test_a_scene_of_simple_solids_is_as_its_sentence_says(expected: dict) -> None:
    sentence = read(expected["text"])
    placed = built(sentence)
    assert len(placed) == sum(thing.count for thing in sentence.things)
    verdict = check(sentence, placed)
    assert all(verdict.right)
    assert verdict.floating == ()
    assert verdict.intersecting == ()


def test_thirty_sentences_are_kept() -> None:
    assert len(SENTENCES) == 30
    places = {relation[0] for each in SENTENCES for relation in each["relations"]}
    assert places == {"on", "under", "in", "beside", "left", "right", "front", "behind", "around"}


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("a dog chasing a cat", "chasing"),
        ("a cat between a dog and a cow", "between"),
        ("on a table", "on"),
        ("a frog on", "the end"),
        ("a frog on beside a table", "beside"),
        ("", "the end"),
        ("a cat beside it", "it"),
        ("three", "three"),
    ],
)
def test_what_is_not_understood_is_named(text: str, where: str) -> None:
    for reading in (read, any_words):
        with pytest.raises(UserError, match=f"not understood at '{where}'.*place words are"):
            reading(text)
    with pytest.raises(UserError, match="at most 12"):
        read("40 cats on a table")


def test_the_prior_refuses_what_it_does_not_know_and_its_notes_are_told() -> None:
    with pytest.raises(UserError, match="does not know 'umbrella'"):
        read("a cat under an umbrella")
    assert any_words("a cat under an umbrella").things[1].caption == "an umbrella"
    assert "couch: sofa" in read("a cat on a couch").notes
    assert read("a corn on the cob on a plate").things[0].caption == "a corn"
    assert "several apples: 4" in read("several apples on a plate").notes
    assert read("a penguin and a snowman").notes == (
        "snowman: nothing is said of where it is, so it stands beside the rest",
    )


def test_names_in_the_plural_are_made_single_without_a_word_list_too() -> None:
    many = any_words("two boxes, three berries and five glass buses on dishes")
    assert [(thing.caption, thing.count) for thing in many.things] == [
        ("a box", 2), ("a berry", 3), ("a glass bus", 5), ("a dish", 3),
    ]  # fmt: skip
    assert any_words("glass on a cactus").things[0] == Thing("a glass")


def test_it_is_what_was_named_before() -> None:
    frog, cat = Relation("beside", 1, 0), read("a frog and a cat beside it")
    assert cat.relations == (frog,)
    assert read("a frog on a stool and a cat beside it").relations[1] == Relation("beside", 2, 1)
    assert read("a bowl on a table with an apple in it").relations[1] == Relation("in", 2, 0)
    assert read("a frog on a stool and a cat beside the frog").relations[1] == Relation("beside", 2, 0)


def test_words_of_size_change_the_size_alone() -> None:
    small, big = read("a small dog beside a big dog").things
    assert small.caption == big.caption == "a dog"
    assert small.scale < 1 < big.scale


def test_every_noun_of_the_prior_has_a_size_and_own_ones_come_first() -> None:
    assert set(PRIOR.words.lines["nouns"]) <= set(table())
    assert size_of("a red pine tree", {}) == table()["pine tree"]
    assert size_of("a red pine tree", {"tree": 3.0}) == table()["pine tree"]
    assert size_of("a red pine tree", {"pine tree": 3.0}) == 3
    assert size_of("a gizmo", {}) is None


def scene(*placed: Placed) -> tuple[Placed, ...]:
    return placed


CUBE = Placed(0, box((1, 1, 1)))
OTHER = Placed(1, box((1, 1, 1)))


@pytest.mark.parametrize(
    ("place", "right", "wrong"),
    [
        ("on", (0.2, 1, 0), [(0.2, 1.2, 0), (0.7, 1, 0), (1.5, 0, 0)]),
        ("left", (-1.5, 0, 0.3), [(1.5, 0, 0), (-1.2, 0, 1.4), (-0.5, 0, 0)]),
        ("right", (1.5, 0, 0.3), [(-1.5, 0, 0)]),
        ("front", (0.3, 0, 1.5), [(0, 0, -1.5), (1.5, 0, 0)]),
        ("behind", (0.3, 0, -1.5), [(0, 0, 1.5)]),
        ("beside", (0.3, 0, -1.5), [(0.3, 0, -4), (0, 1, 0)]),
        ("under", (0, -1.1, 0), [(0, 1.1, 0), (0.8, -1.1, 0)]),
    ],
)
def test_places_of_two_boxes(place: str, right: tuple, wrong: list) -> None:
    relation = Relation(place, 0, 1)  # type: ignore[arg-type]
    assert holds(relation, scene(CUBE.moved(*map(float, right)), OTHER))
    for each in wrong:
        assert not holds(relation, scene(CUBE.moved(*map(float, each)), OTHER))


def test_in_is_below_the_rim_and_around_is_on_all_sides() -> None:
    tub = Placed(1, bowl(1.0, 0.5))
    stone = Placed(0, box((0.2, 0.2, 0.2)))
    assert holds(Relation("in", 0, 1), scene(stone.moved(0.0, 0.06, 0.0), tub))
    assert not holds(Relation("in", 0, 1), scene(stone.moved(0.0, 0.5, 0.0), tub))
    assert not holds(Relation("in", 0, 1), scene(stone.moved(0.8, 0.0, 0.0), tub))
    ring = [stone.moved(x, 0.0, z) for x, z in ((1.0, 0.0), (-0.5, 0.9), (-0.5, -0.9))]
    assert holds(Relation("around", 0, 1), scene(*ring, tub))
    assert not holds(Relation("around", 0, 1), scene(*ring[:2], tub))


def test_what_floats_and_what_intersects_is_found() -> None:
    sentence = any_words("a cube beside a cube")
    fine = check(sentence, scene(CUBE.moved(1.2, 0.0, 0.0), OTHER))
    assert (fine.floating, fine.intersecting, fine.deepest) == ((), (), 0)
    bad = check(sentence, scene(CUBE.moved(0.9, 0.0, 0.0), OTHER))
    assert bad.intersecting == ((0, 1),)
    assert bad.deepest == pytest.approx(0.1, abs=1e-3)
    assert check(sentence, scene(CUBE.moved(1.2, 0.1, 0.0), OTHER)).floating == (0,)


def test_things_that_do_not_fit_are_made_smaller_and_it_is_said() -> None:
    sentence = any_words("a ball in a bowl")
    placed, notes = layout(sentence, [ball(1.4, 1.4), bowl(1.0, 0.5)])
    assert placed[1].scale < 1
    assert any("to fit in a bowl" in note for note in notes)
    assert check(sentence, placed).right == (True,)
    solid_box, told = layout(sentence, [ball(0.3, 0.3), box((1, 1, 1))])
    assert any("no room for a ball in a bowl" in note for note in told)
    assert check(sentence, solid_box).right == (False,)
    assert check(sentence, solid_box).floating == ()


def test_what_carries_itself_is_refused() -> None:
    with pytest.raises(UserError, match="in itself"):
        built(replace(read("a cup on a book"), relations=(Relation("on", 0, 1), Relation("on", 1, 0))))


def test_chairs_around_a_table_look_at_it() -> None:
    placed = built(read("four chairs around a table"))
    chairs = [each for each in placed if each.thing == 0]
    for chair in chairs:
        front = np.array([np.sin(np.radians(chair.turn_deg)), np.cos(np.radians(chair.turn_deg))])
        to_table = -np.array([chair.position[0], chair.position[2]])
        assert front @ to_table / np.linalg.norm(to_table) == pytest.approx(1)


def test_a_body_is_read_from_a_file_with_its_seams_closed(tmp_path: Path) -> None:
    form = mesh_of(SHAPES["table"].scale((3, 3, 3)))
    uv = np.random.default_rng(0).random((len(form.faces), 3, 2), dtype=np.float32)
    picture = np.zeros((8, 8, 3), np.uint8)
    path = tmp_path / "mesh.glb"
    path.write_bytes(glb_bytes(Mesh(form.vertices, form.faces, uv=uv, texture=picture), {}))
    found = solid_of(path)
    assert found.volume() == pytest.approx(SHAPES["table"].volume(), rel=1e-3)
    assert found.bounding_box()[1] == pytest.approx(0, abs=1e-6)
    assert overlap(found, SHAPES["table"]) == pytest.approx(SHAPES["table"].volume(), rel=1e-2)
    (tmp_path / "no.glb").write_bytes(b"no")
    with pytest.raises(UserError, match="cannot be read"):
        solid_of(tmp_path / "no.glb")


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Finished runs of a frog and of a table."""
    for prompt in ("a frog", "a table"):
        folder = RunFolder.create(
            tmp_path / "runs" / folder_name(prompt, 0), to_json(replace(preset("fast"), prompt=prompt))
        )
        form = mesh_of(SHAPES.get(prompt[2:], box((1, 0.7, 0.8))))
        folder.mesh.write_bytes(glb_bytes(form, {"prompt": prompt}))
    return tmp_path / "runs"


def test_the_command_uses_finished_runs_and_compose_takes_its_file(runs: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "scene"
    given = ["scene", "two toads on a table", "--out", str(out), "--runs", str(runs), "--size", "frog=0.2"]
    assert cli.run([*given, "--plan"]) == 0
    told = capsys.readouterr().out
    assert "2 x a frog, 0.2 m" in told
    assert "toad: frog" in told
    assert not out.exists()
    assert cli.run(given) == 0
    assert "a frog - on - a table: yes" in capsys.readouterr().out
    composition = compose.read(out / "scene.json")
    assert [asset.name for asset in composition.assets] == ["a table", "a frog", "a frog"]
    assert composition.title == "two toads on a table"
    assert (out / "index.html").read_text(encoding="utf-8").count("a frog") >= 2
    again = compose.write(composition, tmp_path / "again")
    assert again[0].read_bytes() == (out / "scene.glb").read_bytes()
    # What the file says is where the layout had them: the frogs stand on the table and touch nothing else.
    placed = trimesh.load_scene(out / "scene.glb").dump()
    tops = sorted((float(part.bounds[0][1]), float(part.bounds[1][1])) for part in placed)
    assert tops[1][0] == pytest.approx(tops[0][1], abs=0.004)
    assert tops[2][0] == pytest.approx(tops[0][1], abs=0.004)


def test_a_scene_that_was_interrupted_goes_on(runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = ["scene", "a frog on a table", "--runs", str(runs), "--out", str(tmp_path / "out")]

    def interrupted(*_: object) -> str:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(compose, "render_page", interrupted)
        with pytest.raises(KeyboardInterrupt):
            cli.run(given)
    assert cli.run(given) == 0
    assert {"scene.json", "scene.glb", "index.html"} <= {path.name for path in (tmp_path / "out").iterdir()}


def test_a_body_that_may_not_be_read_is_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def closed(*_: object) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", closed)
    with pytest.raises(PermissionError):
        solid_of(tmp_path / "mesh.glb")


def test_a_scene_that_is_there_and_another_run_are_not_written_over(runs: Path, tmp_path: Path) -> None:
    given = ["scene", "a frog on a table", "--out", str(tmp_path / "out"), "--runs", str(runs)]
    assert cli.run(given) == 0
    with pytest.raises(UserError, match=r"scene.json is there: show it with `dreamfusion compose"):
        cli.run(given)
    config = json.loads((runs / "a-frog-0" / "config.json").read_text())
    (runs / "a-frog-0" / "config.json").write_text(json.dumps(config | {"prompt": "a cat"}))
    with pytest.raises(UserError, match="holds 'a cat'"):
        cli.run(["scene", "a frog on a table", "--out", str(tmp_path / "new"), "--runs", str(runs)])
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("more", "wrong"),
    [
        (["--size", "frog"], "--size takes NAME=METRES"),
        (["--size", "frog=-1"], "--size takes NAME=METRES"),
        (["--set", "seeds=0-3"], "one seed"),
        (["--set", f"seed={'9' * 5000}"], "seeds must be whole numbers"),
        (["--set", "stepz=3"], "no setting 'stepz'"),
    ],
)
def test_mistakes_are_named_before_anything_is_made(more: list[str], wrong: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=wrong):
        cli.run(["scene", "a frog on a table", "--out", str(tmp_path / "out"), *more])
    assert not (tmp_path / "out").exists()


def test_the_things_that_are_missing_are_made_as_a_batch_makes_its_own(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = list[Item]()

    def pretended(items: list[Item], *_: object) -> dict[Path, str]:
        asked.extend(items)
        for item in items:
            RunFolder.create(item.folder, to_json(item.config)).mesh.write_bytes(glb_bytes(mesh_of(box((1, 1, 1))), {}))
        return {}

    monkeypatch.setattr(make, "make_here", pretended)
    given = ["scene", "a lamp and a frog on a table", "--out", str(tmp_path / "out"), "--runs", str(runs)]
    assert cli.run([*given, "--set", "steps=7"]) == 0
    assert [(item.config.prompt, item.config.steps) for item in asked] == [("a lamp", 7)]
    monkeypatch.setattr(make, "make_here", lambda items, *_: {items[0].folder: "fog"})
    with pytest.raises(UserError, match="a-crown-0: fog"):
        cli.run(["scene", "a crown on a table", "--out", str(tmp_path / "bad"), "--runs", str(runs)])
