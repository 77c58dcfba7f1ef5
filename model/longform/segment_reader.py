"""The tokens of a window as timed segments of the recording. Pure.

Gets a window and its result from `model.longform.transcript`; the timestamps among the tokens say where a segment
begins and ends, and from where on the window is to be heard again.

Source: the paper, section 4.5; openai/whisper `transcribe.py`.
"""

from model.dims import CHUNK_LENGTH, FRAMES_PER_SECOND, ModelDimensions
from model.segments import Segment
from model.tokenizer import Tokenizer
from model.window import DecodingResult, Window, ends_with_time, segment_ends


class SegmentReader:
    """Reads windows of one model; knows what a timestamp is worth."""

    def __init__(self, dims: ModelDimensions, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._input_stride = dims.frames_per_token
        self._time_precision = CHUNK_LENGTH / dims.n_audio_ctx

    def read(self, window: Window, result: DecodingResult) -> tuple[list[Segment], int]:
        """The segments of a window, without numbers, and the frames to move on by."""
        spans, advance = self._spans(window, result)
        return [self._segment(window, result, *span) for span in spans], advance

    def _spans(self, window: Window, result: DecodingResult) -> tuple[list[tuple[float, float, tuple[int, ...]]], int]:
        """(start, end, tokens) of each segment in the window's seconds, and the frames to move on by.

        Without a pair of timestamps the window is one segment. An unfinished rest after the last pair is heard again.
        """
        tokens, begin = result.tokens, self._tokenizer.timestamp_begin
        cuts = segment_ends(tokens, begin)
        if not cuts:
            seconds = window.n_frames / FRAMES_PER_SECOND
            times = [token for token in tokens if token >= begin]
            if times and times[-1] != begin:
                seconds = (times[-1] - begin) * self._time_precision
            return [(0.0, seconds, tokens)], window.n_frames
        slices = [tokens[start:stop] for start, stop in zip([0, *cuts[:-1]], cuts, strict=True)]
        spans = [
            ((part[0] - begin) * self._time_precision, (part[-1] - begin) * self._time_precision, part)
            for part in slices
        ]
        if ends_with_time(tokens, begin):
            return spans, window.n_frames
        return spans, (tokens[cuts[-1] - 1] - begin) * self._input_stride

    def _segment(
        self, window: Window, result: DecodingResult, start: float, end: float, tokens: tuple[int, ...]
    ) -> Segment:
        offset = window.seek / FRAMES_PER_SECOND
        return Segment(
            id=0,
            seek=window.seek,
            start=offset + start,
            end=offset + end,
            text=self._tokenizer.decode([token for token in tokens if token < self._tokenizer.eot]),
            tokens=tokens,
            temperature=result.temperature,
            avg_logprob=result.avg_logprob,
            compression_ratio=result.compression_ratio,
            no_speech_prob=result.no_speech_prob,
            language=result.language,
        )
