"""What is noted about one request on its way through the HTTP process.

Made by `service.http.middleware`, which writes the log line, the metrics and the trace from it in the end; whoever
handles the request adds to it.
"""

from dataclasses import dataclass, field
from typing import Any

from service.errors import ServiceError
from service.http.tracing import Stage


@dataclass(slots=True)
class RequestContext:
    """One request's identity, and what is noted about it on the way."""

    request_id: str
    arrival: float
    """On the monotonic clock."""
    endpoint: str = "other"
    key_id: str | None = None
    stage: str = "receive"
    code: str | None = None
    notes: dict[str, Any] = field(default_factory=dict)
    """For the log line."""
    headers: dict[str, str] = field(default_factory=dict)
    """For the answer, if it is a refusal."""
    refused: ServiceError | None = None
    """What the connection told the client by itself before it closed (`service.http.connection`)."""
    stages: list[Stage] = field(default_factory=list)
    """For the trace."""

    def passed(self, name: str, start: float, end: float, **notes: Any) -> None:
        """The request was in this stage from `start` to `end`, on the monotonic clock."""
        self.stages.append(Stage(name, start, end, notes))
