"""Batches: lists, manifests, states, attempts, handing out, with runs of nothing (`batch_runs`) in this process."""

import csv
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

import batch_runs
from batch_runs import EVERY, Counted, done_steps
from batch_simulated import Clock, Cluster
from dreamfusion.batch import drive as driving_module
from dreamfusion.batch import local
from dreamfusion.batch import worker as worker_module
from dreamfusion.batch.drive import Drive, Ending, Rules, Tally, driving
from dreamfusion.batch.folder import BatchFolder, Item
from dreamfusion.batch.manifest import Manifest
from dreamfusion.batch.new_manifest import Count, manifest_lines, write_manifest
from dreamfusion.batch.report import standing, write_report
from dreamfusion.batch.resolve import Resolver, digest_of, name_of
from dreamfusion.batch.rows import read_rows
from dreamfusion.batch.state import State, States
from dreamfusion.batch.worker import Order, Record, carry_out
from dreamfusion.claims import owned
from dreamfusion.cli import main as cli
from dreamfusion.cli.interrupt import Stop
from dreamfusion.config import Config
from dreamfusion.config.kinds import LAWS
from dreamfusion.diffusion.priors.locate import locate
from dreamfusion.errors import UserError
from dreamfusion.schedules import Ramp


def written(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


# Lists


def test_a_list_is_text_a_table_or_json_lines(tmp_path):
    text = written(tmp_path / "a.txt", "\ufeffa red chair\n\n  a frog \n")
    assert [(row.line, row.values) for row in read_rows(text)] == [
        (1, {"prompt": "a red chair"}),
        (3, {"prompt": "a frog"}),
    ]
    table = written(tmp_path / "a.csv", 'prompt, steps,seed\n"a chair, red",5,\n\na frog,,3\na,1,2,3\n')
    assert [(row.line, row.values, bool(row.wrong)) for row in read_rows(table)] == [
        (2, {"prompt": "a chair, red", "steps": "5"}, False),
        (4, {"prompt": "a frog", "seed": "3"}, False),
        (5, {"prompt": "a", "steps": "1", "seed": "2"}, True),
    ]
    lines = written(tmp_path / "a.jsonl", '{"prompt": "a frog", "seeds": [0, 1]}\n\n["a"]\n{"prompt": \n')
    assert [(row.line, row.values, bool(row.wrong)) for row in read_rows(lines)] == [
        (1, {"prompt": "a frog", "seeds": [0, 1]}, False),
        (3, {}, True),
        (4, {}, True),
    ]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.doc", "x", "no list of prompts"),
        ("a.csv", "words\na", "no column `prompt`"),
        ("a.csv", "", "no column"),
        ("a.csv", 'prompt\n"a quote that never ends\na frog\n', "unexpected end"),
    ],
)
def test_what_is_no_list_is_refused(tmp_path, name, text, message):
    with pytest.raises(UserError, match=message):
        list(read_rows(written(tmp_path / name, text)))
    with pytest.raises(UserError, match="cannot be read"):
        list(read_rows(tmp_path / "missing.txt"))


# What a row says


def only(values: dict, defaults: dict | None = None) -> Config:
    """The configuration of a row with one seed."""
    [(wish, settings)] = Resolver(defaults or {}, threads=1)({"prompt": "a red chair", **values})
    return replace(settings.config, prompt=wish.prompt, negative=wish.negative, seed=wish.seed)


def test_a_row_may_have_any_setting_by_its_whole_name_or_the_end_of_it():
    config = only({"steps": "7", "guidance-scale": 3, "output.frames": 4, "blend_views": "true", "distill": "csd"})
    assert (config.steps, config.distill.guidance_scale, config.output.frames) == (7, 3.0, 4)
    assert config.blend_views is True
    assert isinstance(config.distill.law, LAWS["csd"])
    assert only({"regularise.entropy": "0:1"}).regularise.entropy == Ramp(0.0, 1.0)
    assert only({"preset": "paper", "steps": 5}).preset == "paper"
    assert only({"steps": 5}, {"steps": "9", "size": "32"}).steps == 5
    assert only({"steps": 5}, {"steps": "9", "size": "32"}).size == 32
    assert only({}).threads == 1
    assert len(only({}).prior_sha256) == 64
    assert only({"negative": " a frog "}).negative == "a frog"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"prompt": " "}, "prompt is empty"),
        ({"prompt": 3}, "must be a text"),
        ({"prompt": "a quasar"}, "'quasar'"),
        ({"negative": "a quasar"}, "'quasar'"),
        ({"prompt": "a \udcff"}, "no text"),
        ({"prompt": "a \0"}, "without null characters"),
        ({"prompt": "a frog", "negative": "a \0"}, "without null characters"),
        ({"stepz": 3}, "did you mean steps"),
        ({"version": "3"}, "no setting 'version'"),
        ({"samples": 3}, "did you mean render.samples output.samples"),
        ({"steps": "many"}, "steps must be int"),
        ({"steps": 0}, "steps must be at least 1"),
        ({"distill": "magic"}, "distill must be sds or"),
        ({"preset": "magic"}, "preset"),
        ({"prior": "/no/such"}, "no prior"),
        ({"prior_sha256": "0" * 64}, "other weights"),
        ({"seed": -1}, "whole numbers from 0"),
        ({"seed": 1, "seeds": 2}, "both"),
        ({"seeds": "one"}, "whole numbers"),
        ({"seeds": []}, "whole numbers"),
        ({"seed": True}, "whole numbers"),
        ({"seeds": "0-9999999"}, "more than"),
        ({"seeds": "0-9999999999999999999"}, "more than"),
        ({"field": ["grid"]}, "field must be grid or mlp"),
        ({"size": "[" * 9999}, "size"),
    ],
)
def test_what_is_wrong_with_a_row_is_said(values, message):
    with pytest.raises(UserError, match=message):
        only(values)


def test_seeds_are_one_or_many():
    def seeds(value: object) -> list[int]:
        return [wish.seed for wish, _ in Resolver({"seeds": "7"}, 1)({"prompt": "a frog", "seeds": value})]

    assert seeds(3) == [3]
    assert seeds([4, 2]) == [4, 2]
    assert seeds("0-2, 9") == [0, 1, 2, 9]
    assert [wish.seed for wish, _ in Resolver({"seeds": "0-1"}, 1)({"prompt": "a frog"})] == [0, 1]


def test_an_item_is_named_by_all_that_shapes_it(tmp_path):
    def named(config: Config) -> str:
        return name_of(config.prompt, config.negative, config.seed, digest_of(config))

    copy = shutil.copytree(locate("embedded").path, tmp_path / "copy")
    one = only({})
    same = [{"prior": str(copy)}, {"device": "cpu", "threads": 2}]
    assert {named(only(values)) for values in same} == {named(one)}
    others = [only({"seed": 1}), only({"steps": 9}), replace(one, negative="a"), replace(one, prior_sha256="another")]
    assert len({named(config) for config in (one, *others)}) == 5


# Manifests


def items_of(folder: BatchFolder) -> list[Item]:
    with Manifest(folder) as manifest:
        return [manifest[number] for number in range(len(manifest))]


def listed(folder: BatchFolder, rows: Path, defaults: dict | None = None) -> tuple[Count, list[tuple[int, str]]]:
    """Write the manifest of a list, without its bad rows; returns the counts, and what was said of those."""
    count, bad = Count(), list[tuple[int, str]]()
    lines = manifest_lines(read_rows(rows), Resolver(defaults or {}, 1), count, lambda *told: bad.append(told))
    folder.path.mkdir(exist_ok=True)
    write_manifest(lines, folder, folder.path / "part")
    assert not (folder.path / "part").exists()
    return count, bad


def test_a_manifest_holds_every_item_once_and_never_changes(tmp_path):
    folder = BatchFolder(tmp_path / "out")
    rows = written(tmp_path / "a.csv", "prompt,steps,seeds\na frog,3,0-1\na quasar,,\na frog,3,1\na frog,4,0\n")
    count, bad = listed(folder, rows)
    assert (count.items, count.repeated, count.bad) == (3, 1, 1)
    assert [line for line, _ in bad] == [3]
    items = items_of(folder)
    assert [(item.config.seed, item.config.steps, item.line) for item in items] == [(0, 3, 2), (1, 3, 2), (0, 4, 5)]
    assert items[2].folder == folder.path / "runs" / items[2].name[:2] / items[2].name
    before = folder.manifest.read_bytes()
    listed(folder, rows)
    listed(folder, rows, {"device": "cpu"})  # made elsewhere, they are the same
    for text in ("prompt,steps\na frog,5\n", "prompt,steps,seeds\na frog,3,0-1\n", rows.read_text() + "a car,1,1\n"):
        with pytest.raises(UserError, match="holds another batch"):
            listed(folder, written(tmp_path / "b.csv", text))
    assert folder.manifest.read_bytes() == before


def test_a_manifest_says_what_the_prior_understood(tmp_path):
    folder = BatchFolder(tmp_path / "out")
    listed(folder, written(tmp_path / "a.txt", "a couch\na frog\n"))
    couch, frog = items_of(folder)
    assert (couch.config.prompt, couch.config.caption("a couch")) == ("a couch", "a sofa")
    assert frog.config.understood == ()
    assert couch.name == name_of("a couch", "", 0, digest_of(couch.config))


def test_a_damaged_manifest_is_told(tmp_path):
    folder = BatchFolder(tmp_path)
    with pytest.raises(UserError, match="holds no batch"):
        Manifest(folder)
    for text in ("", "[]\n", '{"id": \n', '{"id": "a", "settings": "b"}\n'):
        written(folder.manifest, text)
        with pytest.raises(UserError, match="is damaged"):
            items_of(folder)


# States


def test_failures_count_where_a_run_gets_no_farther():
    state = State()
    for step, failures in ((5, 1), (5, 2), (9, 1), (5, 2), (9, 3), (10, 1)):
        state = replace(state.taken(), step=step).ended("failed", "oh")
        assert (state.status, state.failures) == ("failed", failures)
    assert state.attempt == 6
    assert replace(state.taken(), step=10).ended("stopped").failures == 1
    assert state.taken().ended("done").failures == 0


BEYOND = ('"more": 1', '"failures": -1', '"attempt": 1e2', '"step": 9223372036854775807', '"beat": NaN')
"""what no state says"""


def test_a_state_that_cannot_be_read_is_none(tmp_path):
    states = States(BatchFolder(tmp_path))
    states.write("abcd", State("running", attempt=3))
    assert states.read("abcd") == State("running", attempt=3)
    for text in ("", "[]", *(f'{{"status": "running", {more}}}' for more in BEYOND)):
        written(tmp_path / "state" / "ab" / "abcd.json", text)
        assert states.read("abcd") == State()
    assert [path.name for path in tmp_path.rglob("*.json")] == ["abcd.json"]


# Attempts


@dataclass
class Place:
    """A batch of runs of nothing in a folder."""

    folder: BatchFolder
    log: Path
    go: Path

    def item(self, prompt: str, steps: int = 12, seed: int = 0) -> Item:
        name = name_of(prompt, "", seed, str(steps))
        return Item(name, Config(prompt=prompt, steps=steps, seed=seed), self.folder.run(name))

    def order(self, prompt: str, lease: float = 600.0) -> Order:
        return Order(self.item(prompt), self.folder.path, self.go, lease)

    def tried(self, order: Order, ended: Callable[[], bool] = lambda: False) -> Record:
        return carry_out(order, Counted(self.log).work, ended)

    def state(self, item: Item) -> State:
        return States(self.folder).read(item.name)


@pytest.fixture
def place(tmp_path) -> Place:
    (tmp_path / "go").touch()
    return Place(BatchFolder(tmp_path / "out"), tmp_path / "log", tmp_path / "go")


@pytest.mark.parametrize(
    ("prompt", "record", "status"),
    [
        ("a ball", Record("done"), "done"),
        ("empty", Record("done", "there is nothing"), "done"),
        ("refused", Record("failed", "no"), "failed"),
        ("raises", Record("failed", "ZeroDivisionError: oh", again=True), "failed"),
        ("full", Record("full", "the disk is full"), "running"),
    ],
)
def test_an_attempt_says_what_became_of_it(place, prompt, record, status):
    order = place.order(prompt)
    assert place.tried(order) == record
    state = place.state(order.item)
    assert (state.status, state.error if status != "running" else "") == (
        status,
        record.error if status != "running" else "",
    )
    assert state.attempt == 1
    assert not (order.item.folder / ".lock").exists()


def test_what_is_done_is_not_done_again(place):
    order = place.order("a ball")
    assert place.tried(order) == place.tried(order) == Record("done")
    assert done_steps(place.log) == {order.item.name: list(range(12))}
    assert place.state(order.item).attempt == 1


def test_an_attempt_ends_with_the_word_to_go_on_or_with_its_process(place, monkeypatch):
    monkeypatch.setattr(worker_module, "ASK_SECONDS", 0.0)
    order = place.order("a ball")
    assert place.tried(order, lambda: len(done_steps(place.log).get(order.item.name, [])) == 5) == Record("stopped")
    assert place.state(order.item).status == "stopped"
    place.go.unlink()
    assert place.tried(order) == Record("stopped")
    assert done_steps(place.log) == {order.item.name: list(range(5))}
    place.go.touch()
    assert place.tried(order) == Record("done")
    assert done_steps(place.log) == {order.item.name: list(range(12))}
    assert place.state(order.item).attempt == 3


def test_an_item_of_a_living_process_is_left_to_it(place):
    order = place.order("a ball")
    order.item.folder.mkdir(parents=True)
    with owned(order.item.folder):
        assert place.tried(order).outcome == "taken"
        States(place.folder).write(order.item.name, State().taken())
        assert place.tried(order).outcome == "taken"
        States(place.folder).write(order.item.name, replace(State().taken(), beat=0.0))
        assert place.tried(order).outcome == "done"  # nothing was seen of that process for longer than the lease


def test_signs_of_life_go_into_the_state_and_a_lost_item_ends_the_process(place, monkeypatch):
    monkeypatch.setattr(worker_module, "BEAT_SECONDS", 0.0)
    exits: list[int] = []
    monkeypatch.setattr(worker_module.os, "_exit", lambda code: exits.append(code))
    order, seen = place.order("a ball"), list[int]()

    def watched() -> bool:
        state = place.state(order.item)
        seen.append(state.step)
        if state.step == 7:
            States(place.folder).write(order.item.name, replace(state, attempt=9))
        return False

    monkeypatch.setattr(worker_module, "ASK_SECONDS", 0.0)
    place.tried(order, watched)
    assert seen[:8] == list(range(8))
    assert exits


def test_what_killed_writers_left_is_swept(place):
    order = place.order("a ball")
    for name in (".config.77.part.json", "media/.preview.77.part.png", "checkpoint/.part-tensors"):
        (order.item.folder / name).parent.mkdir(parents=True, exist_ok=True)
        (order.item.folder / name).touch()
    assert place.tried(order).outcome == "done"
    assert not [path for path in order.item.folder.rglob("*") if "part" in path.name]


# Handing out


@dataclass
class Here:
    """Workers in this process: an order is carried out when it is waited for, or fares as `fate` says."""

    log: Path
    fate: Callable[[Order], Ending | None] = lambda order: None
    count: int = 2
    started: list[Order] = field(default_factory=list)
    running: list[Order] = field(default_factory=list)

    @property
    def free(self) -> int:
        return self.count - len(self.running)

    def start(self, order: Order) -> None:
        self.started.append(order)
        self.running.append(order)

    def wait(self, seconds: float) -> list[Ending]:
        waiting, self.running = self.running, []
        return [self.fate(order) or Ending(order, carry_out(order, Counted(self.log).work)) for order in waiting]

    def kill(self, order: Order) -> None:
        raise AssertionError


QUICK = Rules(retries=2)


def driven(place: Place, workers: object, items: list[Item], rules: Rules = QUICK, **more) -> Tally:
    """All items handed out."""
    stopped = more.pop("stopped", lambda: False)
    with driving(place.folder, "1-of-1") as go:
        return Drive(place.folder, workers, rules, more.pop("say", lambda _: None), **more)(
            iter(items), len(items), go, stopped
        )


def test_all_is_made_and_nothing_twice(place):
    items = [place.item("a ball", seed=seed) for seed in range(5)]
    assert driven(place, Here(place.log), items) == Tally(5, made=5)
    assert driven(place, workers := Here(place.log), items) == Tally(5, there=5)
    assert not workers.started
    assert done_steps(place.log) == {item.name: list(range(12)) for item in items}


def test_what_fails_is_tried_again_until_it_is_set_aside(place):
    items = [place.item(prompt) for prompt in ("raises", "refused", "raises once", "empty")]
    said: list[str] = []
    workers = Here(place.log)
    assert driven(place, workers, items, say=said.append) == Tally(4, made=2, failed=2)
    tries = [[order.item for order in workers.started].count(item) for item in items]
    assert tries == [3, 1, 2, 1]  # what is refused would be refused again
    assert place.state(items[0]).failures == 3
    assert [place.state(item).status for item in items] == ["failed", "failed", "done", "done"]
    assert sum("to be tried again" in line for line in said) == 3
    again = Here(place.log)
    assert driven(place, again, items) == Tally(4, there=2, failed=2)
    assert [order.item for order in again.started] == [items[1]]  # which has failed once; perhaps it was mended
    assert driven(place, patient := Here(place.log), items, Rules(retries=3)) == Tally(4, there=2, failed=2)
    assert len(patient.started) == 2


def test_a_worker_that_dies_gives_its_item_back(place):
    """At most as often as the rules say without getting farther; a run that does get farther is tried on."""
    items = [place.item("a ball"), place.item("a ball", seed=1)]
    alive = Counted(place.log)

    def fate(order: Order) -> Ending | None:
        if order.item == items[1]:
            return None
        step = len(done_steps(place.log).get(order.item.name, []))
        ends = iter([False] * EVERY)
        if step < 8:
            order_ends = lambda: next(ends, True)  # noqa: E731
            carry_out(order, alive.work, order_ends)
            States(place.folder).write(order.item.name, replace(place.state(order.item), status="running"))
        else:
            States(place.folder).write(order.item.name, place.state(order.item).taken())
        return Ending(order, how="killed")

    workers = Here(place.log, fate)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(worker_module, "ASK_SECONDS", 0.0)
        assert driven(place, workers, items) == Tally(2, made=1, failed=1)
    state = place.state(items[0])
    assert (state.status, state.error, state.failures, state.step) == ("failed", "killed", 3, 8)
    assert sum(order.item == items[0] for order in workers.started) == 1 + 1 + 2
    assert driven(place, Here(place.log), items, Rules(retries=5)) == Tally(2, made=1, there=1)


def test_a_worker_that_dies_after_its_work_has_done_it(place):
    def fate(order: Order) -> Ending:
        carry_out(order, Counted(place.log).work)
        return Ending(order, how="killed")

    assert driven(place, Here(place.log, fate), [place.item("a ball")]) == Tally(1, made=1)


def test_a_full_disk_stops_all(place):
    items = [place.item("full"), *(place.item("a ball", seed=seed) for seed in range(5))]
    with pytest.raises(UserError, match=r"disk is full; 5 of 6 are left, and the same command"):
        driven(place, Here(place.log), items)
    assert list(place.folder.driver("1-of-1").parent.glob("*")) == []


def test_a_row_of_failures_is_not_the_prompts_fault(place, monkeypatch):
    monkeypatch.setattr(driving_module, "ROW", 4)
    items = [place.item("refused", seed=seed) for seed in range(20)]
    with pytest.raises(UserError, match="after 4 failures in a row, the last one: no"):
        driven(place, workers := Here(place.log), items)
    assert len(workers.started) <= 6
    dead = Here(place.log, lambda order: Ending(order, how="no memory"))  # dies before it begins
    with pytest.raises(UserError, match="no memory"):
        driven(place, dead, [place.item("a ball")])


def test_it_stops_when_it_is_asked_to(place):
    items = [place.item("a ball", seed=seed) for seed in range(5)]
    tally = driven(place, workers := Here(place.log), items, stopped=lambda: len(workers.started) >= 2)
    assert (tally.made, tally.left) == (2, 3)
    assert [place.state(item).status for item in items] == ["done"] * 2 + ["waiting"] * 3
    assert driven(place, Here(place.log), items) == Tally(5, made=3, there=2)


@dataclass
class Stuck:
    """Workers of whose orders nothing is heard until they are killed."""

    place: Place
    clock: Clock
    alive: bool = False
    running: list[Order] = field(default_factory=list)
    killed: list[Order] = field(default_factory=list)

    @property
    def free(self) -> int:
        return 1 - len(self.running)

    def start(self, order: Order) -> None:
        self.running.append(order)
        States(self.place.folder).write(order.item.name, self.place.state(order.item).taken())

    def wait(self, seconds: float) -> list[Ending]:
        self.clock.now += 10
        if self.alive:
            for order in self.running:
                state = self.place.state(order.item)
                States(self.place.folder).write(order.item.name, replace(state, beat=state.beat + 1))
        ended = [Ending(order, how="killed") for order in self.running if order in self.killed]
        self.running = [order for order in self.running if order not in self.killed]
        self.killed.clear()
        return ended

    def kill(self, order: Order) -> None:
        self.killed.append(order)


@pytest.mark.parametrize(
    ("alive", "rules", "error", "seconds"),
    [
        (False, Rules(0, lease=100.0), "nothing was seen of it for 100 s", 160),
        (True, Rules(0, lease=100.0, timeout=300.0), "it took longer than 300 s", 330),
    ],
)
def test_an_item_is_taken_from_a_worker_that_hangs_or_takes_too_long(place, alive, rules, error, seconds):
    clock = Clock()
    item = place.item("a ball")
    assert driven(place, Stuck(place, clock, alive), [item], rules, clock=clock) == Tally(1, failed=1)
    assert place.state(item).error == error
    assert clock.now <= seconds


def test_an_item_that_somebody_else_makes_is_waited_for(place):
    clock, item = Clock(), place.item("a ball")

    def fate(order: Order) -> Ending | None:
        clock.now += 1
        if clock.now < 3:
            return Ending(order, Record("taken"))
        return None

    class Waiting(Here):
        def wait(self, seconds: float) -> list[Ending]:
            clock.now += seconds
            return super().wait(seconds)

    assert driven(place, workers := Waiting(place.log, fate), [item], clock=clock) == Tally(1, made=1)
    assert len(workers.started) == 2
    assert clock.now > driving_module.TAKEN_SECONDS


def test_one_process_hands_out_a_shard_and_the_word_of_a_dead_one_is_void(place):
    with driving(place.folder, "1-of-2") as go:
        with driving(place.folder, "2-of-2") as other:
            assert go.exists()
            assert other.exists()
        with pytest.raises(UserError, match="in use"), driving(place.folder, "1-of-2"):
            pass
        dead = go.with_name("dead.go")
        dead.touch()
    dead.parent.mkdir(parents=True, exist_ok=True)
    dead.touch()
    with driving(place.folder, "1-of-2") as go:
        assert not dead.exists()
    dead.mkdir(parents=True)
    with pytest.raises(UserError, match="drivers/1-of-2 was not written"), driving(place.folder, "1-of-2"):
        pass


# A cluster that loses nodes, in seconds that pass at once (`batch_simulated`)


def test_lost_nodes_cost_little(place, monkeypatch):
    """Half of 24 nodes are lost every hour. Efficiency: the work that was needed, over the time of all nodes."""
    states: dict[str, State] = {}
    monkeypatch.setattr(States, "read", lambda self, name: states.get(name, State()))
    monkeypatch.setattr(States, "write", lambda self, name, state: states.update({name: state}))
    monkeypatch.setattr(driving_module, "saved_step", lambda path: 1 + int(cluster.done.get(path.name, 0)))
    cluster = Cluster(Clock(), states, nodes=24, each=2, lost_every=7200.0)
    items = [place.item("a ball", seed=seed) for seed in range(2000)]
    assert driven(place, cluster, items, clock=cluster.clock) == Tally(2000, made=2000)
    assert cluster.lost > 5
    assert len(items) * cluster.run_seconds / (cluster.clock.now * cluster.nodes * cluster.each) > 0.9


# Reports


def test_the_report_tells_of_every_item(tmp_path):
    folder = BatchFolder(tmp_path / "out")
    listed(folder, written(tmp_path / "a.txt", "a frog\na red chair\na blue chair\n"))
    names = [item.name for item in items_of(folder)]
    States(folder).write(names[1], replace(State().taken().ended("failed", 'it </script> died, "so"'), step=3))
    States(folder).write(names[2], State().taken().ended("done"))
    files, counts = write_report(folder)
    assert counts == {"waiting": 1, "failed": 1, "done": 1}
    table, page = (path.read_text(encoding="utf-8") for path in files)
    rows = list(csv.DictReader(table.splitlines()))
    assert [row["status"] for row in rows] == ["waiting", "failed", "done"]
    assert rows[1]["error"] == 'it </script> died, "so"'
    assert rows[1]["folder"] == f"runs/{names[1][:2]}/{names[1]}"
    told = page.split('<script id="rows" type="application/json">')[1].split("</script>")[0]
    assert [row[:4] for row in json.loads(told)] == [
        [names[0], "a frog", 0, "waiting"],
        [names[1], "a red chair", 0, "failed"],
        [names[2], "a blue chair", 0, "done"],
    ]
    assert [item["prompt"] for item in standing(folder)] == ["a frog", "a red chair", "a blue chair"]
    assert sorted(path.name for path in folder.path.iterdir()) == [
        "index.html",
        "manifest.jsonl",
        "state",
        "summary.csv",
    ]
    folder.summary.unlink()
    folder.summary.mkdir()
    with pytest.raises(UserError, match=r"summary\.csv was not written"):
        write_report(folder)


# The command


@pytest.fixture
def call(tmp_path, monkeypatch, capsys) -> Callable[..., tuple[int, str]]:
    """`dreamfusion batch` with runs of nothing, in this process; returns the exit code and what was said."""

    @contextmanager
    def here(jobs: int, work: object, devices: object) -> Iterator[Here]:
        yield Here(tmp_path / "log")

    def called(*arguments: str) -> tuple[int, str]:
        with pytest.raises(SystemExit) as exit_:
            cli.main(["batch", *map(str, arguments)])
        told = capsys.readouterr()
        return int(exit_.value.code or 0), told.err + told.out

    monkeypatch.setattr(local, "LocalWorkers", here)
    return called


def test_a_list_becomes_a_directory_and_the_same_command_goes_on(call, tmp_path):
    rows = written(tmp_path / "a.csv", "prompt,steps,seeds\na frog,,0-2\na red chair,8,\n")
    command = (rows, "--out", tmp_path / "out", "--set", "steps=5")
    code, said = call(*command, "--limit", "1")
    assert code == 0
    assert "1 done, 3 waiting" in said
    code, said = call(*command, "--shard", "2/2")
    assert code == 0
    assert "3 done, 1 waiting" in said
    code, said = call(tmp_path / "out")
    assert code == 0
    assert "4 done" in said
    assert sorted(map(len, done_steps(tmp_path / "log").values())) == [5, 5, 5, 8]
    before = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert before == ["index.html", "manifest.jsonl", "runs", "state", "summary.csv"]
    assert call(tmp_path / "out", "--report")[0] == 0


def test_a_command_that_is_stopped_saves_and_leaves_at_once(call, tmp_path, monkeypatch):
    """No report: a million states take longer to read than a scheduler waits before it kills."""

    @contextmanager
    def asked():
        stop = Stop()
        stop.set(143)
        yield stop

    command = (written(tmp_path / "a.txt", "a frog\na red chair\n"), "--out", tmp_path / "out", "--set", "steps=5")
    with monkeypatch.context() as patch:
        patch.setattr("dreamfusion.cli.batch.interruptible", asked)
        code, said = call(*command)
    assert code == 143
    assert "2 runs left" in said
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["manifest.jsonl"]
    assert call(*command)[0] == 0


def test_a_command_whose_runs_another_one_took_over_says_so(call, tmp_path, monkeypatch):
    monkeypatch.setattr("dreamfusion.cli.batch._made", lambda *_: Tally(total=2, made=1))
    code, said = call(written(tmp_path / "a.txt", "a frog\na red chair\n"), "--out", tmp_path / "out")
    assert code == 2
    assert "another process hands out these runs now; 1 were left to it" in said


def test_bad_rows_are_all_named_before_anything_starts(call, tmp_path):
    rows = written(tmp_path / "a.csv", "prompt,steps\na quasar,\na frog,0\na frog,5\n,\nan empty plate,6\n")
    code, said = call(rows, "--out", tmp_path / "out")
    assert code == 2
    assert [line.split(":")[0] for line in said.splitlines() if line.startswith("line")] == [
        "line 2",
        "line 3",
        "line 6",
    ]
    assert "3 rows cannot be made" in said
    assert not (tmp_path / "out").exists()
    code, said = call(rows, "--out", tmp_path / "out", "--skip-bad")
    assert code == 0
    assert "3 rows left out" in said
    assert "1 done" in said


def test_a_failure_is_in_the_exit_code(call, tmp_path, monkeypatch):
    monkeypatch.setattr(batch_runs, "befall", lambda *_: 1 / 0)
    rows = written(tmp_path / "a.txt", "a frog\n")
    assert call(rows, "--out", tmp_path / "out", "--retries", "1", "--set", "steps=5")[0] == 1
    with (tmp_path / "out" / "summary.csv").open() as table:
        [row] = csv.DictReader(table)
    assert (row["status"], row["failures"], row["error"]) == ("failed", "2", "ZeroDivisionError: division by zero")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("a.txt",), "give --out DIR"),
        (("a.txt", "--out", "out", "--shard", "0/2"), "--shard must be I/N"),
        (("a.txt", "--out", "out", "--shard", f"1/{'9' * 5000}"), "--shard must be I/N"),
        (("a.txt", "--out", "out", "--set", "steps"), "NAME=VALUE"),
        (("a.txt", "--out", "out", "--retries", "-1"), "retries must be at least 0"),
        (("a.txt", "--report"), "--report takes the directory"),
        (("empty.txt", "--out", "out"), "no prompt"),
        (("missing.txt", "--out", "out"), "cannot be read"),
        (("here",), "holds no batch"),
        (("here", "--report"), "holds no batch"),
    ],
)
def test_what_cannot_be_is_refused_in_a_line(call, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    written(tmp_path / "a.txt", "a frog\n")
    written(tmp_path / "empty.txt", "\n")
    (tmp_path / "here").mkdir()
    code, said = call(*arguments)
    assert code == 2
    assert message in said
    assert "Traceback" not in said
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a.txt", "empty.txt", "here"]
