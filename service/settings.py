"""Every setting of the service: one frozen object, validated at start; `service.environment` reads it.

Names carry units, types carry bounds, a description says what changes. The README's table is made of them.
"""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

from model.options import MAX_WIDTH
from service import setting_values

PREFIX = "WHISPER_"
_MIB = 1024 * 1024


class SettingsError(Exception):
    """The environment is not usable; the message is one line that names the variable."""


class Settings(BaseSettings):
    """The service's configuration; `service.environment.load` builds it with errors that name the variable."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, env_ignore_empty=True, hide_input_in_errors=True)

    model: str = Field(
        default="base", min_length=1, max_length=4096, description="Name of a published size, or a path."
    )
    model_aliases: Annotated[tuple[str, ...], NoDecode, BeforeValidator(setting_values.model_aliases)] = Field(
        default=(),
        description="Comma list of further names for the model, beside its own and `whisper-1`, for OpenAI clients "
        "whose model name is fixed.",
    )
    devices: Annotated[tuple[str, ...], NoDecode, BeforeValidator(setting_values.devices)] = Field(
        default=("auto",),
        description="`auto`, or a comma list of `cpu`, `cuda:0`, ...: one worker process each. A GPU may be listed "
        "twice.",
    )
    compute_type: Literal["auto", "int8", "float32", "bfloat16", "float16"] = Field(
        default="auto", description="Arithmetic of the model; `auto` fits the device."
    )
    encoder_context: Literal["auto", "full", "short"] = Field(
        default="auto",
        description="`short` computes the padding after a clip in advance: faster clips. `auto` is short in int8.",
    )
    cross_kv: Literal["auto", "int8", "fp8"] = Field(
        default="auto",
        description="Number format of the cross-attention cache. `auto` is the compute type's own; 8 bits fit more "
        "windows.",
    )
    download_dir: Path | None = Field(
        default=None, description="Folder for downloaded weights; empty is the user's cache."
    )
    threads_per_worker: int = Field(
        default=0, ge=0, le=1024, description="CPU threads of a model worker; 0 divides the cores among the workers."
    )
    start_seconds: float = Field(
        default=1800.0,
        gt=0,
        le=86400,
        description="A worker that is not ready after this time, including downloads, is replaced; the next one "
        "continues a download.",
    )
    stall_seconds: float = Field(
        default=60.0,
        gt=0,
        le=3600,
        description="A worker that has work but makes no progress for this time is replaced.",
    )
    max_batch_rows: int = Field(
        default=0,
        ge=0,
        le=512,
        description="Most rows that a worker decodes together. 0: as many as fit, at most 16 on a CPU, 64 on a GPU. "
        "If more are asked for than fit, it refuses to start.",
    )
    beam_size: int = Field(
        default=0,
        ge=0,
        le=MAX_WIDTH,
        description="Default `beam_size` for requests without one, OpenAI clients included: fewer errors, more time; "
        "0 is none.",
    )
    gpu_memory_share: float = Field(
        default=0.9,
        gt=0,
        le=1,
        description="Share of a GPU's memory that all workers on it may use together, split evenly; less if other "
        "programs use it.",
    )
    cross_attention: Literal["auto", "torch", "triton"] = Field(
        default="auto",
        description="What computes a decode step's attention on a GPU; `auto` is the Triton kernel if it works, else "
        "torch.",
    )
    cuda_graphs: Literal["auto", "true", "false"] = Field(
        default="auto",
        description="On a GPU, capture decode steps as CUDA graphs and replay them; `auto` if a check at the start "
        "passes.",
    )

    audio_children: int = Field(default=2, ge=1, le=64, description="Sandboxed processes that decode uploads.")
    audio_child_memory_bytes: int = Field(
        default=2048 * _MIB, ge=128 * _MIB, le=64 * 1024 * _MIB, description="Most address space of a decoding process."
    )
    decode_seconds: float = Field(
        default=60.0,
        gt=0,
        le=3600,
        description="Time to decode one upload; longer is a 400, or a 503 on an overloaded machine.",
    )
    max_decoded_bytes: int = Field(
        default=4096 * _MIB,
        ge=_MIB,
        le=64 * 1024 * _MIB,
        description="Decoded size of one upload, before resampling: an hour of 5.1 at 48 kHz; more is a 413.",
    )
    max_audio_seconds: float = Field(
        default=3600.0, ge=1, le=86_400, description="Length of one recording; longer is a 413."
    )

    max_upload_bytes: int = Field(
        default=100 * _MIB, ge=1024, le=4096 * _MIB, description="Size of one request body; more is a 413."
    )
    upload_seconds: float = Field(
        default=60.0, gt=0, le=3600, description="Time to receive a request's head, and its body; slower is a 408."
    )
    upload_bytes_per_second: int = Field(
        default=0,
        ge=0,
        le=1024 * _MIB,
        description="Minimum upload rate; large uploads need at least half the rate that would meet "
        "`WHISPER_UPLOAD_SECONDS`. Slower uploads get 408 early. 0 is off; docker-compose.yml and deploy/kubernetes "
        "set 8192.",
    )
    upload_grace_seconds: float = Field(
        default=10.0, gt=0, le=3600, description="Time that an upload may pause before its rate counts."
    )
    max_queue_requests: int = Field(
        default=64,
        ge=1,
        le=10_000,
        description="Most requests in progress (uploading, waiting or in work); more get 503 instead of waiting.",
    )
    max_queue_upload_bytes: int = Field(
        default=1024 * _MIB,
        ge=1024,
        le=1024 * 1024 * _MIB,
        description="Most upload bytes in memory, over all requests; more is a 503.",
    )
    max_queue_audio_seconds: float = Field(
        default=10_800.0,
        ge=1,
        le=10_000_000,
        description="Most audio waiting or in work, over all requests; more is a 503.",
    )
    max_key_requests: int = Field(
        default=0,
        ge=0,
        le=10_000,
        description="Most requests in progress for one API key; more get 429; 0 is no limit. Needs API keys.",
    )
    request_timeout_seconds: float = Field(
        default=900.0, gt=0, le=86_400, description="Most time from a request's arrival to its answer; later is a 504."
    )

    drain_notice_seconds: float = Field(
        default=5.0,
        ge=0,
        le=600,
        description="After SIGTERM, time during which /readyz answers 503 and the port stays open.",
    )
    drain_accept_seconds: float = Field(
        default=0.0,
        ge=0,
        le=600,
        description="After SIGTERM, time during which requests are still accepted, until load balancers have seen "
        "/readyz.",
    )
    drain_seconds: float = Field(
        default=30.0, gt=0, le=3600, description="After SIGTERM, most time until the process has ended."
    )

    api_keys: Annotated[tuple[SecretStr, ...], NoDecode, BeforeValidator(setting_values.api_keys)] = Field(
        default=(), description="Comma list of keys; a request must have one of them. Empty: no key is needed."
    )
    docs: bool | None = Field(
        default=None, description="Serve /docs and /openapi.json. Empty: only if there are no API keys."
    )
    host: str = Field(default="127.0.0.1", min_length=1, max_length=255, description="Address to listen on.")
    port: int = Field(default=8000, ge=0, le=65_535, description="Port to listen on; 0 takes a free one and logs it.")
    trace_endpoint: Annotated[str, AfterValidator(setting_values.trace_endpoint)] = Field(
        default="",
        max_length=2048,
        description="OTLP/HTTP address for OpenTelemetry spans, `http://collector:4318/v1/traces`; empty is none.",
    )
    trace_ratio: float = Field(
        default=1.0,
        ge=0,
        le=1,
        description="Share of requests that are traced, unless the caller's `traceparent` decides.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Lowest level that is logged."
    )

    @model_validator(mode="after")
    def _check_together(self) -> "Settings":
        if self.max_queue_audio_seconds < self.max_audio_seconds:
            raise ValueError("MAX_QUEUE_AUDIO_SECONDS must be at least MAX_AUDIO_SECONDS, or the longest can never run")
        if self.max_queue_upload_bytes < self.max_upload_bytes:
            raise ValueError("MAX_QUEUE_UPLOAD_BYTES must be at least MAX_UPLOAD_BYTES, or the largest can never enter")
        if 0 < self.max_batch_rows < self.beam_size:
            raise ValueError("BEAM_SIZE must be at most MAX_BATCH_ROWS, of which a beam takes one")
        if self.max_key_requests and not self.api_keys:
            raise ValueError("MAX_KEY_REQUESTS needs API_KEYS: without keys nobody's requests are counted")
        if self.drain_accept_seconds > self.drain_notice_seconds:
            raise ValueError("DRAIN_ACCEPT_SECONDS must be at most DRAIN_NOTICE_SECONDS, when listening ends")
        if self.drain_notice_seconds >= self.drain_seconds:
            raise ValueError("DRAIN_NOTICE_SECONDS must be less than DRAIN_SECONDS, which includes it")
        return self

    @classmethod
    def settings_customise_sources(  # type: ignore[override]
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003  the library names it
        **sources: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments (tests) before the environment, and nothing else: no .env file, no secrets folder."""
        return sources["init_settings"], sources["env_settings"]

    @property
    def docs_enabled(self) -> bool:
        """Whether `/docs` and `/openapi.json` exist."""
        return not self.api_keys if self.docs is None else self.docs
