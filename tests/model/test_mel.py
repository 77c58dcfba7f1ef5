import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from model.dims import HOP_LENGTH, N_FRAMES, N_SAMPLES, SAMPLE_RATE
from model.mel import LogMel, MaximumSearch, MelSpan, mel_filters
from tests.graphs import no_waits

CLIPS = Path(__file__).parent.parent / "audio"
MEL = LogMel(80)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Many small products on every core of a busy machine wait for one another."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def sound(n: int, seed: int = 0) -> Tensor:
    """A chirp from 100 Hz to 7 kHz every two seconds, swelling and fading over ten, in faint noise."""
    generator = torch.Generator().manual_seed(seed)
    t = torch.arange(n, dtype=torch.float64) / SAMPLE_RATE
    sweep = t % 2.0
    chirp = torch.sin(2 * math.pi * (100 * sweep + 6900 / 4 * sweep**2)) * torch.sin(math.pi * t / 10) ** 2
    return (0.5 * chirp).float() + 0.001 * torch.randn(n, generator=generator)


def as_int16(samples: Tensor) -> Tensor:
    return (samples.clamp(-1, 1) * 32767).round().to(torch.int16)


def window(samples: Tensor, seek: int, n_frames: int, mel: LogMel = MEL) -> Tensor:
    return mel.windows([MelSpan(samples, seek, n_frames, mel.maximum(samples))])[0]


def reference(samples: Tensor, n_mels: int = 80) -> Tensor:
    whisper: Any = pytest.importorskip("whisper")
    spectrogram = whisper.log_mel_spectrogram(samples, n_mels, padding=N_SAMPLES)
    assert isinstance(spectrogram, Tensor)
    return spectrogram


def assert_equals_reference(samples: Tensor, seeks: list[int], n_mels: int = 80) -> None:
    mel = LogMel(n_mels)
    heard = samples / 32768.0 if samples.dtype == torch.int16 else samples
    expected = reference(heard, n_mels)
    maximum = mel.maximum(samples)
    for seek in seeks:
        for n_frames in {min(n, expected.shape[1] - seek) for n in (N_FRAMES, 777, 1, 0)}:
            ours = mel.windows([MelSpan(samples, seek, n_frames, maximum)])[0]
            torch.testing.assert_close(ours[:, :n_frames], expected[:, seek : seek + n_frames], atol=1e-4, rtol=0)
            assert not ours[:, n_frames:].any()


@pytest.mark.oracle
@pytest.mark.parametrize("n_mels", [80, 128])
def test_filters_are_the_references(n_mels: int) -> None:
    audio = pytest.importorskip("whisper.audio")
    torch.testing.assert_close(mel_filters(n_mels), audio.mel_filters("cpu", n_mels), atol=1e-7, rtol=0)


@pytest.mark.oracle
@pytest.mark.parametrize("n_mels", [80, 128])
@pytest.mark.parametrize("seconds", [3.0, 30.0, 100.0])
def test_windows_are_the_references_at_any_seek(n_mels: int, seconds: float) -> None:
    frames = int(seconds * 100)
    seeks = {0, 1, 2, frames // 3, frames - 1, frames, frames + 1, frames + 2999}
    assert_equals_reference(sound(int(seconds * SAMPLE_RATE)), sorted(seeks), n_mels)


@pytest.mark.oracle
@pytest.mark.parametrize("n", [0, 1, 2, 39, 40, 41, 159, 160, 161, 199, 200, 201, 399, 400, 401, 480_001])
def test_windows_are_the_references_at_any_length(n: int) -> None:
    assert_equals_reference(sound(n), [0, 1, 2, 3, 100])


@pytest.mark.oracle
def test_a_click_at_either_edge_is_heard_as_in_the_reference() -> None:
    """The first and last samples reach the spectrogram through the mirrored and the silent side."""
    for n, at in ((1, 0), (150, 120), (481_000, 0), (481_000, 480_999), (481_071, 481_070)):
        samples = torch.zeros(n)
        samples[at] = 1.0
        assert_equals_reference(samples, [0, 1, max(0, n // HOP_LENGTH - 1)])


@pytest.mark.oracle
@pytest.mark.parametrize("name", ["en-jfk.flac", "de-leichenhalle.wav", "zh-guangzhou.flac", "noise.flac"])
def test_real_recordings_are_heard_as_in_the_reference(name: str) -> None:
    soundfile = pytest.importorskip("soundfile")
    for dtype in ("int16", "float32"):
        data, _ = soundfile.read(CLIPS / name, dtype=dtype, always_2d=True)
        assert_equals_reference(torch.from_numpy(data[:, 0].copy()), [0, 123], 80)


@pytest.mark.oracle
@settings(max_examples=25, deadline=None)
@given(st.integers(0, 20_000), st.integers(0, 130), st.integers(0, 300), st.integers(0, 9))
def test_any_short_stretch_is_the_references(n: int, seek: int, n_frames: int, seed: int) -> None:
    samples = as_int16(sound(n, seed))
    expected = reference(samples / 32768.0)[:, seek : seek + n_frames]
    torch.testing.assert_close(window(samples, seek, n_frames)[:, :n_frames], expected, atol=1e-4, rtol=0)


def test_the_maximum_is_that_of_the_whole_recording() -> None:
    quiet = sound(70 * SAMPLE_RATE) * 1e-3
    whole = MEL.maximum(quiet)
    quiet[65 * SAMPLE_RATE] = 1.0
    assert MEL.maximum(quiet) > whole + 1.0
    # A loud click far away lifts the floor of a window that does not contain it.
    before, after = (window(quiet[: n * SAMPLE_RATE], 0, 1000) for n in (60, 70))
    assert after[:, :1000].min() > before[:, :1000].min()
    assert after[:, :1000].max() == before[:, :1000].max()


@pytest.mark.parametrize("n", [0, 1, 5_000, 600_000])
def test_silence_is_the_least_there_is(n: int) -> None:
    for dtype in (torch.int16, torch.float32):
        samples = torch.zeros(n, dtype=dtype)
        assert MEL.maximum(samples) == pytest.approx(-10.0)
        assert torch.all(window(samples, 0, 10)[:, :10] == -1.5)


@pytest.mark.parametrize("hertz", [250.0, 1000.0, 3000.0, 6000.0])
def test_a_tone_is_loudest_in_the_band_that_holds_it(hertz: float) -> None:
    tone = torch.sin(2 * math.pi * hertz * torch.arange(SAMPLE_RATE) / SAMPLE_RATE)
    band = int(window(tone, 20, 1)[:, 0].argmax())
    weights = mel_filters(80)[band] * torch.linspace(0, SAMPLE_RATE / 2, 201)
    assert float(weights.sum() / mel_filters(80)[band].sum()) == pytest.approx(hertz, rel=0.05)


def test_int16_is_heard_as_its_fraction_of_full_scale() -> None:
    samples = as_int16(sound(50_000))
    assert MEL.maximum(samples) == MEL.maximum(samples / 32768.0)
    assert torch.equal(window(samples, 7, 300), window(samples / 32768.0, 7, 300))


def test_a_window_does_not_depend_on_its_neighbours() -> None:
    spans = []
    for seed, (n, seek, n_frames) in enumerate([(900_000, 1500, 3000), (16_000, 0, 100), (0, 0, 0), (90_000, 1, 562)]):
        samples = sound(n, seed) if seed % 2 else as_int16(sound(n, seed))
        spans.append(MelSpan(samples, seek, n_frames, MEL.maximum(samples)))
    together = MEL.windows(spans)
    assert together.shape == (4, 80, N_FRAMES)
    assert together.dtype == torch.float32
    for row, span in zip(together, spans, strict=True):
        torch.testing.assert_close(row, MEL.windows([span])[0], atol=1e-6, rtol=0)


def test_samples_are_left_as_they_were() -> None:
    samples = sound(20_000)
    copy = samples.clone()
    window(samples, 0, 125)
    assert torch.equal(samples, copy)


def test_no_spans_give_no_windows() -> None:
    assert MEL.windows([]).shape == (0, 80, N_FRAMES)


@pytest.mark.parametrize(("seek", "n_frames"), [(-1, 10), (0, -1), (0, N_FRAMES + 1)])
def test_a_stretch_that_is_no_window_is_refused(seek: int, n_frames: int) -> None:
    with pytest.raises(ValueError, match="window"):
        MelSpan(torch.zeros(10), seek, n_frames, 0.0)


@pytest.mark.parametrize("samples", [torch.zeros(2, 10), torch.zeros(10, dtype=torch.float64), torch.zeros(())])
def test_samples_of_another_kind_are_refused(samples: Tensor) -> None:
    with pytest.raises(ValueError, match="samples"):
        MEL.maximum(samples)
    with pytest.raises(ValueError, match="samples"):
        MelSpan(samples, 0, 1, 0.0)


def test_a_filterbank_without_bands_is_refused() -> None:
    with pytest.raises(ValueError, match="band"):
        mel_filters(0)


class _Sent(TorchDispatchMode):
    """Notes what arrives on another device: format and size."""

    def __init__(self) -> None:
        super().__init__()
        self.copies: list[tuple[torch.dtype, int]] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        answer = func(*args, **(kwargs or {}))
        sources = [arg for arg in args if isinstance(arg, Tensor)]
        if isinstance(answer, Tensor) and any(source.device != answer.device for source in sources):
            self.copies.append((answer.dtype, sources[-1].numel()))
        return answer


@pytest.mark.parametrize("convert", [as_int16, torch.clone])
def test_another_device_gets_the_samples_of_a_window_as_they_are(convert) -> None:
    """On tensors without data, which nothing can be read back from; a GPU's part is below."""
    samples = convert(sound(1_000_000))
    with _Sent() as sent:
        mel = LogMel(80, "meta").windows([MelSpan(samples, 1000, N_FRAMES, 1.0), MelSpan(samples, 0, 500, 1.0)])
    assert (mel.shape, mel.device.type) == ((2, 80, N_FRAMES), "meta")
    of_sound = [copy for copy in sent.copies if copy[1] > 80 * 201]
    assert of_sound == [(samples.dtype, 2999 * 160 + 400), (samples.dtype, 499 * 160 + 200)]


def test_a_maximum_that_stayed_on_the_device_gives_the_same_window() -> None:
    samples = sound(70_000)
    search = MaximumSearch(MEL, samples)
    with pytest.raises(ValueError, match="end"):
        _ = search.found
    while not search.advance(1):
        pass
    assert float(search.found) == MEL.maximum(samples)
    ours = MEL.windows([MelSpan(samples, 7, 180, search.found)])[0]
    assert torch.equal(ours, window(samples, 7, 180))


@pytest.mark.parametrize("n", [37, 700, 4_000, 70_000])
def test_frames_that_a_gpu_transforms_beyond_those_asked_for_change_nothing(n, monkeypatch) -> None:
    samples = sound(n)
    maximum, alone = MEL.maximum(samples), window(samples, 1, min(n // HOP_LENGTH, 180))
    padded = LogMel(80)
    monkeypatch.setattr(padded, "_transformed", lambda n_frames: N_FRAMES)
    assert padded.maximum(samples) == pytest.approx(maximum, abs=1e-5)
    torch.testing.assert_close(window(samples, 1, min(n // HOP_LENGTH, 180), padded), alone, atol=1e-5, rtol=0)


def test_a_gpu_plans_one_transform_for_each_number_of_windows() -> None:
    mel = LogMel(80, "meta")
    assert {mel._transformed(n_frames) for n_frames in (1, 17, 2999)} == {N_FRAMES}
    assert [MEL._transformed(n_frames) for n_frames in (1, 17, 2999)] == [8, 17, 2999]


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_hears_the_same_without_waiting() -> None:
    mel = LogMel(128, "cuda")
    recordings = [sound(700_000), as_int16(sound(600_000, 2)), as_int16(sound(30_000, 1)).cuda()]
    spans = [MelSpan(samples, 5, 180, mel.maximum(samples)) for samples in recordings]
    mel.windows(spans)
    with no_waits():
        windows = mel.windows(spans)
    here = LogMel(128)
    for row, samples in zip(windows.cpu(), recordings, strict=True):
        torch.testing.assert_close(row, window(samples.cpu(), 5, 180, here), atol=1e-4, rtol=0)
