"""The worker's program: what the pool tells it at the start, and what is said of it when something fails."""

import asyncio
import os
import socket
from types import SimpleNamespace
from typing import Any

import pytest

from service import logs
from service.children.worker_pool import WorkerPool
from service.wire.channel import ChannelClosed
from service.wire.messages import ModelInfo, Stop
from service.worker.__main__ import main, parse
from tests.serving import make_settings


@pytest.mark.parametrize("on", ["auto", "true", "false"])
def test_the_pool_tells_its_workers_how_to_use_a_gpu(on) -> None:
    settings = make_settings(
        cuda_graphs=on, gpu_memory_share=0.45, max_batch_rows=0, cross_kv="int8", cross_attention="torch"
    )
    arguments = WorkerPool(settings, command=[])._arguments("cuda:1")
    args = parse(["--fd", "3", "--parent", "1", *arguments])
    assert (args.cuda_graphs, args.memory_share, args.max_rows, args.device) == (on, 0.45, 0, "cuda:1")
    assert (args.cross_kv, args.cross_attention) == ("int8", "torch")


def test_workers_on_one_card_plan_with_their_part_of_it() -> None:
    settings = make_settings(devices=("cuda:0", "cuda:1", "cuda:0"), gpu_memory_share=0.8)
    pool = WorkerPool(settings, command=[])
    required = ["--fd", "3", "--parent", "1"]
    shares = {device: parse([*required, *pool._arguments(device)]).memory_share for device in ("cuda:0", "cuda:1")}
    assert shares == {"cuda:0": 0.4, "cuda:1": 0.8}
    workers = {device: parse([*required, *pool._arguments(device)]).workers for device in ("cuda:0", "cuda:1")}
    assert workers == {"cuda:0": 2, "cuda:1": 1}


def test_a_worker_that_fails_says_where_and_not_what(monkeypatch) -> None:
    def run() -> None:
        raise ValueError("secret words")

    ours, theirs = socket.socketpair()
    noted: list[tuple[str, dict[str, Any]]] = []
    for name in ("die_with_parent", "leave_signals_to_parent", "logs.configure"):
        monkeypatch.setattr(f"service.worker.__main__.{name}", lambda *_: None)
    monkeypatch.setattr("service.worker.__main__.start", lambda _: (None, Stop()))
    monkeypatch.setattr("service.worker.__main__.Worker", lambda *_: SimpleNamespace(run=run))
    monkeypatch.setattr(logs, "event", lambda name, **fields: noted.append((name, fields)))
    required = {"--model": "base", "--device": "cpu", "--compute-type": "int8", "--encoder-context": "full"}
    options = {"--fd": str(os.dup(theirs.fileno())), "--parent": "1", **required}
    monkeypatch.setattr("sys.argv", ["service.worker", *(word for pair in options.items() for word in pair)])
    with ours, theirs, pytest.raises(SystemExit) as exit_:
        main()
    assert exit_.value.code == 1
    assert exit_.value.__suppress_context__
    assert [(name, type(fields["error"])) for name, fields in noted] == [("worker_failed", ValueError)]


def test_the_log_says_why_a_worker_has_less_than_it_might(monkeypatch) -> None:
    reasons: dict[str, Any] = {
        "plain_because": "they are off",
        "torch_because": "no compiler",
        "unfused_because": "one is off",
        "native_because": "it is old",
    }
    info = ModelInfo("base", ("en",), True, "cuda:0", "float16", None, max_rows=7, **reasons)
    messages: list[ModelInfo | ChannelClosed] = [info, ChannelClosed("end of file")]
    noted: list[tuple[str, dict[str, Any]]] = []

    async def receive() -> ModelInfo:
        message = messages.pop(0)
        if isinstance(message, ChannelClosed):
            raise message
        return message

    worker: Any = SimpleNamespace(
        device="cuda:0",
        channel=SimpleNamespace(receive=receive),
        process=SimpleNamespace(pid=1),
        stats=None,
        info=info,
        hangs=lambda *_: False,
        take=lambda *_: None,
    )
    monkeypatch.setattr(logs, "event", lambda name, **fields: noted.append((name, fields)))
    pool = WorkerPool(make_settings(), command=[])
    before = ["--fd", "3", "--parent", "1"]
    assert parse([*before, *pool._arguments("cuda:0")]).rows_before == 0
    assert asyncio.run(pool._serve(worker)) == "it ended: end of file"
    assert parse([*before, *pool._arguments("cuda:0")]).rows_before == 7
    assert [name for name, _ in noted] == [
        "worker_ready", "steps_not_captured", "kernel_not_used", "steps_not_fused", "native_not_used",
    ]  # fmt: skip
    assert [fields["reason"] for _, fields in noted[1:]] == list(reasons.values())
    assert {key for _, fields in noted for key in fields} - {"level"} <= logs.KEYS
