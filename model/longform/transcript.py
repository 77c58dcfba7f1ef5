"""The long-form state machine of one recording: which window next, and what its result means. Pure.

`next_window()` says what to decode, `feed(result)` turns the answer into segments and moves on: seek to the last
timestamp, condition on the text before, skip silence. It holds no tensor, no clock and no model, so it is the same
object offline and in the service, and any number of them share one batch.

Source: the paper, section 4.5 and appendix; openai/whisper `transcribe.py`.
"""

from collections.abc import Sequence
from dataclasses import replace

from model.dims import FRAMES_PER_SECOND, N_FRAMES, SAMPLE_RATE, ModelDimensions
from model.guards.invention import judge, rest_of
from model.guards.missed import Echoes, early, passed_over, pauses, resumption, unheard
from model.guards.omissions import echoed, left_out
from model.guards.presence import is_speech_after_all, reason_to_skip
from model.longform.clips import clip_frames, count_frames
from model.longform.segment_reader import SegmentReader
from model.options import TranscribeOptions
from model.segments import Segment, Skipped, Transcription
from model.tokenizer import Tokenizer
from model.window import MAX_PROMPT_TOKENS, DecodingResult, TokenTimes, Window, Written
from model.words import add_words, clamped, speech_end

_SHORT = 100
"""Frames of a window below which, with `guards`, it gets no text before it: the model repeats that text."""


class Transcript:
    """Where one recording stands. `next_window` and `feed` alternate until `next_window` answers None."""

    def __init__(
        self,
        dims: ModelDimensions,
        tokenizer: Tokenizer,
        options: TranscribeOptions,
        *,
        n_samples: int,
        clips: Sequence[tuple[int, int]] | None = None,
        first_window: int = 0,
        written: Written | None = None,
    ) -> None:
        """`n_samples`: length of the recording at 16 kHz; a recording of at least one sample has a first window.

        `clips`: what is to be heard, in frames, where it is not `options.clip_timestamps`. `first_window`: its number.
        `written`: the prompts of `options`, where somebody has read them already.
        """
        self._tokenizer, self._options = tokenizer, options
        self._reader = SegmentReader(dims, tokenizer)
        self._duration = n_samples / SAMPLE_RATE
        self.n_frames = count_frames(n_samples)
        self._clips = clip_frames(options.clip_timestamps, self.n_frames) if clips is None else list(clips)
        self._seek = self._clips[0][0] if self._clips else self.n_frames
        self._n_windows = first_window
        self._window: Window | None = None
        self._segments: list[Segment] = []
        self._written = written or Written.of(options, tokenizer)
        self._tokens: list[int] = list(self._written.initial)
        self._prompt_reset_since = 0
        # As in the reference, even where the first clip starts later; a later part of a recording starts at its own.
        self._last_speech = self._seek / FRAMES_PER_SECOND if first_window else 0.0
        self.language: str | None = options.language if dims.is_multilingual else "en"
        """That of the first window."""
        self._named, self._latest = self.language, self.language
        self.language_probs: dict[str, float] = {}
        self._hears_again = False
        """Whether the window before was left early, for speech that its text passes over."""
        self._is_split = False
        """Whether the window was cut short, for speech that its text passed over."""
        self._echoes = Echoes()
        self.skipped: list[Skipped] = []
        """Windows without speech, in order."""

    @property
    def seek(self) -> int:
        """Frame from which the next window starts; `n_frames` at the end."""
        return self._seek

    def next_window(self) -> Window | None:
        """The window to decode now, the same one until it is fed; None when the recording is done."""
        if self._window is None:
            self._window = self._make_window()
        return self._window

    def feed(self, result: DecodingResult) -> tuple[Segment, ...]:
        """Take the result of the window that `next_window` gave; its segments with text, in order."""
        window = self._window
        if window is None:
            raise ValueError("feed() without a window asked for")
        self._window = None
        self._n_windows += 1
        if self.language is None:
            self.language, self.language_probs = result.language, result.language_probs
        options = window.heard_with(self._options)
        if is_speech_after_all(result, options):
            self._window = replace(window, voiced=True)
            return ()
        self._seek = window.seek + window.n_frames
        if (reason := reason_to_skip(result, window, options)) is not None:
            self.skipped.append(Skipped(reason, window.seek / FRAMES_PER_SECOND, self._seek / FRAMES_PER_SECOND))
            return ()
        if (frame := self._passed_over(window, result)) is not None:
            self._window, self._seek, self._is_split = replace(window, n_frames=frame), window.seek, True
            return ()
        self._is_split = False
        if self._latest not in (None, result.language):
            self._prompt_reset_since = len(self._tokens)
        self._latest = result.language
        segments, advance = self._reader.read(window, result)
        seek, discarded = window.seek + advance, False
        if result.token_times is not None:
            segments, seek, discarded = self._place_words(window, result, result.token_times, segments, seek)
        if discarded:
            self._seek = max(seek, window.seek + 1)
            return ()
        again = self._missed(window, result)
        if again is not None:
            segments, seek = self._before(again, segments), again
        self._hears_again = again is not None
        self.skipped += left_out(result, window, segments, self._tokenizer.timestamp_begin, until=seek)
        # However the words fall, the next window is another one.
        self._seek = max(seek, window.seek + 1)
        segments, echoes = self._echoes.sift(segments, result.speech)
        self.skipped += echoed(echoes, window)
        return self._keep(segments, result)

    def _keep(self, segments: Sequence[Segment], result: DecodingResult) -> tuple[Segment, ...]:
        """Number the segments that have a text and last; what comes next is conditioned on them, if on anything."""
        kept = [segment for segment in segments if segment.start != segment.end and segment.text.strip()]
        kept = [replace(segment, id=len(self._segments) + i) for i, segment in enumerate(kept)]
        self._segments += kept
        self._tokens += [token for segment in kept for token in segment.tokens]
        if not self._options.condition_on_previous_text or result.temperature > 0.5 or result.failed:
            self._prompt_reset_since = len(self._tokens)
        return tuple(kept)

    def stop(self) -> None:
        """Hear nothing more."""
        self._clips.clear()
        self._window = None

    def result(self) -> Transcription:
        """What has been transcribed so far; all of it once `next_window` answers None."""
        language = self.language or "en"
        return Transcription(
            task=self._options.task,
            language=language,
            language_probability=self.language_probs.get(language),
            duration=self._duration,
            text=self._tokenizer.decode(self._tokens[len(self._written.initial) :]),
            segments=tuple(self._segments),
            language_probabilities=self.language_probs,
            warnings=tuple(self.skipped),
        )

    def _make_window(self) -> Window | None:
        while self._clips and self._seek >= self._clips[0][1]:
            self._clips.pop(0)
            if self._clips:
                self._seek = self._clips[0][0]
        if not self._clips:
            return None
        n_frames = min(N_FRAMES, self.n_frames - self._seek, self._clips[0][1] - self._seek)
        if n_frames <= 0:  # a clip that starts after the end of the recording
            self._clips.clear()
            return None
        fixed = self._written.fixed
        since = max(self._prompt_reset_since, self._written.n_carried)
        if self._options.guards and self._segments and n_frames < _SHORT:
            since = len(self._tokens)
        room = MAX_PROMPT_TOKENS - len(fixed)
        prompt = (*fixed, *self._tokens[since:][-room:]) if room else fixed
        index, named = self._n_windows, self._named
        return Window(index, self._seek, n_frames, named, prompt, n_fixed=len(fixed), follows=self._latest)

    def _place_words(
        self, window: Window, result: DecodingResult, times: TokenTimes, segments: list[Segment], seek: int
    ) -> tuple[list[Segment], int, bool]:
        """The window's segments with words, where to go on, and whether the window counts for nothing."""
        options, last_speech = self._options, self._last_speech
        segments = add_words(
            segments, times, self._tokenizer, language=result.language, options=options, last_speech=last_speech
        )
        rest = rest_of(result.tokens, self._tokenizer)
        end = speech_end(segments)
        if rest != "complete" and end is not None and end > window.seek / FRAMES_PER_SECOND:
            seek = round(end * FRAMES_PER_SECOND)
        if options.hallucination_silence_threshold is not None:
            verdict = judge(
                segments,
                window,
                seek=seek,
                n_frames=self.n_frames,
                threshold=options.hallucination_silence_threshold,
                last_speech=last_speech,
                rest=rest,
            )
            if verdict.skipped is not None:
                start, end = verdict.skipped
                self.skipped.append(Skipped("hallucination", start, min(end, self._duration)))
            if verdict.discarded:
                return [], verdict.seek, True
            segments, seek = list(verdict.segments), verdict.seek
            end = speech_end(segments)
        if end is not None:
            self._last_speech = end
        if not options.word_timestamps:
            segments = [replace(segment, words=None) for segment in segments]
        return segments, seek, False

    def _before(self, frame: int, segments: Sequence[Segment]) -> list[Segment]:
        """What of the window was said before this frame, from which the next one starts.

        Words may be found later than the timestamps around them, in the speech that is to be heard again.
        """
        stop = frame / FRAMES_PER_SECOND
        self._last_speech = min(self._last_speech, stop)
        return [clamped(one, one.start, min(one.end, stop)) for one in segments if one.start < stop]

    def _missed(self, window: Window, result: DecodingResult) -> int | None:
        """The frame from which to hear again what the text passes over; None for nothing.

        What its own timestamps say is missing is not looked for twice in a row.
        """
        if not self._may_miss(result):
            return None
        written, _ = self._reader.read(window, result)
        flags = zip(written, early(written, result.speech), strict=True)
        waiting = {round(one.end * FRAMES_PER_SECOND) - window.seek for one, is_early in flags if is_early}
        begin = self._tokenizer.timestamp_begin
        silent = [] if self._hears_again else pauses(result.tokens, begin, window)
        silent += unheard(result, window, begin)
        frame = resumption([pause for pause in sorted(silent) if waiting.isdisjoint(pause)], result.speech)
        return None if frame is None else window.seek + frame

    def _passed_over(self, window: Window, result: DecodingResult) -> int | None:
        """How many frames at its beginning the window's text passes over; None for none, and not twice in a row."""
        if self._is_split or not self._may_miss(result):
            return None
        return passed_over(result, window, self._tokenizer.timestamp_begin)

    def _may_miss(self, result: DecodingResult) -> bool:
        """Whether to ask what a text passes over: a loop stands for noise, but where it goes round what was heard."""
        judged = self._options.hallucination_silence_threshold is not None
        return bool(result.speech) and not judged and (result.circling or not result.looped)
