"""Decoding: every format to the same sound, the limits, and the words in which a file is refused."""

import io
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model.audio import AudioLimits, decode_audio, resampling
from model.audio import ffmpeg as ffmpeg_reader
from model.audio.readers import Source
from model.errors import AudioTooLongError, InvalidAudioError
from tests.sounds import as_int16, ffmpeg, float_wav, floats, likeness, oki_adpcm, silent_flac, sndfile, speechlike, wav

SPEECH = speechlike(2.0)
LONG = speechlike(10.0)


@pytest.mark.parametrize(
    ("kind", "subtype", "rate"),
    [
        ("WAV", "PCM_16", 16_000),
        ("WAV", "PCM_16", 44_100),
        ("WAV", "PCM_U8", 8_000),
        ("WAV", "PCM_24", 48_000),
        ("WAV", "PCM_32", 96_000),
        ("WAV", "FLOAT", 22_050),
        ("WAV", "DOUBLE", 16_000),
        ("WAV", "ULAW", 8_000),
        ("WAV", "ALAW", 8_000),
        ("WAV", "IMA_ADPCM", 16_000),
        ("WAV", "MS_ADPCM", 16_000),
        ("WAV", "GSM610", 8_000),
        ("WAVEX", "PCM_16", 16_000),
        ("RF64", "PCM_16", 16_000),
        ("W64", "PCM_16", 16_000),
        ("FLAC", "PCM_16", 16_000),
        ("FLAC", "PCM_24", 44_100),
        ("OGG", "VORBIS", 44_100),
        ("OGG", "OPUS", 48_000),
        ("MP3", "MPEG_LAYER_III", 16_000),
        ("MP3", "MPEG_LAYER_III", 44_100),
        ("AIFF", "PCM_16", 16_000),
        ("AU", "PCM_16", 16_000),
        ("CAF", "PCM_16", 16_000),
        ("NIST", "PCM_16", 16_000),
        ("VOC", "PCM_16", 16_000),
    ],
)
def test_formats_of_libsndfile(kind: str, subtype: str, rate: int) -> None:
    speech = speechlike(2.0, rate)
    decoded = decode_audio(sndfile(speech, rate, kind, subtype))
    assert decoded.duration == pytest.approx(2.0, abs=0.15)
    assert likeness(floats(decoded), SPEECH) > (0.98 if subtype != "GSM610" else 0.9)


@pytest.mark.parametrize(
    ("container", "codec", "layout", "rate", "bit_rate"),
    [
        ("mp4", "aac", "mono", 44_100, None),
        ("mp4", "aac", "7.1", 48_000, None),
        ("mov", "alac", "stereo", 48_000, None),
        ("3gp", "aac", "mono", 16_000, None),
        ("webm", "libopus", "stereo", 48_000, None),
        ("matroska", "flac", "mono", 22_050, None),
        ("asf", "wmav2", "mono", 44_100, 64_000),
        ("amr", "libopencore_amrnb", "mono", 8_000, 12_200),
        ("adts", "aac", "mono", 16_000, None),
        ("ac3", "ac3", "5.1", 48_000, None),
        ("wv", "wavpack", "mono", 16_000, None),
        ("flv", "aac", "mono", 44_100, None),
        ("avi", "mp2", "mono", 16_000, None),
        ("mpegts", "aac", "mono", 48_000, None),
        ("mpeg", "mp2", "stereo", 48_000, None),
        ("ogg", "flac", "mono", 16_000, None),
        ("wav", "adpcm_ima_wav", "stereo", 16_000, None),
        ("wav", "mp2", "mono", 16_000, None),
        ("mxf_opatom", "pcm_s16le", "mono", 48_000, None),
        ("tta", "tta", "stereo", 44_100, None),
        ("wav", "pcm_s64le", "mono", 16_000, None),
        ("wav", "pcm_f64le", "stereo", 16_000, None),
        ("latm", "aac", "mono", 16_000, None),
        ("nut", "pcm_s16le", "mono", 16_000, None),
        ("nut", "libopus", "stereo", 48_000, None),
        ("rm", "real_144", "mono", 8_000, None),
        ("rm", "ac3", "mono", 44_100, None),
        ("wtv", "mp2", "mono", 48_000, None),
    ],
)
def test_formats_of_ffmpeg(container: str, codec: str, layout: str, rate: int, bit_rate: int | None) -> None:
    speech = speechlike(2.0, rate)
    channels = {"mono": 1, "stereo": 2, "5.1": 6, "7.1": 8}[layout]
    if channels > 1:
        speech = np.repeat(speech[:, None], channels, axis=1)
    decoded = decode_audio(ffmpeg(speech, rate, container, codec, layout=layout, bit_rate=bit_rate))
    assert decoded.duration == pytest.approx(2.0, abs=0.15)
    assert likeness(floats(decoded), SPEECH) > (
        0.97 if codec not in ("libopencore_amrnb", "real_144") else 0.4
    )  # CELP keeps no phases


@pytest.mark.parametrize("tag", [0x10, 0x17], ids=["OKI", "Dialogic"])
def test_recordings_of_telephone_systems(tag: int) -> None:
    decoded = decode_audio(wav(oki_adpcm(speechlike(2.0, 8_000)), rate=8_000, bits=4, tag=tag))
    assert decoded.duration == 2.0
    assert likeness(floats(decoded), SPEECH) > 0.97


def test_video_gives_its_sound_track() -> None:
    file = ffmpeg(speechlike(2.0, 48_000), 48_000, "matroska", "libopus", video=True)
    assert likeness(floats(decode_audio(file)), SPEECH) > 0.97


def test_sixteen_bit_mono_at_the_models_rate_comes_bit_for_bit() -> None:
    samples = as_int16(SPEECH)
    for kind in ("WAV", "FLAC", "AIFF", "AU", "CAF", "W64"):
        decoded = decode_audio(sndfile(samples, 16_000, kind, "PCM_16")).samples
        assert decoded.dtype == np.int16
        np.testing.assert_array_equal(decoded, samples)
    in_a_movie = decode_audio(ffmpeg((samples / 32_768).astype(np.float32), 16_000, "mov", "pcm_s16be")).samples
    assert in_a_movie.dtype == np.int16
    np.testing.assert_array_equal(in_a_movie, samples)


@pytest.mark.parametrize(
    ("subtype", "rate", "channels"),
    [("PCM_24", 16_000, 1), ("PCM_16", 44_100, 1), ("PCM_16", 16_000, 2), ("FLOAT", 16_000, 1)],
)
def test_everything_else_comes_as_float(subtype: str, rate: int, channels: int) -> None:
    speech = np.repeat(speechlike(0.5, rate)[:, None], channels, axis=1)
    decoded = decode_audio(sndfile(speech, rate, "WAV", subtype)).samples
    assert decoded.dtype == np.float32
    assert decoded.shape == (8_000,)


def test_sources_of_every_kind(tmp_path: Path) -> None:
    file = sndfile(SPEECH, 16_000, "FLAC")
    misnamed = tmp_path / "speech.raw"
    misnamed.write_bytes(file)
    expected = decode_audio(file).samples
    with misnamed.open("rb") as opened:
        for source in (misnamed, str(misnamed), memoryview(file), bytearray(file), io.BytesIO(file), opened):
            np.testing.assert_array_equal(decode_audio(source).samples, expected)
    with pytest.raises(FileNotFoundError):
        decode_audio(tmp_path / "absent.wav")
    with pytest.raises(IsADirectoryError):
        decode_audio(tmp_path)


def test_decoding_needs_no_torch() -> None:
    """The audio child starts in a fraction of a second because of it."""
    program = "import sys, model.audio; print('torch' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"


def test_a_tone_keeps_its_level_and_what_16_khz_cannot_carry_is_gone() -> None:
    time = np.arange(48_000) / 48_000
    for frequency, level in ((1_000, 0.5), (7_000, 0.5), (8_500, 0.0), (15_000, 0.0)):
        tone = (0.5 * np.sin(2 * np.pi * frequency * time)).astype(np.float32)
        middle = decode_audio(float_wav(tone, 48_000)).samples[4_000:12_000]
        assert np.abs(middle).max() == pytest.approx(level, abs=2e-3)


def test_neither_block_size_nor_the_way_of_the_second_pass_matters(monkeypatch: pytest.MonkeyPatch) -> None:
    left, right = speechlike(3.0, 44_100), speechlike(3.0, 44_100, seed=1)
    sound = np.stack([left, 0.3 * right - 0.2 * left], axis=1)
    files = [sndfile(sound, 44_100, kind) for kind in ("WAV", "FLAC", "MP3")]
    files.append(ffmpeg(sound, 44_100, "mp4", "aac", layout="stereo"))
    expected = [decode_audio(file).samples for file in files]
    for size in (1_000, 50_000):
        monkeypatch.setattr("model.audio.libsndfile.BLOCK_FRAMES", size)
        monkeypatch.setattr("model.audio.ffmpeg.BLOCK_FRAMES", size)
        for keep, narrow in ((resampling._KEEP_BYTES, 0), (0, 0), (0, resampling._KEEP_NARROW_BYTES)):
            with monkeypatch.context() as patch:
                patch.setattr(resampling, "_KEEP_BYTES", keep)
                patch.setattr(resampling, "_KEEP_NARROW_BYTES", narrow)
                for file, samples in zip(files, expected, strict=True):
                    result = decode_audio(file).samples
                    if narrow:  # peaks, which set the level, are those at 16 kHz
                        scale = np.abs(samples).max() / np.abs(result).max()
                        assert scale == pytest.approx(1.0, rel=0.05)
                        result = result * scale
                    np.testing.assert_allclose(result, samples, atol=1e-6 if not narrow else 1e-5)


def test_what_is_kept_for_the_second_pass_is_never_more_than_the_file_has(monkeypatch: pytest.MonkeyPatch) -> None:
    file = sndfile(np.stack([speechlike(3.0, 8_000), speechlike(3.0, 8_000, seed=1)], axis=1), 8_000, "WAV")
    expected = decode_audio(file).samples
    monkeypatch.setattr(resampling, "_KEEP_BYTES", 0)
    np.testing.assert_array_equal(decode_audio(file).samples, expected)  # and its peaks not those at 16 kHz


def test_the_limit_of_seconds_holds_to_the_frame() -> None:
    file = sndfile(SPEECH, 16_000, "FLAC")
    assert decode_audio(file, AudioLimits(max_seconds=2.0)).duration == 2.0
    with pytest.raises(AudioTooLongError, match=r"longer than the limit of 1\.99 seconds"):
        decode_audio(file, AudioLimits(max_seconds=1.99))


@pytest.mark.parametrize("declared", [None, 0, 1], ids=["honest", "unknown", "too few"])
def test_the_limit_of_seconds_holds_whatever_the_header_says(declared: int | None) -> None:
    with pytest.raises(AudioTooLongError):
        decode_audio(silent_flac(120, declared_frames=declared), AudioLimits(max_seconds=60))


@pytest.mark.parametrize("container", ["mp4", "matroska", "adts"])
def test_the_limit_of_seconds_holds_for_ffmpeg(container: str) -> None:
    file = ffmpeg(SPEECH, 16_000, container, "aac")
    with pytest.raises(AudioTooLongError):
        decode_audio(file, AudioLimits(max_seconds=1.0))
    assert decode_audio(file, AudioLimits(max_seconds=2.2)).duration == pytest.approx(2.0, abs=0.15)


def test_the_limit_of_bytes_holds_where_a_high_rate_makes_seconds_short() -> None:
    file = silent_flac(2.0, rate=384_000, channels=8)
    with pytest.raises(AudioTooLongError, match="unpacks to more than the limit of 20 MB"):
        decode_audio(file, AudioLimits(max_seconds=60, max_decoded_bytes=20_000_000))


@pytest.mark.parametrize(
    ("file", "words"),
    [
        (b"", "empty"),
        (b"This is a letter, not a recording.", "not in a recognised audio format"),
        (as_int16(SPEECH).tobytes(), "not in a recognised audio format"),
        (bytes(100_000), "not in a recognised audio format"),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "not in a recognised audio format"),
        (wav(b""), "WAV file holds no sound"),
        (wav(bytes(3_000), rate=0), "WAV file"),
        (wav(bytes(3_000), channels=0), "WAV file"),
        (wav(bytes(3_000), tag=0x4321), "its codec is not supported"),
        (wav(bytes(3_000), rate=1), "claims a rate of 1 Hz"),
        (wav(bytes(3_000), channels=200), "claims 200 channels"),
        (silent_flac(0.2, rate=655_350, channels=8), "claims a rate of 655350 Hz"),
        (silent_flac(8.0)[:42], "FLAC file holds no sound"),
        (ffmpeg(SPEECH[:0], 16_000, "matroska", "", video=True), "has no sound track"),
        (ffmpeg(SPEECH, 16_000, "mp4", "aac")[:500], "does not say where its sound is"),
        (float_wav(np.array([0.1, np.nan, 0.2])), "not numbers"),
        (float_wav(np.array([0.1, -np.inf, 0.2])), "not numbers"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_refusals_say_why(file: bytes, words: str) -> None:
    with pytest.raises(InvalidAudioError, match=words):
        decode_audio(file)


def test_samples_beyond_full_scale_are_clipped() -> None:
    decoded = decode_audio(float_wav(np.array([0.5, 1e30, -3.0, 0.25])))
    np.testing.assert_array_equal(decoded.samples, np.array([0.5, 1.0, -1.0, 0.25], np.float32))
    stereo = decode_audio(float_wav(np.full((4_000, 2), 3e38), 8_000))
    assert np.isfinite(stereo.samples).all()
    assert np.abs(stereo.samples).max() <= 1.0


def test_streaming_headers_give_what_follows_them() -> None:
    samples = as_int16(SPEECH)
    for size in (0, 0xFFFF_FFF0, 0xFFFF_FFFF, 0x7FFF_FFFF):
        decoded = decode_audio(wav(samples.tobytes(), data_bytes=size))
        np.testing.assert_array_equal(decoded.samples, samples)


@pytest.mark.parametrize(
    "file",
    [
        sndfile(LONG, 16_000, "WAV"),
        sndfile(LONG, 16_000, "FLAC"),
        sndfile(LONG, 16_000, "OGG"),
        sndfile(LONG, 16_000, "MP3"),
        ffmpeg(LONG, 16_000, "adts", "aac"),
        ffmpeg(LONG, 48_000, "webm", "libopus"),
    ],
    ids=["wav", "flac", "vorbis", "mp3", "aac", "webm"],
)
def test_a_truncated_file_gives_its_first_part(file: bytes) -> None:
    whole, part = floats(decode_audio(file)), floats(decode_audio(file[: len(file) * 2 // 3]))
    assert 0.2 * len(whole) < len(part) < 0.9 * len(whole)
    assert likeness(part, whole[: len(part)]) > 0.99


def test_a_place_that_no_file_reaches_is_passed_over(tmp_path: Path) -> None:
    """NUT's last bytes say where its index is; where it broke off they are sound, and the system refuses that place."""
    file = ffmpeg(LONG, 16_000, "nut", "pcm_s16le")
    broken = tmp_path / "broken.nut"
    broken.write_bytes(file[: len(file) // 2] + b"\x90" * 12)
    assert 4.0 < decode_audio(broken).duration < 6.0


def test_damage_in_the_middle_costs_only_the_damaged_part() -> None:
    file = bytearray(ffmpeg(SPEECH, 16_000, "adts", "aac"))
    file[len(file) // 2 : len(file) // 2 + 200] = bytes(200)
    assert decode_audio(bytes(file)).duration > 1.5


def test_damage_in_a_flac_file_costs_only_what_is_damaged() -> None:
    file = bytearray(sndfile(LONG, 16_000, "FLAC"))
    file[len(file) // 2] ^= 0x10
    assert decode_audio(bytes(file)).duration > 9.0
    # Where nobody reads on behind the damage, what stands before it is given.
    wreck = bytes(file[: len(file) // 3]) + bytes(len(file) // 4)
    assert 2.0 < decode_audio(wreck).duration < 4.0


def test_damage_in_mp3_within_wav_costs_only_what_is_damaged() -> None:
    file = bytearray(ffmpeg(LONG, 16_000, "wav", "libmp3lame"))
    file[len(file) // 2 : len(file) // 2 + 300] = bytes(300)
    assert decode_audio(bytes(file)).duration > 9.0


@pytest.mark.parametrize("quality", [0, 4, 9])
def test_an_mp3_that_tells_no_length_is_heard_to_its_end(quality: int) -> None:
    file = ffmpeg(
        LONG,
        16_000,
        "mp3",
        "libmp3lame",
        options={"write_xing": "0"},
        codec_options={"flags": "+qscale", "global_quality": str(quality * 118)},
    )
    assert decode_audio(file).duration == pytest.approx(10.0, abs=0.15)


@pytest.mark.parametrize("between", [b"", bytes(3000)], ids=["joined", "with zeros between"])
def test_mp3_files_may_be_joined(between: bytes) -> None:
    high = speechlike(2.0, 32_000)
    second = ffmpeg(np.stack([high, high], axis=1), 32_000, "mp3", "libmp3lame", layout="stereo")
    decoded = decode_audio(sndfile(LONG, 16_000, "MP3") + between + second)
    assert decoded.duration == pytest.approx(12.0, abs=0.3)
    assert likeness(floats(decoded)[-31_000:], SPEECH) > 0.9


def test_a_track_that_begins_late_does_not_end_the_one_that_is_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    class Late:
        """A file whose binding gives up once at a packet of a track that it did not know, as PyAV 18 does."""

        def __init__(self, file: Any) -> None:
            self._file, self._calls = file, 0

        def __getattr__(self, name: str) -> Any:
            return getattr(self._file, name)

        def demux(self, stream: Any) -> Iterator[Any]:
            self._calls += 1
            for number, packet in enumerate(self._file.demux(stream)):
                yield packet
                if number == 5 and self._calls == 1:
                    raise IndexError("list index out of range")

    file = ffmpeg(SPEECH, 48_000, "mpeg", "mp2")
    whole = floats(decode_audio(file))
    opened = ffmpeg_reader._open
    monkeypatch.setattr(ffmpeg_reader, "_open", lambda *arguments: Late(opened(*arguments)))
    np.testing.assert_array_equal(floats(decode_audio(file)), whole)


def test_a_clip_that_keeps_its_place_in_a_long_recording_is_not_long() -> None:
    file = ffmpeg(speechlike(2.0, 48_000), 48_000, "webm", "libopus", start=7200.0)
    assert decode_audio(file, AudioLimits(max_seconds=60.0)).duration == pytest.approx(2.0, abs=0.1)


def test_a_seek_to_where_no_file_reaches_is_refused_and_moves_nothing() -> None:
    source = Source(io.BytesIO(b"sound"))
    source.seek(2)
    for offset, whence in ((2**63 - 1, io.SEEK_CUR), (-1, io.SEEK_SET), (0, 0x10000)):
        assert source.seek(offset, whence) == -1
        assert source.tell() == 2


def test_float_wave64_and_voc_in_blocks_are_read_as_they_are_meant() -> None:
    for container, codec in (("w64", "pcm_f32le"), ("voc", "pcm_s16le")):
        decoded = floats(decode_audio(ffmpeg(SPEECH, 16_000, container, codec)))
        assert likeness(decoded, SPEECH) > 0.999


def test_a_stream_may_change_its_rate_and_channels_on_the_way() -> None:
    first = ffmpeg(SPEECH, 16_000, "adts", "aac")
    high = speechlike(2.0, 32_000)
    second = ffmpeg(np.stack([high, high], axis=1), 32_000, "adts", "aac", layout="stereo")
    decoded = floats(decode_audio(first + second))
    assert len(decoded) / 16_000 == pytest.approx(4.0, abs=0.3)
    assert likeness(decoded[33_000:], SPEECH) > 0.95
