import itertools

from hypothesis import given
from hypothesis import strategies as st

from model.voice.speech import CHUNK_FRAMES, cut, gaps, overlap, speech

probabilities = st.lists(st.sampled_from([0.01, 0.2, 0.4, 0.6, 0.99]), min_size=1, max_size=60).flatmap(
    lambda values: st.lists(st.integers(1, 150), min_size=len(values), max_size=len(values)).map(
        lambda lengths: [value for value, length in zip(values, lengths, strict=True) for _ in range(length)]
    )
)


def _seconds(*pieces: tuple[float, float]) -> list[float]:
    """(probability, seconds) one after the other, a value per 32 ms."""
    return [probability for probability, seconds in pieces for _ in range(round(seconds / 0.032))]


def test_speech_is_padded_and_short_silence_does_not_part_it() -> None:
    heard = _seconds((0.0, 4.0), (0.9, 2.0), (0.0, 1.0), (0.9, 2.0), (0.0, 6.0), (0.9, 1.0), (0.0, 5.0))
    first, second = speech(heard, 2100)
    assert abs(first[0] - 360) <= 4
    assert abs(first[1] - 940) <= 4
    assert abs(second[0] - 1460) <= 4
    assert abs(second[1] - 1640) <= 4


def test_a_doubtful_sound_neither_starts_speech_nor_ends_it() -> None:
    assert speech(_seconds((0.4, 10.0)), 1000) == []
    ((start, end),) = speech(_seconds((0.9, 1.0), (0.4, 5.0), (0.9, 1.0)), 700)
    assert (start, end) == (0, 700)


def test_a_click_is_no_speech_and_a_short_word_is() -> None:
    assert speech(_seconds((0.0, 3.0), (0.9, 0.064), (0.0, 5.0)), 800) == []
    assert len(speech(_seconds((0.0, 3.0), (0.9, 0.2), (0.0, 5.0)), 820)) == 1


def test_what_is_cut_is_cut_in_the_longest_pause() -> None:
    talk = _seconds((0.9, 22.0), (0.0, 0.5), (0.9, 5.0), (0.0, 0.1), (0.9, 30.0))
    first, *_ = cut((0, 5700), talk)
    assert abs(first[1] - 2225) <= 8


def test_talk_without_a_pause_is_cut_at_its_least_likely_speech() -> None:
    talk = _seconds((0.99, 24.0), (0.6, 0.096), (0.99, 30.0))
    first, *_ = cut((0, 5400), talk)
    assert abs(first[1] - 2405) <= 8


def test_cutting_costs_no_further_window_where_the_parts_may_be_short() -> None:
    """32 s of talk with a pause after 8 s: two windows either way."""
    talk = _seconds((0.9, 8.0), (0.0, 0.8), (0.9, 23.2))
    assert len(cut((0, 3200), talk)) == 2
    assert abs(cut((0, 3200), talk)[0][1] - 840) <= 8


@given(
    heard=probabilities, start=st.integers(0, 2000), length=st.integers(1, 20_000), limit=st.sampled_from([200, 3000])
)
def test_parts_follow_each_other_and_fit(heard, start, length, limit) -> None:
    parts = cut((start, start + length), heard, limit=limit)
    assert [part[0] for part in parts] == [start, *[part[1] for part in parts[:-1]]]
    assert parts[-1][1] == start + length
    assert all(0 < end - first <= limit for first, end in parts)


@given(heard=probabilities)
def test_stretches_are_in_order_and_hold_all_that_is_surely_speech(heard) -> None:
    n_frames = int(len(heard) * CHUNK_FRAMES)
    stretches = speech(heard, n_frames)
    edges = [edge for stretch in stretches for edge in stretch]
    assert edges == sorted(set(edges))
    assert not edges or (edges[0] >= 0 and edges[-1] <= n_frames)
    for i in range(3, len(heard)):
        if min(heard[i - 3 : i + 1]) >= 0.5:
            middle = int((i - 1) * CHUNK_FRAMES)
            assert any(start <= middle < end for start, end in stretches)


@given(st.lists(st.integers(0, 500), min_size=0, max_size=12, unique=True), st.integers(0, 300), st.integers(1, 400))
def test_heard_and_gaps_are_the_whole(points, start, length) -> None:
    points = sorted(points)[: len(points) // 2 * 2]
    stretches = list(zip(points[::2], points[1::2], strict=True))
    within = [(start, start + length)]
    pieces = sorted([*overlap(within, stretches), *gaps(stretches, within)])
    assert sum(end - first for first, end in pieces) == length
    assert all(end <= first for (_, end), (first, _) in itertools.pairwise(pieces))
