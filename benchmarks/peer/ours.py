"""This project as an engine of `benchmarks.peer.worker`; its packages are loaded where it is made."""

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from benchmarks.peer.engine import STREAMS, Samples

if TYPE_CHECKING:
    from service.worker.engine import Engine as Service


class Ours:
    """This project: the library for one request, the service's engine of 16 rows for several (64 on a GPU)."""

    def __init__(self, load: dict[str, Any]) -> None:
        import torch

        from model.loading import load as load_model
        from model.transcriber import Transcriber

        torch.set_num_threads(load["threads"])
        greedy = {} if load.get("defaults") else {"temperature": (0.0,)}
        self._options = {"language": "en", **greedy, **load.get("options", {})}
        device = load.get("device", "cpu")
        self._rows, self._windows_per_encode = (64, 8) if device == "cuda" else (16, 1)
        self._transcriber: Transcriber = load_model(
            load["model"], device, load["compute_type"], cross_kv=load.get("cross_kv", "auto")
        )
        # On a GPU it records its steps, which takes seconds, before anybody looks at the clock.
        self._service = self._make_service() if device == "cuda" else None

    def _make_service(self) -> "Service":
        """The service's engine, without processes around it."""
        from model.gpu.beside import SideStream
        from service.worker.engine import Engine as Service

        model = self._transcriber.model
        beside = SideStream(model.device) if model.captures_steps else None
        return Service(
            self._transcriber, max_rows=self._rows, windows_per_encode=self._windows_per_encode, beside=beside
        )

    def one(self, samples: Samples) -> str:
        """See `Engine.one`."""
        return self._transcriber.transcribe(samples, **self._options).text

    def many(self, requests: Sequence[Samples]) -> list[str]:
        """Eight streams: a stream sends its next request when its last is answered."""
        import torch

        from model.options import TranscribeOptions
        from service.wire.messages import Finished, Transcribe

        service = self._service = self._service or self._make_service()
        options = TranscribeOptions(**self._options)
        texts: dict[str, str] = {}
        waiting = list(enumerate(requests))[::-1]

        def send() -> None:
            number, samples = waiting.pop()
            request = Transcribe(str(number), "float32", len(samples), options, None)
            service.submit(request, torch.from_numpy(samples), time.monotonic())

        for _ in range(min(STREAMS, len(waiting))):
            send()
        while len(texts) < len(requests):
            for message in service.iterate(time.monotonic()):
                if isinstance(message, Finished):
                    texts[message.request_id] = message.text
                    if waiting:
                        send()
        return [texts[str(number)] for number in range(len(requests))]
