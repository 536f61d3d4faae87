"""Who is next: the user served least recently; of one user's, what waits longest. And how long that takes.

Batches are begun when nothing else waits, and make room for what comes (`Foreman.look`): they take days.
"""

from collections.abc import Mapping, Sequence

from dreamfusion.studio.task import SECONDS_OF_PRODUCTS, Task


def in_order(waiting: Sequence[Task], served: Mapping[str, float]) -> list[Task]:
    """The tasks in the order in which they will be begun. `served`: when each owner was last (seconds)."""
    single = [task for task in waiting if task.kind != "batch"]
    return _fair(single, served) + _fair([task for task in waiting if task.kind == "batch"], served)


def _fair(waiting: Sequence[Task], served: Mapping[str, float]) -> list[Task]:
    queues: dict[str, list[Task]] = {}
    for task in sorted(waiting, key=lambda task: (task.queued, task.id)):
        queues.setdefault(task.owner, []).append(task)
    last = {owner: served.get(owner, 0.0) for owner in queues}
    turn, order = max([0.0, *last.values()]), list[Task]()
    while queues:
        interrupted = [owner for owner, tasks in queues.items() if tasks[0].queued == 0]
        owner = min(interrupted or queues, key=lambda owner: (last[owner], queues[owner][0].queued))
        order.append(queues[owner].pop(0))
        turn += 1.0
        last[owner] = turn
        if not queues[owner]:
            del queues[owner]
    return order


def places(order: Sequence[Task], running: Sequence[Task], rate: float, lanes: int) -> list[dict[str, object]]:
    """For the page: place in the queue from 1 on, and seconds until each is done, None where that is not known."""
    free = sorted((task.seconds_left or 0.0 for task in running if task.kind != "batch"), reverse=True)[:lanes]
    free += [0.0] * (lanes - len(free))
    found = list[dict[str, object]]()
    for place, task in enumerate(order, 1):
        if task.kind != "run":
            found.append({"id": task.id, "place": place, "seconds": None})
            continue
        lane = min(range(lanes), key=free.__getitem__)
        free[lane] += (task.steps - task.step) / rate + SECONDS_OF_PRODUCTS if rate else 0.0
        found.append({"id": task.id, "place": place, "seconds": round(free[lane]) if rate else None})
    return found
