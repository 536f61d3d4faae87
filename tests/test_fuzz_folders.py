"""What stands in folders of runs, batches and the studio is input too, as `test_fuzz_files` has it."""

import json
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dreamfusion.batch.folder import BatchFolder
from dreamfusion.batch.manifest import Manifest
from dreamfusion.batch.new_manifest import Count, manifest_lines, write_manifest
from dreamfusion.batch.report import standing
from dreamfusion.batch.resolve import Resolver
from dreamfusion.batch.rows import read_rows
from dreamfusion.batch.state import State, States
from dreamfusion.claims import InUse, owned
from dreamfusion.config import Config
from dreamfusion.config.serialise import to_json
from dreamfusion.facts import facts_of
from dreamfusion.health import Memory, found_in, in_words
from dreamfusion.loop import Run, start
from dreamfusion.runs import LOCK, RunFolder
from dreamfusion.studio import scan
from dreamfusion.studio.batches import Followed
from dreamfusion.studio.index import SORTS, Index
from dreamfusion.studio.task import State as Standing
from dreamfusion.studio.task import Task
from dreamfusion.viewer import Page, render_page
from fuzzing import JUNK, answer, cases, damaged, mutated, texts

# --- runs ------------------------------------------------------------------------------------------------------------

SOLID = {
    "height_mm": 100.0, "material": "pla", "stands": True, "tip_angle_deg": 12.5, "margin_mm": 3.0,
    "poses": [{"chance": 0.5, "lean_deg": 0.0}], "pieces": 1, "volume_cm3": 40.0, "weight_g": 50.0,
    "thinnest_mm": 2.0, "overhang_cm2": 1.0,
}  # fmt: skip
REPORT = {"level": 10.0, "faces": 100, "solid": SOLID, "before": None, "changed": 0.0}
CANDIDATES = {"scorer": "an error", "chosen": 1, "candidates": [{"seed": 1, "error": 0.5, "findings": ["fog"]}]}
VITALS = dict.fromkeys(("soft", "border", "coloured", "light", "chroma", "neon", "pull", "thickness"), 0.1)
LINE = {"step": 1, "losses": {"distillation": 1.5}, "opacity": 0.5, "vitals": VITALS, "healed": 1}


@pytest.fixture
def run_folder(tmp_path: Path) -> RunFolder:
    return RunFolder.create(tmp_path / "run", {})


@pytest.fixture
def run(tiny_config) -> Run:
    return start(tiny_config, torch.device("cpu"))


def page(facts: Mapping[str, object]) -> str:
    return render_page(Page("a chair", facts, b""))


@cases(80)
@given(content=texts(REPORT))
def test_reports_of_meshes(run, run_folder, content):
    run_folder.mesh_report.write_bytes(content)
    answer(lambda: page(facts_of(run, run_folder)))


@cases(50)
@given(content=texts(CANDIDATES))
def test_records_of_candidates(run, run_folder, content):
    run_folder.candidates.write_bytes(content)
    answer(lambda: page(facts_of(run, run_folder)))


@cases(80)
@given(record=mutated(LINE | {"findings": {"fog": 0.7, "empty": 0.0}}, JUNK))
def test_what_runs_are_judged_by(run_folder, record):
    """A damaged line says nothing, and those around it are judged as if it were not there."""
    seldom = {name: value for name, value in VITALS.items() if name != "thickness"}
    sound = [LINE | {"step": step, "vitals": VITALS if step < 20 else seldom} for step in range(1, 31)]
    lines = [json.dumps(each) for each in (*sound[:20], record, *sound[20:])]
    run_folder.metrics.write_text("".join(f"{line}\n" for line in lines))
    records = answer(run_folder.read_metrics)
    if records is not None:
        found = Memory("fast", records[:-1]).judged(records[-1], 0.9)
        assert in_words((*found, *found_in(records[20]))).isprintable()


# --- the studio ------------------------------------------------------------------------------------------------------

TASK = {
    "state": "FAILED", "owner": "", "made": 1.5, "created": 1.5, "queued": 0.0, "started": 2.5, "finished": 3.5,
    "error": "the disk is full", "attempts": 1, "refining": False,
    "config": {"prompt": "a chair", "negative": "", "seed": 0, "preset": "fast", "prior": "embedded", "steps": 100},
}  # fmt: skip
FILES: dict[str, Any] = {scan.NOTE: TASK, "config.json": TASK["config"], "metrics.jsonl": LINE}


@pytest.fixture
def index(tmp_path: Path):
    made = Index(tmp_path / "index.sqlite")
    yield made
    made.close()


@cases(120)
@given(data=st.data(), name=st.sampled_from([*FILES, "scene.json"]))
def test_folders_that_the_studio_finds(tmp_path, index, data, name):
    folder = tmp_path / "runs" / "a"
    folder.mkdir(parents=True, exist_ok=True)
    for file in folder.iterdir():
        file.unlink()
    for other, content in FILES.items():
        if (name, other) != ("scene.json", "config.json"):
            (folder / other).write_text(json.dumps(content) + "\n")
    if name == "scene.json":
        (folder / "scene.glb").touch()
    (folder / name).write_bytes(data.draw(texts(FILES.get(name, {"title": "lunch"}))) + b"\n")
    scan.noted(folder)
    task = scan.read(tmp_path / "runs", "a")
    if task is not None:
        index.put([task])
        for sort in SORTS:
            assert [each.id for each in index.search("", [task.state], sort, 0, 1).tasks] == [task.id]
        json.dumps(task.public(), allow_nan=False)


@cases(30)
@given(data=st.data())
def test_indices_of_the_studio(whole_index, tmp_path, data):
    """A damaged index is made again; one that opens can be asked."""
    path, content = tmp_path / "index.sqlite", data.draw(damaged(whole_index))
    for old in tmp_path.iterdir():
        old.unlink()
    path.write_bytes(content)
    with closing(Index(path)) as index:
        index.put([Task("new", "new", prompt="a chair")])
        assert "new" in [task.id for sort in SORTS for task in index.search("chair", list(Standing), sort, 0, 99).tasks]
        index.known(), index.served(), index.last_events(9)


@pytest.fixture(scope="module")
def whole_index(tmp_path_factory) -> bytes:
    path = tmp_path_factory.mktemp("index") / "index.sqlite"
    with closing(Index(path)) as index:
        index.put([Task(f"{number}", f"run-{number}", prompt="a chair") for number in range(9)])
        index.tell("task", "{}")
    return path.read_bytes()


# --- batches ---------------------------------------------------------------------------------------------------------

ITEM = {
    "id": "0123456789abcdef", "line": 1, "prompt": "a chair", "negative": "", "seed": 0,
    "understood": [["a chair", "a red chair"]], "settings": "0",
}  # fmt: skip


@cases(150)
@given(content=texts(json.loads(json.dumps(vars(State("running", 1, host="here", error="x"))))))
def test_states_of_batches(tmp_path, content):
    states, path = States(BatchFolder(tmp_path)), BatchFolder(tmp_path).state("ab")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    assert states.age("ab") >= 0 or states.read("ab") != State()
    states.write("ab", states.read("ab").taken().beating(3).ended("failed", "x"))
    assert states.read("ab").failures >= 1


@cases(60)
@given(data=st.data())
def test_manifests(tmp_path, index, data):
    folder = BatchFolder(tmp_path)
    lines = [{"settings": "0", "config": to_json(Config())}, ITEM]
    changed = data.draw(st.integers(0, 1))
    texts_of = [json.dumps(line).encode() for line in lines]
    texts_of[changed] = data.draw(texts(lines[changed])).replace(b"\n", b" ")
    folder.manifest.write_bytes(b"".join(text + b"\n" for text in texts_of))

    def read() -> None:
        with Manifest(folder) as manifest:
            for number in range(len(manifest)):
                assert manifest[number].folder.is_relative_to(tmp_path)

    answer(read)
    answer(lambda: list(standing(folder)))
    items = answer(lambda: [item for some in Followed(tmp_path).items() for item in some]) or []
    index.items.put("a", [(item.name, item) for item in items])
    shown = [scan.read_item(tmp_path, row.id, "a", "b", row.item) for row in index.items.search("a", [], "", 0, 9)[0]]
    json.dumps([task.public() for task in shown], allow_nan=False)


ROW = {"prompt": "a chair", "negative": "", "seed": 1, "seeds": [1, 2], "steps": 50, "distill": {"guidance_scale": 5}}
TABLE = 'prompt,seeds,guidance-scale,scene.radius\na chair,1-3,5,1.0\n"a red, chair",,,0.5\n'


@pytest.fixture(scope="module")
def resolver() -> Resolver:
    return Resolver({}, 1)


@cases(30)
@given(data=st.data(), suffix=st.sampled_from([".txt", ".csv", ".jsonl"]))
def test_lists_of_batches(resolver, tmp_path, data, suffix):
    contents = {".txt": damaged(b"a chair\n\na red chair\n"), ".csv": damaged(TABLE.encode()), ".jsonl": texts(ROW)}
    path = tmp_path / f"list{suffix}"
    path.write_bytes(data.draw(contents[suffix]))
    count, folder = Count(), BatchFolder(tmp_path)
    lines = answer(lambda: list(manifest_lines(read_rows(path), resolver, count, lambda *_: None)))
    if lines is None or not count.items:
        return
    write_manifest(iter(lines), folder, tmp_path / "part")
    with Manifest(folder) as manifest:
        assert [manifest[number].config.prior for number in range(len(manifest))] == ["embedded"] * count.items
    folder.manifest.unlink()


@cases(80)
@given(content=texts({"pid": "1", "host": "here", "since": "today"}))
def test_locks(tmp_path, content):
    with owned(tmp_path / "run"):
        (tmp_path / "run" / LOCK).write_bytes(content)
        with pytest.raises(InUse) as refused, owned(tmp_path / "run"):
            pass
        assert str(refused.value).isprintable()
