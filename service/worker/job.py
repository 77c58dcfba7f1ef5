"""One request inside a model worker: what it was sent, how far it has been heard, which of its windows are decoded.

Used by `service.worker.engine`, which drives it; holds samples, and the pure `model.longform.recording` once those have
been heard.
"""

from collections.abc import Sequence

from torch import Tensor

from model.capabilities import check_options
from model.dims import FRAMES_PER_SECOND
from model.longform.recording import Recording, needs_speech
from model.mel import MaximumSearch, MelSpan
from model.options import TranscribeOptions, check_width
from model.transcriber import Transcriber
from model.voice.vad import SpeechScan
from model.window import Window
from service.wire.messages import DetectLanguage, Finished, Started, Transcribe, WindowTimes
from service.worker.timing import MAX_WINDOWS

MAXIMUM_COST, SPEECH_COST = 1, 2
"""What `Job.listen` costs, in units of some 5 ms on a CPU: 30 s for their maximum, 8 s for speech."""


class Job:
    """One request."""

    def __init__(
        self,
        transcriber: Transcriber,
        request: Transcribe | DetectLanguage,
        samples: Tensor,
        *,
        max_rows: int,
        submitted: float,
    ) -> None:
        """`samples`: (n,) at 16 kHz. `OptionError` for what the model, or a batch of `max_rows` rows, cannot do."""
        self.detect_only = isinstance(request, DetectLanguage)
        asked = request.options if isinstance(request, Transcribe) else TranscribeOptions(long_form="sequential")
        self.options = check_options(asked, transcriber.name, transcriber.model)
        check_width(self.options, max_rows)
        self.request_id, self.samples, self.submitted = request.request_id, samples, submitted
        self.started: float | None = None
        self.lanes: dict[int, int] = {}
        """Lane of the recording by slot of the batch, for each of its windows there."""
        self.windows: list[WindowTimes] = []
        """The first windows that were decoded."""
        self._transcriber = transcriber
        self._maximum = MaximumSearch(transcriber.log_mel, samples)
        self._maximum_known = False
        self._speech: SpeechScan | None = None
        if needs_speech(self.options, len(samples)):
            self._speech = transcriber.detector.scan(samples)
        self._recording: Recording | None = None

    @property
    def recording(self) -> Recording:
        """Where the recording stands; ValueError before it has been heard."""
        if self._recording is None:
            raise ValueError("the recording has not been heard yet")
        return self._recording

    @property
    def heard(self) -> bool:
        """Whether all is known that a first window needs."""
        return self._recording is not None

    @property
    def heard_seconds(self) -> float:
        """Audio that its windows are of, once that is known."""
        return sum(self.recording.lane_frames) / FRAMES_PER_SECOND

    @property
    def least_seconds(self) -> float:
        """Of that, what is decoded window after window at least; 0 where nothing is but one language detected."""
        return 0.0 if self.detect_only else max(self.recording.lane_frames) / FRAMES_PER_SECOND

    def listen(self) -> int:
        """Hear a piece of the recording; what that cost. A call that raised may be made again."""
        if not self._maximum_known:
            self._maximum_known = self._maximum.advance(1)
            cost = MAXIMUM_COST
        else:
            cost = SPEECH_COST
            if self._speech is not None and not self._speech.done:
                self._speech.advance()
        if self._maximum_known and (self._speech is None or self._speech.done):
            self._begin(() if self._speech is None else self._speech.probabilities)
        return cost

    def start(self, now: float) -> Started:
        """Its first window is taken up."""
        self.started = now
        return Started(self.request_id, now - self.submitted)

    def note(self, times: WindowTimes | None) -> None:
        """A window was decoded."""
        if times is not None and len(self.windows) < MAX_WINDOWS:
            self.windows.append(times)

    def span(self, window: Window) -> MelSpan:
        """The sound of a window."""
        return MelSpan(self.samples, window.seek, window.n_frames, self._maximum.found)

    def finished(self, now: float) -> Finished:
        """The last that is said of a recording that is done."""
        started = now if self.started is None else self.started
        result = self.recording.result()
        times = started - self.submitted, now - started
        return Finished(self.request_id, result.language, result.text, *times, result.warnings, tuple(self.windows))

    def _begin(self, probabilities: Sequence[float]) -> None:
        model = self._transcriber
        self._recording = Recording(
            model.dims, model.tokenizer, self.options, n_samples=len(self.samples), probabilities=probabilities
        )
