"""A file of any format to the waveform that the model hears: mono, 16 kHz.

Gets bytes or a file from the command line, the library's user or the audio child; gives the samples to `model.mel`.

    containers (which format?) -> libsndfile | ffmpeg (blocks) -> downmix -> resampler -> Waveform

Everything goes in blocks with the limits checked at each, so a small file that unpacks to days of silence costs no more
than one at the limit, and memory is that of the result, of each channel where there are several. What a sender can
notice:

- A damaged or truncated file gives the sound that can be decoded; only a file without any is refused.
- Where an MP4, Matroska, WebM or AMR file has no sound for a while there is silence: times are those of players.
- Samples beyond full scale are clipped to [-1, 1]; NaN and infinity are refused.
- Exactly 16-bit, 16 kHz, mono sources stay int16, bit for bit; all others become float32.
- Channels are joined by `model.audio.downmix`, not averaged; rates are converted by soxr at its very high quality.
"""

import io
import math
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from model.audio import flac, ogg
from model.audio.containers import FLAC, OGG, W64, WAV, Container, after_id3_tags, identify
from model.audio.downmix import ChannelStatistics, Downmix
from model.audio.ffmpeg import AvReader
from model.audio.libsndfile import SoundFileReader
from model.audio.readers import Block, Reader, UnreadableError
from model.audio.resampling import Floats, analysed, finished, joined
from model.audio.wave import with_size
from model.dims import SAMPLE_RATE
from model.errors import AudioTooLongError, InvalidAudioError

MIN_RATE, MAX_RATE = 1_000, 384_000
"""Sample rates in Hz that are believed; others are forged or broken headers."""
MAX_CHANNELS = 64

AudioSource = str | Path | bytes | bytearray | memoryview | BinaryIO
Samples = npt.NDArray[np.int16] | Floats
OpenReader = Callable[[BinaryIO, Container], Reader]


@dataclass(frozen=True, slots=True)
class AudioLimits:
    """How much one file may unpack to; both hold while decoding, whatever its header says."""

    max_seconds: float = 12 * 3600.0
    max_decoded_bytes: int = 32 * 1024**3
    """Frames x channels x 4 bytes, at the file's own rate: it bounds work where a forged rate makes seconds short."""
    found: Callable[[int], None] = lambda _: None
    """Called with how many samples, of all channels together, each block holds: whoever bounds time asks for them."""


@dataclass(frozen=True, slots=True)
class Waveform:
    """Mono sound at 16 kHz, (n_samples,): int16, or float32 within [-1, 1]."""

    samples: Samples

    @property
    def duration(self) -> float:
        """Seconds."""
        return len(self.samples) / SAMPLE_RATE


DEFAULT_LIMITS = AudioLimits()


def decode_audio(source: AudioSource, limits: AudioLimits = DEFAULT_LIMITS) -> Waveform:
    """Decode a path, the bytes of a file, or an open binary file (read from its position to its end).

    Raises `InvalidAudioError` for what holds no sound, `AudioTooLongError` beyond `limits`, `OSError` for a path that
    cannot be read.
    """
    with _seekable(source) as file:
        container = identify(file)
        if container is None:
            raise InvalidAudioError(_unrecognised(file))
        file = _without_tags(file)
        if container in (WAV, W64):
            file = with_size(file, container)
        parts = ogg.links(file) if container is OGG else flac.links(file) if container is FLAC else []
        if len(parts) > 1:
            return Waveform(_chained(file, parts, container, limits))
        return Waveform(_heard(file, container, limits))


def _without_tags(file: BinaryIO) -> BinaryIO:
    """The file from behind ID3 tags: most readers know of none, and FFmpeg compares each frame with all before it."""
    start = after_id3_tags(file)
    if start == 0:
        return file
    file.seek(start)
    return io.BytesIO(file.read())


def _heard(file: BinaryIO, container: Container, limits: AudioLimits) -> Samples:
    """The main sound track; where that is silent throughout, the first that is not.

    Programs that record a screen put the microphone into a track behind the machine's own sound.
    """
    main = samples = _read(file, container, limits)
    track = -1 if container is OGG else 0  # of which libsndfile hears the first track, and FFmpeg may take another
    while _is_silent(samples):
        track += 1
        try:
            samples = _decode(partial(AvReader, track=track), file, container, limits)
        except InvalidAudioError:  # that was the last one, or it is broken
            return main
    return samples


def _is_silent(samples: Samples) -> bool:
    """Whether 16 bits hold nothing of it."""
    step = 1.0 if samples.dtype == np.int16 else 1 / 32_768
    return -step < float(samples.min()) <= float(samples.max()) < step


def _read(file: BinaryIO, container: Container, limits: AudioLimits) -> Samples:
    """The whole file, by the first reader that finds sound and no damage, or what there is before the damage."""
    readers: list[OpenReader] = [AvReader]
    if container.libsndfile:
        readers = [SoundFileReader, AvReader, partial(SoundFileReader, lenient=True)]
    if container is FLAC and flac.contradicts_itself(file):
        readers = readers[1:]
    problem: UnreadableError | None = None
    for reader in readers:
        try:
            return _decode(reader, file, container, limits)
        except UnreadableError as error:
            problem = problem or error
    raise InvalidAudioError(str(problem))


def _chained(file: BinaryIO, parts: Sequence[tuple[int, int]], container: Container, limits: AudioLimits) -> Floats:
    """Recordings one after the other: each by itself, those without sound left out, all of them within the limits."""
    data, left = bytearray(), limits.max_decoded_bytes
    for start, stop in parts:
        file.seek(start)
        seconds = limits.max_seconds - len(data) / 4 / SAMPLE_RATE
        rest = replace(limits, max_seconds=seconds, max_decoded_bytes=left)
        try:
            samples = _read(io.BytesIO(file.read(stop - start)), container, rest)
        except AudioTooLongError:
            raise _too_long(limits) from None
        except InvalidAudioError:
            continue
        left -= len(samples) * 4
        data += _as_floats(samples).tobytes()
    if not data:
        raise InvalidAudioError(f"The {container.name} file holds no sound.")
    return np.frombuffer(data, np.float32)


def _as_floats(samples: Samples) -> Floats:
    scale = np.float32(32_768 if samples.dtype == np.int16 else 1)
    return samples.astype(np.float32) / scale


def _seekable(source: AudioSource) -> AbstractContextManager[BinaryIO]:
    if isinstance(source, str | Path):
        file = Path(source).open("rb")  # noqa: SIM115  the caller closes it
        if file.seekable():
            return file
        with file:  # a pipe: all of it has to come first
            return io.BytesIO(file.read())
    if isinstance(source, bytes | bytearray | memoryview):
        return io.BytesIO(source)
    content = source.read() if hasattr(source, "read") else None
    if not isinstance(content, bytes | bytearray | memoryview):
        kind = "a file that is open for text" if isinstance(content, str) else type(source).__name__
        raise InvalidAudioError(f"audio must be a path, the bytes of a file or an open binary file, not {kind}")
    return nullcontext(io.BytesIO(content))


def _unrecognised(file: BinaryIO) -> str:
    if file.seek(0, os.SEEK_END) == 0:
        return "The file is empty."
    return "The file is not in a recognised audio format (audio without a header is not accepted)."


def _decode(open_reader: OpenReader, file: BinaryIO, container: Container, limits: AudioLimits) -> Samples:
    """The whole file by one reader, (n_samples,); `UnreadableError` if it finds no sound."""
    with open_reader(file, container) as reader:
        _check_shape(reader, container)
        if reader.exceeds(limits.max_seconds):
            raise _too_long(limits)
        rate, blocks = reader.rate, _checked(reader, limits)
        if reader.is_int16:
            return joined(blocks, np.dtype(np.int16), container)
        if reader.channels == 1:
            return finished((block[:, 0] for block in blocks), rate, container)
        statistics = ChannelStatistics(reader.channels)
        kept = analysed(blocks, statistics, rate)
    downmix = Downmix(statistics.weights())
    if kept is not None:
        kept_blocks, kept_rate = kept
        return finished(map(downmix.mix, kept_blocks), kept_rate, container, downmix)
    with open_reader(file, container) as reader:
        return finished(map(downmix.mix, _checked(reader, limits)), rate, container, downmix)


def _check_shape(reader: Reader, container: Container) -> None:
    """Refuse rates and channel counts that only a broken or forged header has."""
    if not MIN_RATE <= reader.rate <= MAX_RATE:
        raise InvalidAudioError(
            f"The {container.name} file claims a rate of {reader.rate} Hz; {MIN_RATE} to {MAX_RATE} Hz are accepted."
        )
    if not 1 <= reader.channels <= MAX_CHANNELS:
        raise InvalidAudioError(
            f"The {container.name} file claims {reader.channels} channels; 1 to {MAX_CHANNELS} are accepted."
        )


def _too_long(limits: AudioLimits) -> AudioTooLongError:
    return AudioTooLongError(f"The recording is longer than the limit of {limits.max_seconds:g} seconds.")


def _checked(reader: Reader, limits: AudioLimits) -> Iterator[Block]:
    """The reader's blocks within the limits: finite, and clipped to [-1, 1]."""
    max_frames = math.floor(limits.max_seconds * reader.rate)
    frames = 0
    for block in reader.blocks():
        frames += len(block)
        if frames > max_frames:
            raise _too_long(limits)
        if frames * reader.channels * 4 > limits.max_decoded_bytes:
            megabytes = limits.max_decoded_bytes // 1_000_000
            raise AudioTooLongError(f"The recording unpacks to more than the limit of {megabytes} MB.")
        if not reader.is_int16:
            if not np.isfinite(block).all():
                raise InvalidAudioError("The file holds samples that are not numbers (NaN or infinity).")
            np.clip(block, -1.0, 1.0, out=block)
        limits.found(block.size)
        yield block
