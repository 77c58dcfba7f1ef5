"""Requests of every kind for one batch: tasks, timestamps, draws, ladders, beams."""

from model.options import TranscribeOptions

OPTIONS = [
    TranscribeOptions(language="en", temperature=(0.0,), sample_len=9),
    TranscribeOptions(language="de", temperature=(0.0,), sample_len=4, without_timestamps=True),
    TranscribeOptions(language="fr", task="translate", temperature=(0.6,), sample_len=12, seed=3),
    TranscribeOptions(temperature=(0.0, 0.4), sample_len=6),
    TranscribeOptions(language="ja", temperature=(1.0,), sample_len=15, suppress_tokens=()),
    TranscribeOptions(language="es", temperature=(0.0,), sample_len=7, max_initial_timestamp=None),
    TranscribeOptions(language="en", temperature=(0.0,), sample_len=8, beam_size=3, patience=2.0),
    TranscribeOptions(language="de", temperature=(0.0, 0.8), sample_len=5, beam_size=2, best_of=3, length_penalty=0.5),
]
