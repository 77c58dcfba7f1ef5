import pytest
from pydantic import ValidationError

from service.environment import load
from service.settings import PREFIX, Settings, SettingsError


def test_defaults_hold_without_an_environment(monkeypatch):
    for name in Settings.model_fields:
        monkeypatch.delenv(PREFIX + name.upper(), raising=False)
    settings = load()
    assert (settings.host, settings.port) == ("127.0.0.1", 8000)
    assert settings.model == "base"
    assert settings.devices == ("auto",)
    assert settings.docs_enabled


def test_the_longest_recording_may_have_six_channels(monkeypatch):
    for name in ("WHISPER_MAX_AUDIO_SECONDS", "WHISPER_MAX_DECODED_BYTES"):
        monkeypatch.delenv(name, raising=False)
    settings = Settings()
    assert settings.max_decoded_bytes >= settings.max_audio_seconds * 48_000 * 6 * 4


def test_lists_come_from_commas(monkeypatch):
    monkeypatch.setenv("WHISPER_DEVICES", "cuda:0, cuda:1")
    monkeypatch.setenv("WHISPER_API_KEYS", "first-key,second-key")
    monkeypatch.setenv("WHISPER_MODEL_ALIASES", "gpt-4o-transcribe, openai/whisper")
    settings = load()
    assert settings.model_aliases == ("gpt-4o-transcribe", "openai/whisper")
    assert settings.devices == ("cuda:0", "cuda:1")
    assert [key.get_secret_value() for key in settings.api_keys] == ["first-key", "second-key"]
    assert "first-key" not in repr(settings)
    assert not settings.docs_enabled


def test_a_collector_has_a_host(monkeypatch):
    for endpoint in ("http://collector:4318/v1/traces", "https://[::1]/v1/traces", "http://user:word@10.0.0.1"):
        monkeypatch.setenv("WHISPER_TRACE_ENDPOINT", endpoint)
        assert load().trace_endpoint == endpoint


def test_two_workers_may_share_a_gpu(monkeypatch):
    monkeypatch.setenv("WHISPER_DEVICES", "cuda:0,cuda:0,cuda:1")
    assert load().devices == ("cuda:0", "cuda:0", "cuda:1")


def test_docs_can_be_asked_for_with_keys():
    assert Settings(docs=True, api_keys=("first-key",)).docs_enabled
    assert not Settings(docs=False).docs_enabled


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("WHISPER_PORT", "65536"),
        ("WHISPER_PORT", "http"),
        ("WHISPER_DEVICES", "gpu"),
        ("WHISPER_DEVICES", "cpu,cuda:0,cpu"),
        ("WHISPER_DEVICES", "cpu,auto"),
        ("WHISPER_DEVICES", ","),
        ("WHISPER_COMPUTE_TYPE", "int4"),
        ("WHISPER_CROSS_KV", "int4"),
        ("WHISPER_CROSS_ATTENTION", "flash"),
        ("WHISPER_MAX_UPLOAD_BYTES", "0"),
        ("WHISPER_UPLOAD_SECONDS", "nan"),
        ("WHISPER_UPLOAD_SECONDS", "inf"),
        ("WHISPER_MODEL_ALIASES", "two words,base"),
        ("WHISPER_MODEL_ALIASES", ",".join(["name"] * 33)),
        ("WHISPER_API_KEYS", "short"),
        ("WHISPER_API_KEYS", "with a blank in it"),
        ("WHISPER_API_KEYS", " , "),
        ("WHISPER_API_KEYS", '"first-key"'),
        ("WHISPER_API_KEYS", "'first-key,second-key' "),
        ("WHISPER_API_KEY", "first-key"),
        ("WHISPER_TRACE_ENDPOINT", "http://"),
        ("WHISPER_TRACE_ENDPOINT", "https:///v1/traces"),
        ("WHISPER_TRACE_ENDPOINT", "http://:4318/v1/traces"),
        ("WHISPER_TRACE_ENDPOINT", "http://collector:431800/v1/traces"),
        ("WHISPER_TRACE_ENDPOINT", "http://collector:port/v1/traces"),
        ("WHISPER_TRACE_ENDPOINT", "http://[::1/v1/traces"),
        ("WHISPER_MAX_AUDIO_SECONDS", "20000"),
        ("WHISPER_MAX_QUEUE_UPLOAD_BYTES", "2048"),
        ("WHISPER_DRAIN_NOTICE_SECONDS", "31"),
        ("WHISPER_MAX_KEY_REQUESTS", "4"),
        ("WHISPER_BEAM_SIZE", "17"),
    ],
)
def test_a_bad_value_is_one_line_that_names_the_variable(monkeypatch, variable, value):
    monkeypatch.setenv(variable, value)
    with pytest.raises(SettingsError) as caught:
        load()
    assert variable in str(caught.value)
    assert "\n" not in str(caught.value)
    assert value not in str(caught.value) or value in ("65536", "0", "gpu", "auto", ",", "31", "http://")


@pytest.mark.parametrize("endpoint", ["collector:4318", "http://", "http://collector:port/v1/traces"])
def test_a_bad_trace_endpoint_is_told_the_form_of_a_good_one(monkeypatch, endpoint):
    monkeypatch.setenv("WHISPER_TRACE_ENDPOINT", endpoint)
    with pytest.raises(SettingsError) as caught:
        load()
    wanted = "WHISPER_TRACE_ENDPOINT: must be an address of the form http://collector:4318/v1/traces"
    assert str(caught.value) == wanted


def test_no_more_beams_than_rows(monkeypatch):
    monkeypatch.setenv("WHISPER_BEAM_SIZE", "5")
    monkeypatch.setenv("WHISPER_MAX_BATCH_ROWS", "5")
    assert load().beam_size == 5
    monkeypatch.setenv("WHISPER_MAX_BATCH_ROWS", "4")
    with pytest.raises(SettingsError, match="WHISPER_BEAM_SIZE must be at most WHISPER_MAX_BATCH_ROWS"):
        load()


def test_settings_are_frozen_and_closed():
    with pytest.raises(ValidationError):
        Settings().port = 1
    with pytest.raises(ValidationError):
        Settings(prot=1)


def test_every_setting_is_described_and_bounded():
    for name, field in Settings.model_fields.items():
        assert field.description, name
        if field.annotation in (int, float):
            bounds = {type(rule).__name__ for rule in field.metadata}
            assert bounds & {"Ge", "Gt"}, name
            assert "Le" in bounds, name
