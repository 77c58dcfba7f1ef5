from service.worker.room import Room


def test_the_limit_halves_down_to_one_and_grows_back_step_by_step() -> None:
    room = Room(8, steps_to_grow=3)
    room.shrink(8)
    assert (room.windows, room.shrinks) == (4, 1)
    for windows in (4, 2, 1):
        room.shrink(windows)
    assert (room.windows, room.shrinks) == (1, 4)
    seen = []
    for _ in range(30):
        room.stepped()
        seen.append(room.windows)
    assert seen[:6] == [1, 1, 2, 2, 2, 3]
    assert seen[-1] == 8


def test_a_failure_makes_growing_start_anew_and_never_adds_room() -> None:
    room = Room(4, steps_to_grow=3)
    room.shrink(2)
    room.stepped()
    room.stepped()
    room.shrink(4)  # rows from before the first failure were still running
    assert room.windows == 1
    room.stepped()
    assert room.windows == 1
