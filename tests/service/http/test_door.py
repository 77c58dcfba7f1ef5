"""Who has come before the door closes is answered, whether or not the event loop knows of it."""

import asyncio
import contextlib
import signal

from service.http import door
from tests.serving import form, in_loop, read_answer, request_head, service

REQUEST = request_head(len(form())) + form()


def test_who_waits_to_be_accepted_when_the_door_closes_is_answered() -> None:
    with service() as server, contextlib.ExitStack() as stack:
        server.process.send_signal(signal.SIGSTOP)
        clients = [stack.enter_context(server.connect()) for _ in range(8)]
        for client in clients:
            client.sendall(REQUEST)
        server.process.send_signal(signal.SIGTERM)
        server.process.send_signal(signal.SIGCONT)
        answers = [read_answer(client)[0] for client in clients]
        assert server.process.wait(10) == 0
    assert set(answers) <= {200, 503}


@in_loop
async def test_who_has_come_and_not_asked_yet_is_waited_for() -> None:
    class Connection:
        cycle: object | None = None

    hurry, asked, silent = asyncio.Event(), Connection(), Connection()
    asked.cycle = object()
    waiting = asyncio.create_task(door.first_words([asked, silent], hurry.is_set, seconds=3600))
    await asyncio.sleep(0.1)
    assert not waiting.done()
    silent.cycle = object()
    await waiting
    silent.cycle = None
    await door.first_words([silent], hurry.is_set, seconds=0)
    hurry.set()
    await door.first_words([silent], hurry.is_set, seconds=3600)
