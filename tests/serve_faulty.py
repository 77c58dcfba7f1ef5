"""The service as it is, on workers that come to harm (`tests.faulty_worker`): `python -m tests.serve_faulty`."""

import sys
from unittest import mock

from service import __main__ as service
from service.children.worker_pool import WorkerPool
from service.settings import Settings


def _workers(settings: Settings) -> WorkerPool:
    return WorkerPool(settings, command=[sys.executable, "-m", "tests.faulty_worker"])


if __name__ == "__main__":
    with mock.patch.object(service, "_workers", _workers):
        sys.exit(service.main())
