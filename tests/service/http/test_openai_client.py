"""The official client of the hosted API against the service over a real socket."""

from collections.abc import Iterator

import openai
import pytest

from tests.fakes import script
from tests.serving import ServiceProcess

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
