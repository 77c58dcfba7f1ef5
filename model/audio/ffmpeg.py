"""The reader for MP4, WebM, WMA, AMR, AAC and the rest, and for what libsndfile gave up on. See `model.audio.readers`.

FFmpeg can do much more than read sound, so it is held down: only the demuxer of the identified container, only the
audio decoders listed here, no protocol, and a refusal for whatever else a file asks to have opened. Pictures and
video are never decoded. One thread.
"""

import contextlib
from collections.abc import Generator, Iterator
from typing import Any, BinaryIO, NoReturn, Self

import av
import numpy as np
import numpy.typing as npt
from av.audio.plane import AudioPlane

from model.audio.containers import MP4, Container
from model.audio.gaps import Gaps
from model.audio.quicktime import is_finished, refers_elsewhere
from model.audio.readers import BLOCK_FRAMES, Block, Source, UnreadableError, unreadable
from model.dims import SAMPLE_RATE
from model.errors import InvalidAudioError

_DECODER_NAMES = """
    aac aac_latm ac3 eac3 alac amrnb amrwb libopencore_amrnb libopencore_amrwb dca truehd flac wavpack speex vorbis
    opus libopus mp1 mp1float mp2 mp2float mp3 mp3float wmav1 wmav2 wmapro wmavoice wmalossless nellymoser gsm
    gsm_ms g722 g723_1 g726 g726le adpcm_ima_oki adpcm_ima_qt adpcm_ima_wav adpcm_ms adpcm_swf adpcm_yamaha pcm_alaw
    pcm_mulaw pcm_bluray pcm_dvd pcm_s8 pcm_u8 pcm_s16be pcm_s16le pcm_s24be pcm_s24le pcm_s32be pcm_s32le pcm_f32be
    pcm_f32le pcm_f64be pcm_f64le pcm_s16be_planar pcm_s16le_planar pcm_s24le_planar pcm_s32le_planar pcm_s64be
    pcm_s64le real_144 tta
"""
_DECODERS = frozenset(_DECODER_NAMES.split())
"""FFmpeg's names of the decoders that may run."""

_DTYPES = {"u8": "u1", "s16": "i2", "s32": "i4", "s64": "i8", "flt": "f4", "dbl": "f8"}
_FULL_SCALE = {"u8": 128.0, "s16": 32_768.0, "s32": 2_147_483_648.0, "s64": 2.0**63, "flt": 1.0, "dbl": 1.0}
_MAX_RATE_CHANGE = 8
"""A stream whose rate jumps by more than this is damaged: converting it could cost any amount of memory."""


class AvReader:
    """A file in which FFmpeg found sound."""

    def __init__(self, file: BinaryIO, container: Container, *, track: int = 0) -> None:
        """`track`: which of the sound tracks, 0 the main one; `UnreadableError` for one that is not there."""
        self._file, self._container, self._track = file, container, track
        if container is MP4 and refers_elsewhere(file):
            raise InvalidAudioError("The MP4 file keeps its sound in another file: send that one.")
        self._begin()

    def _begin(self) -> None:
        """Open the file and find its first sound."""
        self._input = _open(self._file, self._container)
        try:
            self._stream = _sound_track(self._input, self._container, self._track)
            self._frames = self._decode()
            first = next(self._frames, None)
            if first is None or first.format.packed.name not in _FULL_SCALE:
                unreadable(self._container)
            self._first = first
        except BaseException:
            self._input.close()
            raise
        self.rate, self.channels = first.sample_rate, first.layout.nb_channels
        plain = first.format.packed.name == "s16"
        self.is_int16 = plain and (self.rate, self.channels) == (SAMPLE_RATE, 1)
        self._dtype = np.dtype(np.int16 if self.is_int16 else np.float32)

    def exceeds(self, seconds: float) -> bool:
        """By the duration that the header states, which may count from before the first sound, and then by the packets.

        Where no header states one FFmpeg makes it up from a bit rate, which may be that of the first packet alone.
        """
        duration = self._input.duration if self._container.has_duration else None
        if duration is None:
            return False
        stated = [(duration - max(0, self._input.start_time or 0)) / av.time_base]
        if self._stream.duration is not None and self._stream.time_base is not None:
            stated.append(float(self._stream.duration * self._stream.time_base))
        if min(stated) <= seconds:
            return False
        found = self._reaches(seconds)
        if not found:
            self._input.close()
            self._begin()
        return found

    def _reaches(self, seconds: float) -> bool:
        """Whether the packets from here on are so long together; they are read and not decoded."""
        total, unit = 0, self._stream.time_base or 0
        with contextlib.suppress(av.FFmpegError, ValueError, IndexError):
            for packet in self._input.demux(self._stream):
                total += packet.duration or 0
                if total * unit > seconds:
                    return True
        return False

    def blocks(self) -> Iterator[Block]:
        """See `Reader`; damaged packets are left out, and where none are there is silence."""
        kept: list[av.AudioFrame] = []
        count, gaps = 0, Gaps(self._container)
        for frame in self._in_one_shape():
            silence = round(gaps.before(frame) * self.rate)
            if count and (silence or count >= BLOCK_FRAMES):
                yield self._samples(kept)
                kept, count = [], 0
            for start in range(0, silence, BLOCK_FRAMES):
                yield np.zeros((min(BLOCK_FRAMES, silence - start), self.channels), self._dtype)
            kept.append(frame)
            count += frame.samples
        if count:
            yield self._samples(kept)

    def _decode(self) -> Generator[av.AudioFrame, None, None]:
        packets = self._input.demux(self._stream)
        while True:
            try:
                packet = next(packets, None)
            except IndexError:  # a packet of a track that was not there when the file was opened; the binding gives up
                packets = self._input.demux(self._stream)
                continue
            except (av.FFmpegError, ValueError):  # the file ends early: what the decoder holds is still due
                packet = None
            try:
                frames = self._stream.codec_context.decode(packet)
            except (av.FFmpegError, ValueError):
                frames = []
            yield from (frame for frame in frames if frame.samples > 0)
            if packet is None:
                return

    def _in_one_shape(self) -> Iterator[av.AudioFrame]:
        """All frames in the first one's rate, layout and format, which a stream may change on its way."""
        first = self._first
        shape, converter = _shape(first), None
        yield first
        for frame in self._frames:
            if not 1 / _MAX_RATE_CHANGE <= frame.sample_rate / first.sample_rate <= _MAX_RATE_CHANGE:
                continue
            if _shape(frame) != shape:
                yield from _converted(converter, None)
                shape, converter = _shape(frame), None
                if shape != _shape(first):
                    converter = av.AudioResampler(format=first.format, layout=first.layout, rate=first.sample_rate)
            if converter is None:
                yield frame
            else:
                yield from _converted(converter, frame)
        yield from _converted(converter, None)

    def _samples(self, frames: list[av.AudioFrame]) -> Block:
        """(frames, channels) of frames of one shape, scaled to 1.0 unless the file is kept as int16."""
        kind, planar = self._first.format.packed.name, self._first.format.is_planar
        dtype, count = np.dtype(_DTYPES[kind]), sum(frame.samples for frame in frames)
        samples: npt.NDArray[Any] = np.empty((count, self.channels), self._dtype)
        targets, each = (list(samples.T), 1) if planar else ([samples.reshape(-1)], self.channels)
        start = 0
        for frame in frames:
            stop = start + frame.samples * each
            for index, target in enumerate(targets):
                target[start:stop] = _plane(frame, index, dtype, stop - start)
            start = stop
        if kind == "u8":
            samples -= np.float32(128.0)
        if not self.is_int16 and _FULL_SCALE[kind] != 1.0:
            samples /= np.float32(_FULL_SCALE[kind])
        return samples

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._frames.close()
        self._input.close()


def _open(file: BinaryIO, container: Container) -> av.container.InputContainer:
    file.seek(0)
    options = {"protocol_whitelist": "", "codec_whitelist": ",".join(sorted(_DECODERS))}
    try:
        return av.open(
            Source(file),
            "r",
            format=container.demuxer,
            container_options=options,
            io_open=_refuse,
            metadata_errors="replace",
        )
    except MemoryError:
        raise
    except Exception:  # the binding raises whatever a forged header leads it to: IndexError, ValueError, ...
        if container is MP4 and not is_finished(file):
            raise UnreadableError(
                "The MP4 file does not say where its sound is (moov): its end is missing, or was never recorded."
            ) from None
        unreadable(container)


def _refuse(*_: object) -> NoReturn:
    """Whatever a file asks FFmpeg to open besides itself."""
    raise PermissionError("a file may not refer to other files")


def _sound_track(file: av.container.InputContainer, container: Container, number: int) -> av.AudioStream:
    """The file's main sound track, or another: the main one is 0, the others follow in the file's order."""
    if any(stream.type == "attachment" for stream in file.streams):
        raise InvalidAudioError(
            f"The {container.name} file carries attached files, which are not accepted: send its sound only."
        )
    tracks = file.streams.audio
    if not tracks:
        raise UnreadableError(f"The {container.name} file has no sound track.")
    decodable = [track for track in tracks if track.codec_context and track.codec_context.name in _DECODERS]
    if not decodable:
        raise UnreadableError(f"The {container.name} file's sound is in a codec that is not supported.")
    best = file.streams.best("audio")  # none where no sound came while the file was opened: it begins later
    decodable.sort(key=lambda track: track is not best)
    if number >= len(decodable):
        raise UnreadableError(f"The {container.name} file has no more sound tracks.")
    stream = decodable[number]
    stream.codec_context.thread_count = 1
    return stream


def _shape(frame: av.AudioFrame) -> tuple[int, str, str]:
    return frame.sample_rate, frame.layout.name, frame.format.name


def _converted(converter: av.AudioResampler | None, frame: av.AudioFrame | None) -> list[av.AudioFrame]:
    """What the converter gives for a frame, or at its end for None; nothing where it cannot convert."""
    if converter is None:
        return []
    try:
        return converter.resample(frame)
    except (av.FFmpegError, ValueError):
        return []


def _plane(frame: av.AudioFrame, index: int, dtype: np.dtype[Any], count: int) -> npt.NDArray[Any]:
    """One channel, or all of them interleaved, as the decoder left it.

    Not by `AudioFrame.to_ndarray`: in PyAV 18.1 it counts planes until a null pointer, which is past the end of the
    array from 8 planar channels on, and crashes.
    """
    plane: Any = AudioPlane(frame, index)
    return np.frombuffer(plane, dtype, count)
