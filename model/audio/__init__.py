"""A file of any format to the waveform that the model hears: `decode_audio`."""

from model.audio.decode import AudioLimits, AudioSource, Waveform, decode_audio

__all__ = ["AudioLimits", "AudioSource", "Waveform", "decode_audio"]
