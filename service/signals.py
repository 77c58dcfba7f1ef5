"""The signals that end the service, and what each is worth.

SIGTERM is a supervisor's, and gives notice; SIGINT (Ctrl-C) and SIGHUP (the terminal was closed) are a person's.
A closed terminal may send SIGHUP more than once, the shell in it and the kernel each, so that only the others mean
haste when one comes again.
"""

import signal
from collections.abc import Iterable


def ending() -> tuple[signal.Signals, ...]:
    """The signals that this process shall end by: SIGHUP not where it was started to be spared it, as by `nohup`."""
    hangup = () if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else (signal.SIGHUP,)
    return (signal.SIGTERM, signal.SIGINT, *hangup)


def ignore(numbers: Iterable[signal.Signals]) -> None:
    """From here on the process only has its status to return, which the default action of a signal would change."""
    for number in numbers:
        signal.signal(number, signal.SIG_IGN)
