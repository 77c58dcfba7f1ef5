"""Who gets which job, and who is to blame when workers end: the dispatcher before workers that are no processes."""

import asyncio
import os

import pytest

from model.options import TranscribeOptions
from service.children.dispatcher import Dispatcher
from service.children.worker_process import Job, WorkerProcess
from service.errors import InternalError, ServiceError
from service.wire import memory
from service.wire.channel import ChannelClosed
from service.wire.messages import Cancel, Cancelled, Received, Transcribe
from tests.serving import in_loop


class Worker(WorkerProcess):
    """A warm worker behind a channel that only notes what is sent."""

    murder = None

    def __init__(self) -> None:
        self.info, self.broken, self.progressed_at = object(), False, 0.0
        self.jobs, self.leaving, self.channel = {}, {}, self
        self.sent, self.error = [], None
        self.errors = []
        """Of the next messages, one each."""

    def send(self, message: object, fd: int | None = None) -> None:
        if self.errors:
            raise self.errors.pop()
        if self.error is not None:
            raise self.error
        self.sent.append(message.request_id if isinstance(message, Transcribe) else message)

    def read(self, *names: str) -> None:
        for name in names:
            self.take(Received(name), 0.0)

    @property
    def names(self) -> list[str]:
        return [job.request_id for job in self.in_hand]


class House:
    """A dispatcher, its workers and a clock."""

    def __init__(self, workers: int = 1) -> None:
        self.now = 1000.0
        self.workers = {str(number): Worker() for number in range(workers)}
        self.dispatcher = Dispatcher(self.workers, lambda: self.now)

    async def job(self, name: str, seconds: int = 1, words: str = "") -> Job:
        fd = memory.create("waveform")
        try:
            memory.write_all(fd, (words or name).encode())
            return await self.dispatcher.admit(
                Transcribe(name, "int16", 16_000 * seconds, TranscribeOptions(), None), fd
            )
        finally:
            os.close(fd)

    async def ask(self, name: str, seconds: int = 1, words: str = "") -> Job:
        job = await self.job(name, seconds, words)
        self.dispatcher.queue(job)
        return job

    def done(self, job: Job) -> None:
        for worker in self.workers.values():
            worker.jobs.pop(job.request_id, None)
        self.dispatcher.acquit(job)
        self.dispatcher.forget(job)

    async def ends(self, name: str, *, killed: bool = False) -> Worker:
        """A worker ends and another one takes its place."""
        worker = self.workers.pop(name)
        worker.broken, worker.murder = True, "killed" if killed else None
        await self.dispatcher.mourn(worker)
        assert not worker.in_hand
        self.workers[name] = Worker()
        self.dispatcher.dispatch()
        return self.workers[name]


async def convicted(house: House, name: str) -> None:
    """A recording with which two workers in a row crash, the second time alone."""
    job = await house.ask(name)
    for _ in range(2):
        house.now += 100.0
        house.workers["0"].read(name)
        await house.ends("0")
    assert outcome(job) == "request_crashed_worker"


def outcome(job: Job) -> str | None:
    """The code of the error that a job ended with."""
    if job.events.empty():
        return None
    error = job.events.get_nowait()
    assert isinstance(error, ServiceError)
    return error.code


def closed(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return True
    return False


@in_loop
async def test_a_job_goes_to_the_ready_worker_with_the_least_audio() -> None:
    house = House(3)
    house.workers["1"].info = None
    for name, seconds in (("long", 30), ("a", 10), ("b", 10), ("c", 20), ("d", 1)):
        await house.ask(name, seconds)
    assert [worker.names for worker in house.workers.values()] == [["long", "d"], [], ["a", "b", "c"]]


@in_loop
async def test_a_worker_that_does_not_read_is_sent_eight_jobs_and_the_others_wait_in_order() -> None:
    house = House(2)
    house.workers["1"].info = None
    jobs = [await house.ask(str(number)) for number in range(11)]
    assert house.workers["0"].names == list("01234567")
    house.workers["0"].read("0", "1")
    house.dispatcher.dispatch()
    assert house.workers["0"].names == list("0123456789")
    house.workers["1"].info = object()
    house.dispatcher.dispatch()
    assert house.workers["1"].names == ["10"]
    assert not any(job.over for job in jobs)


@in_loop
async def test_a_job_is_sent_elsewhere_or_waits_where_a_worker_turns_out_to_be_gone() -> None:
    house = House(2)
    house.workers["0"].error = ChannelClosed()
    await house.ask("first")
    assert (house.workers["0"].names, house.workers["1"].names) == ([], ["first"])
    house.workers["1"].error = ChannelClosed()
    job = await house.ask("second")
    assert (job.over, house.workers["0"].ready, house.workers["1"].ready) == (False, False, False)
    house.workers["2"] = Worker()
    house.dispatcher.dispatch()
    assert house.workers["2"].names == ["second"]


@in_loop
async def test_a_job_that_cannot_be_sent_for_want_of_descriptors_ends_alone() -> None:
    house = House()
    house.workers["0"].info = None
    job, _ = await house.ask("first"), await house.ask("second")
    house.workers["0"].info, house.workers["0"].errors = object(), [error := OSError("too many open files")]
    house.dispatcher.dispatch()
    assert job.over
    assert job.events.get_nowait() is error
    assert house.workers["0"].names == ["second"]


@in_loop
async def test_what_nobody_waits_for_is_dropped_and_closed_once_no_worker_has_it() -> None:
    house = House(2)
    house.workers["1"].info = None
    running = await house.ask("running")
    house.workers["0"].info = None
    waiting, other = await house.ask("waiting"), await house.ask("other")
    fd = waiting.fd
    house.dispatcher.forget(waiting)
    assert closed(fd)
    fd = running.fd
    house.dispatcher.forget(running)
    assert house.workers["0"].sent == ["running", Cancel("running")]
    assert not closed(fd)
    house.workers["0"].take(Cancelled("running"), 0.0)
    assert closed(fd)
    assert house.dispatcher.take_waiting() == [other]
    assert house.dispatcher.take_waiting() == []


@in_loop
async def test_r28_each_job_of_a_worker_that_crashed_runs_alone_and_the_second_crash_convicts() -> None:
    house = House(2)
    house.workers["1"].info = None
    jobs = {name: await house.ask(name, 10) for name in ("a", "poison", "b")}
    house.workers["0"].read(*jobs)
    house.workers["1"].info = object()
    bystander = await house.ask("bystander", 5)
    assert house.workers["1"].names == ["bystander"]
    worker = await house.ends("0")
    assert worker.names == ["a"]
    await house.ask("new")
    assert (worker.names, house.workers["1"].names) == (["a"], ["bystander", "new"])
    house.done(jobs["a"])
    assert worker.names == ["poison"]
    worker.read("poison")
    worker = await house.ends("0")
    assert (jobs["poison"].over, outcome(jobs["poison"])) == (True, "request_crashed_worker")
    assert worker.names == ["b"]
    house.done(jobs["b"])
    await house.ask("later")
    assert worker.names == ["later"]  # it is reserved no more
    assert not any(jobs[name].over for name in "ab")
    assert not bystander.over


@in_loop
async def test_r28_a_convicted_recording_is_refused_for_ten_minutes_whatever_its_request_is_called() -> None:
    house = House()
    await convicted(house, "poison")
    house.now += 550.0
    await house.job("fine")  # by now the suspicion after its first crash is over, and only the conviction is left
    house.now += 49.0
    with pytest.raises(InternalError) as caught:
        await house.job("again", words="poison")
    assert caught.value.code == "request_crashed_worker"
    house.now += 1.0
    await house.ask("again", words="poison")
    await house.ask("beside")
    assert house.workers["0"].names == ["again", "beside"]


@in_loop
async def test_r28_who_left_is_a_suspect_when_it_comes_back_until_it_is_answered_or_ten_minutes_are_over() -> None:
    house = House()
    leaver = await house.ask("leaver")
    house.workers["0"].read("leaver")
    house.dispatcher.forget(leaver)
    fd = leaver.fd
    assert house.workers["0"].names == ["leaver"]
    worker = await house.ends("0")
    assert closed(fd)
    assert worker.names == []
    await house.ask("fine")
    back = await house.ask("back", words="leaver")
    assert (worker.names, back.crashes) == (["fine"], 1)
    house.done(house.workers["0"].jobs["fine"])
    assert worker.names == ["back"]
    house.done(back)
    assert (await house.job("once more", words="leaver")).crashes == 0


@in_loop
async def test_r28_a_suspicion_is_forgotten_after_ten_minutes() -> None:
    house = House()
    leaver = await house.ask("leaver")
    house.workers["0"].read("leaver")
    house.dispatcher.forget(leaver)
    await house.ends("0")
    house.now += 599.0
    assert (await house.job("back", words="leaver")).crashes == 1
    house.now += 1.0
    assert (await house.job("back", words="leaver")).crashes == 0


@in_loop
async def test_a_suspect_joins_nobody_not_even_what_nobody_waits_for() -> None:
    house = House()
    suspect, other = await house.ask("suspect"), await house.ask("other")
    house.workers["0"].read("suspect", "other")
    worker = await house.ends("0")
    house.dispatcher.forget(suspect)
    assert worker.names == ["suspect"]  # it is leaving
    assert not other.over
    worker.take(Cancelled("suspect"), 0.0)
    house.dispatcher.dispatch()
    assert worker.names == ["other"]
    house.dispatcher.forget(other)
    await house.ask("new")
    assert worker.names == ["other"]  # still leaving, and it may be the cause
    worker.take(Cancelled("other"), 0.0)
    house.dispatcher.dispatch()
    assert worker.names == ["new"]


@in_loop
async def test_r26_whom_others_killed_or_what_was_not_read_is_run_again_first_and_told_to_come_back_after_the_fourth():
    house = House()
    unread, read = await house.ask("unread"), await house.ask("read")
    house.workers["0"].read("read")
    worker = await house.ends("0", killed=True)
    assert worker.names == ["unread", "read"]
    worker.info = None
    await house.ask("waits")
    worker.info = object()
    for _ in range(2):
        worker = await house.ends("0")
        assert worker.names == ["unread", "read", "waits"]
    worker.read("read", "waits")
    worker = await house.ends("0", killed=True)
    assert worker.names == ["waits"]
    assert (outcome(unread), outcome(read)) == ("no_worker", "no_worker")
    assert (unread.crashes, read.crashes) == (0, 0)
    assert not house.workers["0"].jobs["waits"].over


@in_loop
async def test_suspects_are_among_those_who_wait_when_no_worker_comes() -> None:
    house = House()
    suspect = await house.ask("suspect")
    house.workers["0"].read("suspect")
    worker = house.workers.pop("0")
    worker.broken = True
    waiting = await house.ask("waiting")
    await house.dispatcher.mourn(worker)
    house.dispatcher.dispatch()
    assert house.dispatcher.take_waiting() == [suspect, waiting]
    assert house.dispatcher.take_waiting() == []


@in_loop
async def test_a_machine_without_threads_finds_the_guilty_one_all_the_same(monkeypatch) -> None:
    async def no_thread(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(asyncio, "to_thread", no_thread)
    house = House()
    await convicted(house, "poison")
    with pytest.raises(InternalError):
        await house.job("poison")
    await house.job("fine")
