"""Which stage gets a free place."""

import threading

from pipelines.orchestration.slots import Slots


def test_the_waiting_stage_of_the_highest_rank_is_next_and_the_first_of_equals() -> None:
    slots, order, waiting = Slots(1), list[str](), list[threading.Thread]()

    def stage(name: str, rank: float) -> None:
        with slots.hold(rank):
            order.append(name)

    with slots.hold(0):
        for name, rank in (("short", 1.0), ("longest", 9.0), ("long", 5.0), ("also long", 5.0)):
            waiting.append(threading.Thread(target=stage, args=(name, rank)))
            waiting[-1].start()
            while len(slots._waiting) < len(waiting):  # it has joined the others
                pass
        assert order == []
    for thread in waiting:
        thread.join(10)
    assert order == ["longest", "long", "also long", "short"]


def test_no_more_than_so_many_run_side_by_side() -> None:
    slots, inside, most = Slots(2), list[int](), list[int]()
    together = threading.Barrier(2, timeout=10)

    def stage() -> None:
        with slots.hold(1.0):
            inside.append(1)
            most.append(len(inside))
            together.wait()  # two are inside, or this fails
            inside.pop()
            together.wait()

    threads = [threading.Thread(target=stage) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(most) == 6
    assert max(most) == 2
