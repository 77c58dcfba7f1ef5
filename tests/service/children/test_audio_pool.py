"""The pool of audio children: what goes in, what comes out, who waits for whom, and what happens when one dies."""

import asyncio
import errno
import logging
import os
import random
import signal
import socket
import subprocess
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest

from model.audio import decode_audio
from service import logs
from service.children import audio_pool as audio
from service.errors import InvalidAudio, TooLarge, Unavailable
from service.wire import memory
from service.wire.audio_messages import MEASURES
from tests.audio_pools import (
    PATIENCE_SECONDS,
    SCRIPTED,
    children,
    decode,
    new_pool,
    outcome,
    read_samples,
    running,
    until,
)
from tests.sounds import as_int16, sndfile, speechlike


async def both_at_work(pool: audio.AudioPool) -> None:
    """Two files are decoded at once, as soon as both children are warm."""
    end, at_once = time.monotonic() + PATIENCE_SECONDS, 0
    while at_once < 2:
        assert time.monotonic() < end
        sleepers = [asyncio.create_task(outcome(pool, b"sleep 0.5")) for _ in range(2)]
        await asyncio.sleep(0.2)
        at_once = pool.busy
        assert await asyncio.gather(*sleepers) == [0.01, 0.01]


@pytest.mark.parametrize(
    ("sandboxes", "told"),
    [
        ([MEASURES] * 3, [(logging.INFO, " ".join(MEASURES), None)]),
        ([("limits",)] * 3, [(logging.WARNING, "limits", " ".join(MEASURES[1:]))]),
        ([()] * 3, [(logging.WARNING, "", " ".join(MEASURES))]),
        (
            [MEASURES, MEASURES[:1], MEASURES[:1]],
            [(logging.INFO, " ".join(MEASURES), None), (logging.WARNING, "limits", " ".join(MEASURES[1:]))],
        ),
    ],
)
def test_the_log_says_once_how_far_the_children_are_locked_down(monkeypatch, sandboxes, told) -> None:
    noted: list[tuple[int, object, object]] = []

    def event(name: str, *, level: int = logging.INFO, **fields: object) -> None:
        if name == "audio_sandbox":
            assert set(fields) <= logs.KEYS
            noted.append((level, fields["held"], fields["missing"]))

    async def start(command: object) -> SimpleNamespace:
        return SimpleNamespace(sandbox=sandboxes.pop())

    async def scenario() -> None:
        pool = new_pool()
        for _ in range(3):
            await pool._started()

    sandboxes = sandboxes[::-1]
    monkeypatch.setattr(logs, "event", event)
    monkeypatch.setattr(audio.AudioProcess, "start", start)
    asyncio.run(scenario())
    assert noted == told


def test_a_real_child_gives_what_the_model_package_gives() -> None:
    speech = speechlike(1.0, 44_100)
    files = [
        sndfile(as_int16(speechlike(1.0)), 16_000, "WAV"),
        sndfile(np.stack([speech, speech], axis=1), 44_100, "MP3"),
    ]

    async def scenario() -> None:
        async with running(new_pool()) as pool:
            assert pool.sandbox
            for file in files * 2:
                decoded = await decode(pool, file)
                expected = decode_audio(file)
                assert (decoded.sample_format, decoded.n_samples) == (
                    expected.samples.dtype.name,
                    len(expected.samples),
                )
                assert decoded.seconds == expected.duration
                assert read_samples(decoded) == expected.samples.tobytes()
            assert pool.restarts == 0

    asyncio.run(scenario())


def test_refusals_keep_their_words_and_get_their_status() -> None:
    async def scenario() -> None:
        async with running(new_pool(max_seconds=1.0)) as pool:
            with pytest.raises(InvalidAudio, match="not in a recognised audio format") as invalid:
                await decode(pool, b"a letter")
            assert (invalid.value.status, invalid.value.code, invalid.value.param) == (400, "invalid_audio", "file")
            with pytest.raises(TooLarge, match="longer than the limit of 1 seconds") as too_long:
                await decode(pool, sndfile(speechlike(2.0), 16_000, "FLAC"))
            assert (too_long.value.status, too_long.value.code, too_long.value.param) == (413, "audio_too_long", "file")
            assert pool.restarts == 0

    asyncio.run(scenario())


def test_the_http_process_gets_no_codec_and_no_tensor() -> None:
    program = (
        "import sys, service.children.audio_pool\n"
        "print(sorted({name.split('.')[0] for name in sys.modules} & {'numpy', 'torch', 'soundfile', 'av', 'soxr'}))"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_children_see_no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WHISPER_API_KEYS", "secret")

    async def scenario() -> None:
        async with running(new_pool(SCRIPTED)) as pool:
            with pytest.raises(InvalidAudio, match="PYTHONPATH") as seen:
                await decode(pool, b"environment")
            assert "WHISPER" not in seen.value.message

    asyncio.run(scenario())


def test_free_children_go_to_those_who_came_first() -> None:
    async def scenario() -> None:
        finished: list[int] = []

        async def one(number: int) -> None:
            await outcome(pool, b"sleep 0.01")
            finished.append(number)

        async with running(new_pool(SCRIPTED)) as pool:
            tasks = []
            for number in range(12):
                tasks.append(asyncio.create_task(one(number)))
                await asyncio.sleep(0)
            await asyncio.gather(*tasks)
            assert finished == list(range(12))

    asyncio.run(scenario())


def test_children_work_side_by_side() -> None:
    async def scenario() -> None:
        async with running(new_pool(SCRIPTED, children=2)) as pool:
            await both_at_work(pool)

    asyncio.run(scenario())


def test_a_cancelled_decode_costs_its_child_and_no_one_else() -> None:
    async def scenario() -> None:
        async with running(new_pool(SCRIPTED)) as pool:
            (before,) = children()
            task = asyncio.create_task(decode(pool, b"sleep 100"))
            await until(lambda: pool.busy == 1)
            waiting = asyncio.create_task(outcome(pool, b"samples"))
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert pool.busy == 0
            assert await waiting == 0.01
            assert children() != [before]
            assert pool.restarts == 1
            assert pool.ready

    asyncio.run(scenario())


def test_a_cancelled_waiter_leaves_the_queue() -> None:
    async def scenario() -> None:
        async with running(new_pool(SCRIPTED)) as pool:
            first = asyncio.create_task(outcome(pool, b"sleep 0.2"))
            await until(lambda: pool.busy == 1)
            second, third = (asyncio.create_task(outcome(pool, b"samples")) for _ in range(2))
            await asyncio.sleep(0.05)
            second.cancel()
            assert await first == 0.01
            assert await third == 0.01
            assert pool.restarts == 0

    asyncio.run(scenario())


def test_cancellation_at_any_moment_loses_no_child() -> None:
    source = random.Random(7)

    async def scenario() -> None:
        async with running(new_pool(SCRIPTED, children=2)) as pool:
            tasks = [asyncio.create_task(outcome(pool, b"sleep 0.002")) for _ in range(60)]
            for task in source.sample(tasks, 20):
                await asyncio.sleep(source.uniform(0, 0.01))
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            assert pool.busy == 0
            await both_at_work(pool)

    asyncio.run(scenario())


def test_a_child_killed_while_idle_is_no_ones_loss() -> None:
    async def scenario() -> None:
        async with running(new_pool(SCRIPTED)) as pool:
            for number in range(3):
                (child,) = children()
                os.kill(child, signal.SIGKILL)
                time.sleep(0.2)  # noqa: ASYNC251  (it dies while the event loop has no turn to notice)
                assert await outcome(pool, b"samples") == 0.01
                assert pool.restarts == number + 1

    asyncio.run(scenario())


@pytest.mark.parametrize("upload", [b"lie 0", b"lie 161", b"lie 100000000", b"samples 100000", b"garbage"])
def test_an_answer_that_makes_no_sense_is_not_believed(upload: bytes) -> None:
    async def scenario() -> None:
        async with running(new_pool(SCRIPTED, max_seconds=5.0)) as pool:
            with pytest.raises(InvalidAudio, match="could not be decoded"):
                await decode(pool, upload)
            assert await outcome(pool, b"samples") == 0.01
            assert pool.restarts == 1

    asyncio.run(scenario())


def test_descriptors_on_their_way_elsewhere_cost_no_file() -> None:
    """More of them than a child may hold, as to a worker that is busy: of the same user's, wherever they are going."""

    async def scenario() -> None:
        async with running(new_pool()) as pool:
            ours, theirs = socket.socketpair()
            with ours, theirs:
                for _ in range(100):
                    socket.send_fds(ours, [b"."], [ours.fileno()])
                assert await outcome(pool, sndfile(speechlike(1.0), 16_000, "WAV")) == 1.0
            assert pool.restarts == 0

    asyncio.run(scenario())


def test_a_file_without_memory_for_its_samples_costs_no_child(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_memory(_: str) -> int:
        raise OSError(errno.EMFILE, "too many open files")

    async def scenario() -> None:
        async with running(new_pool(SCRIPTED)) as pool:
            with monkeypatch.context() as patch:
                patch.setattr(memory, "create", no_memory)
                with pytest.raises(OSError, match="too many"):
                    await pool.decode(0)
            assert (await outcome(pool, b"samples"), pool.restarts) == (0.01, 0)

    asyncio.run(scenario())


def test_a_childs_words_are_kept_short_and_printable() -> None:
    async def scenario() -> None:
        async with running(new_pool(SCRIPTED)) as pool:
            with pytest.raises(InvalidAudio) as refused:
                await decode(pool, b"refuse bad\x1b[31m\nnews " + b"x" * 10_000)
            assert refused.value.message.startswith("bad[31mnews xxx")
            assert len(refused.value.message) == 300

    asyncio.run(scenario())


def test_stopping_ends_work_and_waiting_with_503() -> None:
    async def scenario() -> None:
        pool = new_pool(SCRIPTED)
        with pytest.raises(Unavailable) as early:
            await decode(pool, b"samples")
        assert early.value.code == "starting"
        async with running(pool):
            tasks = [asyncio.create_task(outcome(pool, b"sleep 100")) for _ in range(3)]
            await until(lambda: pool.busy == 1)
            await pool.stop()
            for error in await asyncio.gather(*tasks):
                assert isinstance(error, Unavailable)
                assert (error.status, error.code) == (503, "draining")
                assert error.retry_after_seconds
            assert not pool.ready
            with pytest.raises(Unavailable):
                await decode(pool, b"samples")

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("raise SystemExit(3)", "it ended"),
        ("from service.audio_child.__main__ import main; main(load=lambda: 1 / 0)", "ZeroDivisionError"),
    ],
)
def test_children_that_cannot_start_are_tried_ever_more_slowly(
    program: str, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        pool = new_pool((sys.executable, "-c", program), children=2)
        await pool.start()
        waiting = asyncio.create_task(outcome(pool, b"samples"))
        error = await asyncio.wait_for(waiting, PATIENCE_SECONDS)
        assert isinstance(error, Unavailable)
        assert error.code == "no_worker"
        assert not pool.ready
        await asyncio.sleep(1.0)
        assert 2 <= pool.restarts <= 6
        await pool.stop()
        assert children() == []

    with caplog.at_level(logging.ERROR, "service"):
        asyncio.run(scenario())
    line = caplog.records[0]
    assert line.message == "audio_child_not_started"
    assert reason in line.fields["reason"]


def test_a_command_that_does_not_exist_is_a_failed_start() -> None:
    async def scenario() -> None:
        pool = new_pool(("/nonexistent/program",))
        await pool.start()
        await until(lambda: pool.restarts >= 1)
        assert isinstance(await outcome(pool, b"samples"), Unavailable)
        await pool.stop()

    asyncio.run(scenario())


def test_children_that_die_idle_again_and_again_count_as_failing() -> None:
    program = (
        "import service.audio_child as c, threading, os\n"
        "c.lock_down = lambda **limits: threading.Timer(0.05, os._exit, (1,)).start() or ()\n"
        "c.main(load=lambda: None)"
    )

    async def scenario() -> None:
        pool = new_pool((sys.executable, "-c", program))
        await pool.start()
        await until(lambda: pool.restarts >= 2)
        assert not pool.ready
        await pool.stop()

    asyncio.run(scenario())
