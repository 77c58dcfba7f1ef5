"""The program that decodes uploads: hostile bytes in, samples out, in a process that can do nothing else.

`service.children.audio_pool` starts it as `python -m service.audio_child --fd N ...` and keeps it for many files. It
loads the codecs, tries them once, locks itself down (`service.audio_child.sandbox`), says `ChildReady`, and from then
on answers every `DecodeAudio` with `AudioDecoded`, the samples in the memory that came with it, or with `AudioRefused`.
It ends when the channel does. Whatever is not foreseen here ends it too: the pool answers for that file and starts
another child.
"""

from service.wire.process import leave_signals_to_parent

if __name__ == "__main__":
    leave_signals_to_parent()  # what is imported below takes a second, in which it would end

import argparse
import contextlib
import errno
import io
import os
import socket
import struct
from collections.abc import Callable, Sequence

from service.audio_child.allowance import Allowance
from service.audio_child.sandbox import lock_down
from service.wire import memory
from service.wire.audio_messages import AudioDecoded, AudioRefused, ChildReady, DecodeAudio
from service.wire.channel import Channel, ChannelClosed
from service.wire.messages import StartFailed

Decoder = Callable[[DecodeAudio, int, int, Callable[[int], None]], AudioDecoded | AudioRefused]
"""What is asked, the upload's descriptor, that of the memory for the samples, and who is told of samples found."""


def main(arguments: Sequence[str] | None = None, load: Callable[[], Decoder] | None = None) -> None:
    """Decode files until the channel ends, with the decoder that `load` gives (`load_codecs`)."""
    options = _parser().parse_args(arguments)
    # An interrupt or a stop is for the parent, which still lets the files in hand finish.
    leave_signals_to_parent()
    channel = Channel(socket.socket(fileno=options.fd))
    try:
        decode = _start(channel, options, load or load_codecs)
        while isinstance(request := channel.receive(), DecodeAudio):
            upload, output = channel.take_fd(), channel.take_fd()
            allowance = Allowance(options.cpu_seconds, memory.size(upload))
            channel.send(decode(request, upload, output, allowance.found))
            os.close(upload)
            os.close(output)
    except ChannelClosed:
        return


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="service.audio_child", description=__doc__)
    parser.add_argument("--fd", type=int, required=True, help="the socket to the parent")
    parser.add_argument("--parent", type=int, required=True, help="its process id")
    parser.add_argument("--memory-bytes", type=int, required=True, help="memory for decoding")
    parser.add_argument("--output-bytes", type=int, required=True, help="samples of one file, at most")
    parser.add_argument("--cpu-seconds", type=float, required=True, help="processor time for one file")
    return parser


def _start(channel: Channel, options: argparse.Namespace, load: Callable[[], Decoder]) -> Decoder:
    """Load, try, lock, report; what goes wrong is told to the parent, since nobody reads this process's stderr."""
    try:
        decode = load()
        held = lock_down(memory_bytes=options.memory_bytes, output_bytes=options.output_bytes, parent=options.parent)
    except Exception as error:
        channel.send(StartFailed(f"{type(error).__name__}: {error}"))
        raise SystemExit(1) from error
    channel.send(ChildReady(held))
    return decode


def load_codecs() -> Decoder:
    """The decoder, with all that it may import or open later already imported and opened."""
    from model.audio import AudioLimits, decode_audio
    from model.audio.containers import WAV
    from model.audio.ffmpeg import AvReader
    from model.errors import AudioError, InvalidAudioError

    def decode(
        request: DecodeAudio, upload: int, output: int, found: Callable[[int], None]
    ) -> AudioDecoded | AudioRefused:
        limits = AudioLimits(request.max_seconds, request.max_decoded_bytes, found)
        try:
            samples = decode_audio(memory.read_all(upload), limits).samples
        except AudioError as error:
            return AudioRefused(
                "invalid_audio" if isinstance(error, InvalidAudioError) else "audio_too_long", str(error)
            )
        except MemoryError:
            return AudioRefused("invalid_audio", "The file needs too much memory to decode.")
        try:
            memory.write_all(output, samples.data)
        except OSError as error:  # they are the machine's memory, and no part of what a file may use
            if error.errno not in (errno.ENOMEM, errno.ENOSPC, errno.EFBIG):
                raise
            return AudioRefused("no_memory", "There is no memory for the samples.")
        return AudioDecoded("int16" if samples.dtype == "int16" else "float32", len(samples))

    example = io.BytesIO(_example_wav())
    decode_audio(example.getvalue())
    with AvReader(example, WAV) as reader:
        list(reader.blocks())
    with contextlib.suppress(InvalidAudioError):
        decode_audio(b"RIFF\0\0\0\0WAVEnot a sound file")
    return decode


def _example_wav() -> bytes:
    """A tenth of a second of stereo at 8 kHz: it takes the way through every stage."""
    sound = bytes(range(256)) * 12
    head = struct.pack("<4sI4s4sIHHIIHH4sI", b"RIFF", 36 + len(sound), b"WAVE", b"fmt ", 16, 1, 2, 8_000, 32_000, 4, 16,
                       b"data", len(sound))  # fmt: skip
    return head + sound


if __name__ == "__main__":
    main()
