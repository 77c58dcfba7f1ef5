"""The long form of one recording: one `Transcript`, or several side by side. Pure.

Gets the options and, where they ask for it, the speech probabilities of `model.voice.vad`; hands windows to whoever
decodes them and puts what comes back in order. The library and the service drive the same object.

- Sequential: one lane, a `Transcript` over everything that is to be heard.
- Batched: what is to be heard is cut in pauses into parts of at most 30 s (`model.voice.speech.cut`), each a lane with
  a `Transcript` of its own, so that seeking, conditioning and skipping inside a part are the sequential ones. Lanes
  know nothing of each other but the language of the first, from which only a clear change departs. Each begins with the
  initial prompt.
- Segments come out in the order of time: those of a lane once all lanes before it are done.
- A lane does not hear the pause in which its part was cut: given a fraction of a second in which nobody speaks, and the
  text before it, the model repeats that text.
- With `vad`, only stretches of speech are heard, and what lies between them is reported as skipped.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from model.dims import FRAMES_PER_SECOND, N_FRAMES, ModelDimensions
from model.longform.clips import clips_within, count_frames, empty_clips
from model.longform.transcript import Transcript
from model.options import TranscribeOptions
from model.segments import Segment, Skipped, Transcription
from model.tokenizer import Tokenizer
from model.voice.speech import Stretch, cut, gaps, last_speech, overlap, speech
from model.window import DecodingResult, Window, Written
from model.words import clamped

_LANE_WINDOWS = 1 << 16
"""Window numbers, which seed sampling, that a lane has for itself."""
_SHORTEST_SEGMENT = 0.02
_PAUSE = 100
"""Frames at the end of a part that are not heard again for themselves where nobody speaks in them."""


@dataclass(eq=False, slots=True)
class _Lane:
    transcript: Transcript
    clips: list[Stretch]
    """What is heard in it, in order."""
    last_speech: int
    """Frame after which nobody speaks in it; where that is not known, the recording's last."""
    taken: bool = False
    """Whether somebody is decoding its window."""
    held: list[Segment] = field(default_factory=list)
    """Segments that wait for the lanes before."""

    def feed(self, result: DecodingResult) -> None:
        """Take a window's result; the pause at the end of the part is no window."""
        self.taken = False
        self.held += self.transcript.feed(result)
        if max(self.last_speech, self.clips[-1][1] - _PAUSE) <= self.transcript.seek:
            self.transcript.stop()

    @property
    def done(self) -> bool:
        return not self.taken and self.transcript.next_window() is None


class Recording:
    """Where a recording stands. Any number of its windows may be decoded at a time, and end in any order."""

    def __init__(
        self,
        dims: ModelDimensions,
        tokenizer: Tokenizer,
        options: TranscribeOptions,
        *,
        n_samples: int,
        probabilities: Sequence[float] = (),
    ) -> None:
        """`probabilities`: one per 32 ms, where `needs_speech` says so; ValueError where they are missing.

        `OptionError` where no clip has a part of the recording.
        """
        if needs_speech(options, n_samples) and not probabilities:
            raise ValueError("these options need speech probabilities")
        self.n_frames = count_frames(n_samples)
        clips = clips_within(options.clip_timestamps, n_samples)
        heard = overlap(clips, speech(probabilities, self.n_frames)) if options.vad else clips
        self._unheard = [Skipped("vad", *_seconds(gap)) for gap in gaps(heard, clips)]
        self._unheard += empty_clips(options.clip_timestamps, self.n_frames)
        parts = [heard]
        if options.long_form == "batched":
            parts = [[part] for stretch in heard for part in cut(stretch, probabilities)] or [[]]
        written = Written.of(options, tokenizer)
        self._lanes = [
            _Lane(
                Transcript(
                    dims, tokenizer, options, n_samples=n_samples, clips=part, written=written,
                    first_window=number * _LANE_WINDOWS,
                ),
                clips=part,
                last_speech=last_speech(part[0], probabilities) if len(parts) > 1 and probabilities else self.n_frames,
            )
            for number, part in enumerate(parts)
        ]  # fmt: skip
        # The reference's own times stay where nothing follows that they could reach into.
        self._bounds = options.guards or len(heard) > 1 or len(parts) > 1
        self._guards = options.guards
        self._current = 0
        """The first lane that is not done."""
        self._segments: list[Segment] = []
        self.language: str | None = self._lanes[0].transcript.language
        self.language_probs: dict[str, float] = {}
        self._settle()

    @property
    def is_sequential(self) -> bool:
        """Whether there is one window at a time at most."""
        return len(self._lanes) == 1

    @property
    def done(self) -> bool:
        """Whether every window has been fed."""
        return self._current == len(self._lanes)

    @property
    def lane_frames(self) -> list[int]:
        """Frames that are to be heard, by lane."""
        return [sum(end - start for start, end in lane.clips) for lane in self._lanes]

    @property
    def frames_done(self) -> int:
        """Frames before which everything is final."""
        return self.n_frames if self.done else min(self.n_frames, self._lanes[self._current].transcript.seek)

    @property
    def waiting(self) -> int:
        """Windows that are there to be taken."""
        return sum(not lane.taken and not lane.done for lane in self._lanes[self._current :])

    @property
    def guards(self) -> Counter[str]:
        """Stretches skipped so far, by reason."""
        fed = (skipped for lane in self._lanes for skipped in lane.transcript.skipped)
        return Counter(skipped.reason for skipped in (*self._unheard, *fed))

    def take(self) -> tuple[int, Window] | None:
        """The next window to decode and its lane; None while all that are left are being decoded, and at the end."""
        for number, lane in enumerate(self._lanes[self._current :], start=self._current):
            if not lane.taken and (window := lane.transcript.next_window()) is not None:
                lane.taken = True
                return number, window if window.language else replace(window, follows=self._follows(window))
        return None

    def _follows(self, window: Window) -> str | None:
        """The language that a window departs from only where another one is clear; None where it settles it.

        With `guards` a window in which nobody was heard settles nothing: what noise is taken for is chance.
        """
        if self._guards and self.is_sequential and not self._segments and not window.voiced:
            return window.follows
        return window.follows or self.language

    def window(self, lane: int) -> Window:
        """The window that was taken of a lane and is not fed yet; ValueError where there is none."""
        window = self._lanes[lane].transcript.next_window()
        if window is None:
            raise ValueError("nothing was taken of this lane")
        return window

    def put_back(self, lane: int) -> None:
        """Nobody is decoding the window that was taken of this lane: it is to be taken again."""
        self._lanes[lane].taken = False

    def hear_language(self, probabilities: Mapping[str, float]) -> str:
        """Note the language of the recording, as the first window in which somebody speaks tells it; the code."""
        self.language_probs = dict(probabilities)
        self.language = next(iter(probabilities), "en")
        return self.language

    def feed(self, lane: int, result: DecodingResult) -> tuple[Segment, ...]:
        """Take the result of the window that was taken of a lane; the segments that are final now, in order."""
        if self.language is None:
            self.language, self.language_probs = result.language, result.language_probs
        self._lanes[lane].feed(result)
        return self._settle()

    def result(self) -> Transcription:
        """What has been transcribed so far; all of it once everything is `done`."""
        results = [lane.transcript.result() for lane in self._lanes]
        language = self.language or "en"
        return replace(
            results[0],
            language=language,
            language_probability=self.language_probs.get(language),
            language_probabilities=self.language_probs,
            text="".join(result.text for result in results),
            segments=tuple(self._segments),
            warnings=tuple(_joined([*self._unheard, *(skipped for result in results for skipped in result.warnings)])),
        )

    def _settle(self) -> tuple[Segment, ...]:
        """Let out what no lane before can precede any more."""
        final: list[Segment] = []
        while self._current < len(self._lanes):
            lane = self._lanes[self._current]
            final += [self._inside(segment, lane.clips) for segment in lane.held] if self._bounds else lane.held
            lane.held = []
            if not lane.done:
                break
            self._current += 1
        final = [replace(segment, id=len(self._segments) + i) for i, segment in enumerate(final)]
        self._segments += final
        return tuple(final)

    def _inside(self, segment: Segment, clips: Sequence[Stretch]) -> Segment:
        """The segment ended with its clip: the model may time the last words beyond what it was given to hear.

        Times of words are found in what was heard; the reference then makes the outer ones longer than their segment.
        """
        if segment.words and not self._guards:
            return segment
        stop = next((last for _, last in clips if segment.seek < last), clips[-1][1]) / FRAMES_PER_SECOND
        start = min(segment.start, max(segment.seek / FRAMES_PER_SECOND, stop - _SHORTEST_SEGMENT))
        end = max(min(segment.end, stop), start)
        return clamped(segment, start, end)


def needs_speech(options: TranscribeOptions, n_samples: int) -> bool:
    """Whether a `Recording` of this length needs speech probabilities; `OptionError` as there."""
    clips = clips_within(options.clip_timestamps, n_samples)
    return options.vad or (options.long_form == "batched" and any(end - start > N_FRAMES for start, end in clips))


def _seconds(stretch: Stretch) -> tuple[float, float]:
    return stretch[0] / FRAMES_PER_SECOND, stretch[1] / FRAMES_PER_SECOND


def _joined(skipped: Sequence[Skipped]) -> list[Skipped]:
    """In order of time, neighbours of one reason as one."""
    result: list[Skipped] = []
    for one in sorted(skipped, key=lambda one: one.start):
        if result and result[-1].reason == one.reason and one.start <= result[-1].end:
            result[-1] = replace(result[-1], end=max(result[-1].end, one.end))
        else:
            result.append(one)
    return result
