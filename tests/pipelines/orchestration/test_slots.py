"""Which stage gets a free place."""

import threading

from pipelines.orchestration.slots import Slots

UPSTREAM = {
    "prepare": [],
    **{name: ["prepare", "plan"] for name in ("short", "longest", "long")},
    "after": ["longest"],
}


def test_the_ready_stage_of_the_highest_rank_is_next_even_if_it_asks_last() -> None:
    slots, order, threads = Slots(1, UPSTREAM), list[str](), list[threading.Thread]()
    slots.ranks = {"prepare": 12.0, "longest": 9.0, "after": 8.0, "long": 5.0, "short": 1.0}

    def stage(name: str) -> None:
        with slots.hold(name):
            order.append(name)
            slots.finish(name)

    with slots.hold("prepare"):
        for name in ("short", "long", "after"):
            threads.append(threading.Thread(target=stage, args=(name,)))
            threads[-1].start()
        slots.finish("prepare")
        slots.finish("plan")
    threads.append(threading.Thread(target=stage, args=("longest",)))
    threads[-1].start()
    for thread in threads:
        thread.join(10)
    assert order == ["longest", "after", "long", "short"]


def test_a_stage_whose_upstream_failed_keeps_no_place() -> None:
    slots = Slots(1, UPSTREAM)
    slots.ranks = {"longest": 9.0, "after": 8.0, "long": 5.0}
    slots.finish("prepare")
    slots.finish("plan")
    with slots.hold("longest"):
        pass  # without finish: it failed
    with slots.hold("long"):  # although what comes after the failed stage has a higher rank
        pass


def test_no_more_than_so_many_run_side_by_side() -> None:
    names = [f"stage {n}" for n in range(6)]
    slots, inside, most = Slots(2, {name: [] for name in names}), list[int](), list[int]()
    together = threading.Barrier(2, timeout=10)

    def stage(name: str) -> None:
        with slots.hold(name):
            inside.append(1)
            together.wait()  # two are inside, or this fails
            most.append(len(inside))
            together.wait()
            inside.pop()

    threads = [threading.Thread(target=stage, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert most == [2] * 6
