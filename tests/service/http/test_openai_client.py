"""The official client of the hosted API against the service over a real socket."""

import re
from collections.abc import Iterator

import httpx
import openai
import pytest

from tests.fakes import script
from tests.serving import ServiceProcess, wait_until

UPLOAD = ("a.wav", script(seconds=8.47, text="guten", language="de"))


@pytest.fixture(scope="module")
def client() -> Iterator[openai.OpenAI]:
    """A client that was told the address and nothing else."""
    service = ServiceProcess()
    try:
        service.wait_ready(60.0)
        with openai.OpenAI(base_url=f"{service.url}/v1", api_key="none") as client:
            yield client
    finally:
        service.stop()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # so the client calls translations
def test_the_official_client_is_served(client) -> None:
    assert client.models.retrieve("base") == client.models.list().data[0]
    transcriptions, translations = client.audio.transcriptions, client.audio.translations
    short = transcriptions.create(file=UPLOAD, model="whisper-1")
    assert (short.text, short.usage.seconds) == ("guten", 8.47)
    verbose = transcriptions.create(
        file=UPLOAD, model="base", response_format="verbose_json", temperature=0, stream=False,
        timestamp_granularities=["word", "segment"], extra_body={"hotwords": "Mekka", "vad": True},
    )  # fmt: skip
    assert (verbose.language, verbose.duration, verbose.words) == ("german", 8.47, [])
    assert verbose.segments[0].text == " guten"
    subtitles = transcriptions.create(file=UPLOAD, model="base", response_format="srt", extra_body={"vad": "false"})
    assert subtitles.startswith("1\n00:00:00,000 --> ")
    assert translations.create(file=UPLOAD, model="whisper-1", prompt="Good").text == "guten"
    assert translations.create(file=UPLOAD, model="whisper-1", response_format="verbose_json").language == "english"


def test_the_official_client_understands_what_is_refused(client) -> None:
    with pytest.raises(openai.NotFoundError) as missing:
        client.models.retrieve("large-v3")
    assert (missing.value.code, missing.value.param) == ("model_not_found", "model")
    with pytest.raises(openai.NotFoundError):
        client.audio.transcriptions.create(file=UPLOAD, model="gpt-4o-transcribe")
    with pytest.raises(openai.BadRequestError) as refused:
        client.audio.transcriptions.create(file=UPLOAD, model="base", include=["logprobs"])
    assert (refused.value.param, len(refused.value.request_id)) == ("include[]", 32)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # so the client calls translations
@pytest.mark.parametrize(("kind", "fault"), [("transcriptions", "bug"), ("translations", "quarantined")])
def test_the_official_client_asks_once_for_what_fails_on_our_side(client, kind, fault) -> None:
    """A request that crashes workers must not come again by itself."""
    assert client.max_retries > 0
    with pytest.raises(openai.InternalServerError) as failed:
        getattr(client.audio, kind).create(file=("a.wav", script(worker_error=fault)), model="whisper-1")
    assert failed.value.status_code == 500
    counted = re.compile(f'^whisper_requests_total{{endpoint="/v1/audio/{kind}",status="500"}} (.*)$', re.MULTILINE)
    metrics = str(client.base_url.join("/metrics"))
    wait_until(lambda: counted.findall(httpx.get(metrics, trust_env=False).text) != ["0.0"])
    assert counted.findall(httpx.get(metrics, trust_env=False).text) == ["1.0"]
