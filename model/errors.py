"""What the model package refuses, and with which words.

    WhisperError
    ├── AudioError               a file could not become a waveform       .code
    │   ├── InvalidAudioError    not decodable, no sound, bad samples     invalid_audio
    │   └── AudioTooLongError    over the limit of seconds or bytes       audio_too_long
    ├── WeightsError             weights refused: names file and key
    └── OptionError              an option refused: .param names it

Messages are written for the person who sent the file or the option; they hold no traceback and no server path.
"""


class WhisperError(Exception):
    """Base of everything that this package raises on purpose."""


class AudioError(WhisperError):
    """A file that could not be turned into a waveform."""

    code = "invalid_audio"


class InvalidAudioError(AudioError):
    """Not decodable, without an audio stream, or with samples that are no numbers."""


class AudioTooLongError(AudioError):
    """More seconds, or more decoded bytes, than the limits allow."""

    code = "audio_too_long"


class WeightsError(WhisperError):
    """Weights that were refused; the message names the file and, where there is one, the key."""


class OptionError(WhisperError, ValueError):
    """An option that was refused; `param` is its name."""

    def __init__(self, param: str, message: str) -> None:
        super().__init__(message)
        self.param = param


class DeviceLostError(WhisperError):
    """A GPU that answers nothing any more; only a new process can use it again."""
