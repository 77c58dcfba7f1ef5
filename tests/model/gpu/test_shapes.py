import itertools

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from model.gpu.shapes import AskedShape, StepShape, bucket, sizes


def test_sizes_are_few_small_steps_and_then_multiples_of_32() -> None:
    assert sizes(512)[:12] == [1, 2, 4, 8, 12, 16, 24, 32, 48, 64, 96, 128]
    assert {b - a for a, b in itertools.pairwise(sizes(512)[9:])} == {32}
    assert sizes(100)[-3:] == [64, 96, 100]


@given(most=st.integers(1, 300))
def test_who_records_every_size_beforehand_has_that_of_any_number_of_rows(most) -> None:
    """In memory of one row more, which a language may borrow."""
    recorded = {bucket(count, most + 1) for count in sizes(most)}
    assert {bucket(count, most + 1) for count in range(1, most + 1)} == recorded


@given(most=st.integers(1, 600), data=st.data())
def test_a_size_holds_what_it_is_for_and_no_more_than_there_is(most, data) -> None:
    count = data.draw(st.integers(1, most))
    size = bucket(count, most)
    assert count <= size <= most
    assert bucket(size, most) == size


@pytest.mark.parametrize("count", [0, 9])
def test_there_is_no_size_for_nothing_nor_for_too_many(count) -> None:
    with pytest.raises(ValueError, match="not between 1 and 8"):
        bucket(count, 8)


def test_one_row_a_window_makes_one_size_of_both() -> None:
    assert StepShape.of([4, 0], max_windows=64, max_rows=65) == StepShape(rows=8, windows=8, width=1)
    assert StepShape.of([63], max_windows=64, max_rows=65) == StepShape(rows=64, windows=64, width=1)
    # More slots than rows: the rows are all there are.
    assert StepShape.of([9], max_windows=10, max_rows=3) == StepShape(rows=3, windows=10, width=1)


def test_beams_widen_a_shape() -> None:
    shape = StepShape.of([2, 2, 0, 2, 2, 2], max_windows=16, max_rows=17)
    assert shape == StepShape(rows=8, windows=4, width=8)
    assert shape.places([2, 2, 0, 2, 2, 2]) == [16, 17, 0, 18, 19, 20]


@given(windows=st.lists(st.integers(0, 19), min_size=1, max_size=40))
def test_every_row_has_a_place_of_its_own_at_its_window(windows) -> None:
    shape = StepShape.of(windows, max_windows=20, max_rows=40)
    places = shape.places(windows)
    assert len(windows) <= shape.rows <= 40
    assert max(windows) < shape.windows <= 20
    assert len(set(places)) == len(places)
    assert [place // shape.width for place in places] == windows
    assert max(places) < shape.n_places


ROWS = st.lists(st.integers(0, 11), min_size=1, max_size=20)


@given(windows=ROWS)
@example(windows=[7, 0, 3])  # nobody shares a window
@example(windows=[7, 0, 7])
def test_a_table_lists_every_window_that_is_asked_once_and_all_of_its_rows(windows) -> None:
    shape = AskedShape.of(windows, max_windows=12, max_rows=20)
    filled = [100 + window for window in range(12)]
    table = shape.table(windows, filled)
    ends = list(itertools.accumulate([shape.groups, shape.groups, shape.groups * shape.width, shape.rows]))
    assert len(table) == ends[-1]
    slots, lengths, members, places = (table[begin:end] for begin, end in zip([0, *ends], ends, strict=False))
    asked = [slot for slot in slots if slot >= 0]
    assert sorted(asked) == sorted(set(windows))
    assert lengths == [filled[slot] if slot >= 0 else 0 for slot in slots]
    assert sorted(row for row in members if row >= 0) == list(range(len(windows)))
    for row, window in enumerate(windows):
        assert members[places[row]] == row
        assert slots[places[row] // shape.width] == window
    assert places[len(windows) :] == [-1] * (shape.rows - len(windows))


def test_tables_of_one_shape_are_as_long_as_each_other() -> None:
    few, many = [3, 9, 1], [0, 1, 2, 11]
    shapes = {AskedShape.of(windows, max_windows=12, max_rows=20) for windows in (few, many)}
    assert shapes == {AskedShape(4, 4, 1)}
    (shape,) = shapes
    assert len(shape.table(few, [1500] * 12)) == len(shape.table(many, [1500] * 12))
    assert AskedShape.of([5, 5, 5, 2], max_windows=12, max_rows=20) == AskedShape(4, 2, 4)
