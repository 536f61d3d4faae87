"""A simulated cluster for batches: its seconds pass at once, its nodes are lost at random and come back."""

from collections import Counter
from dataclasses import dataclass, field
from random import Random

from dreamfusion.batch.drive import Ending
from dreamfusion.batch.state import State
from dreamfusion.batch.worker import Order, Record


@dataclass
class Clock:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Cluster:
    """Workers on nodes that are lost, each once in so many seconds, and replaced after a while."""

    clock: Clock
    states: dict[str, State]
    """written in place of files"""
    nodes: int
    each: int
    """workers on a node"""
    lost_every: float
    run_seconds: float = 90.0
    saved_every: float = 18.0
    back_after: float = 300.0
    fate: Random = field(default_factory=lambda: Random(0))
    busy: dict[str, tuple[Order, int, float]] = field(default_factory=dict)
    """by item: the order, its node, and when it will end"""
    done: dict[str, float] = field(default_factory=dict)
    """seconds of each item's run that are saved"""
    begun: dict[str, float] = field(default_factory=dict)
    down: dict[int, float] = field(default_factory=dict)
    lost: int = 0

    @property
    def room(self) -> list[int]:
        taken = Counter(node for _, node, _ in self.busy.values())
        return [node for node in range(self.nodes) if node not in self.down for _ in range(self.each - taken[node])]

    @property
    def free(self) -> int:
        return len(self.room)

    def start(self, order: Order) -> None:
        name = order.item.name
        self.begun[name] = self.clock.now
        end = self.clock.now + self.run_seconds - self.done.get(name, 0.0)
        self.busy[name] = order, self.room[0], end
        self.states[name] = self.states.get(name, State()).taken()

    def wait(self, seconds: float) -> list[Ending]:
        self.clock.now += 3.0
        self.down = {node: back for node, back in self.down.items() if back > self.clock.now}
        endings = []
        for node in range(self.nodes):
            if node not in self.down and self.fate.random() < 3.0 / self.lost_every:
                self.lost += 1
                self.down[node] = self.clock.now + self.back_after
        for name, (order, node, end) in list(self.busy.items()):
            worked = self.clock.now - self.begun[name]
            if node in self.down:
                self.done[name] = self.done.get(name, 0.0) + worked // self.saved_every * self.saved_every
                endings.append(Ending(order, how="the node is lost"))
            elif end <= self.clock.now:
                self.states[name] = self.states[name].ended("done")
                endings.append(Ending(order, Record("done")))
            else:
                continue
            del self.busy[name]
        return endings

    def kill(self, order: Order) -> None:
        raise AssertionError
