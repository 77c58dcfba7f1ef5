"""Every way in which a request can end badly, with the answer that the client gets.

    ServiceError                       status  type                    code                       retryable
    ├── BadRequest                     400     invalid_request_error   invalid_value | unknown_field | invalid_http   no
    │   └── InvalidAudio               400     invalid_request_error   invalid_audio              no
    ├── Unauthorized                   401     authentication_error    invalid_api_key            no
    ├── NotFound                       404     invalid_request_error   not_found | model_not_found  no
    ├── MethodNotAllowed               405     invalid_request_error   method_not_allowed         no
    ├── UploadTimeout                  408     invalid_request_error   upload_timeout | upload_too_slow  yes
    ├── TooLarge                       413     invalid_request_error   too_large | audio_too_long no
    ├── UnsupportedEncoding            415     invalid_request_error   unsupported_encoding | unsupported_media_type  no
    ├── QuotaExceeded                  429     rate_limit_error        quota_exceeded             Retry-After
    ├── Unavailable                    503     server_error            overloaded | starting | draining | no_worker
    │                                                                  | not_alive                Retry-After
    ├── DeadlineExceeded               504     server_error            deadline_exceeded          yes
    └── InternalError                  500     server_error            internal_error | request_crashed_worker  no

Raised deep, translated once (`service.http.middleware`). Messages hold no server path, no traceback and nothing of the
upload but the name of a field.
"""


class ServiceError(Exception):
    """Base: `message` and `param` go to the client, the rest is fixed by the class."""

    status = 500
    type = "server_error"
    code = "internal_error"

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after_seconds: float | None = None,
    ) -> None:
        """`retry_after_seconds`: when it may be better, if that is known; each client is told a time a little later."""
        super().__init__(message)
        self.message = message
        self.param = param
        self.code = code if code is not None else type(self).code
        self.retry_after_seconds = retry_after_seconds


class BadRequest(ServiceError):
    """A field that is missing, unknown or out of bounds; `param` names it."""

    status = 400
    type = "invalid_request_error"
    code = "invalid_value"


class InvalidAudio(BadRequest):
    """The file cannot be decoded into sound; the message says why."""

    code = "invalid_audio"


class Unauthorized(ServiceError):
    """No key, or not one of ours."""

    status = 401
    type = "authentication_error"
    code = "invalid_api_key"


class NotFound(ServiceError):
    """No such route, or no such model."""

    status = 404
    type = "invalid_request_error"
    code = "not_found"


class MethodNotAllowed(ServiceError):
    """The route exists, the method does not."""

    status = 405
    type = "invalid_request_error"
    code = "method_not_allowed"


class UploadTimeout(ServiceError):
    """The body did not come in time, or comes so slowly that it loses its place."""

    status = 408
    type = "invalid_request_error"
    code = "upload_timeout"


class TooLarge(ServiceError):
    """Too many bytes, or too many seconds of audio."""

    status = 413
    type = "invalid_request_error"
    code = "too_large"


class UnsupportedEncoding(ServiceError):
    """A `Content-Encoding` or content type that is not taken."""

    status = 415
    type = "invalid_request_error"
    code = "unsupported_encoding"


class QuotaExceeded(ServiceError):
    """This key's own quota is used up."""

    status = 429
    type = "rate_limit_error"
    code = "quota_exceeded"


class Unavailable(ServiceError):
    """Full, starting, draining or without workers; always with `Retry-After`."""

    status = 503
    code = "overloaded"


class DeadlineExceeded(ServiceError):
    """The request's deadline passed before it was done."""

    status = 504
    code = "deadline_exceeded"


class InternalError(ServiceError):
    """Our bug, or a request that crashes workers; never worth a retry."""

    status = 500
