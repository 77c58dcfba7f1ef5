"""A real worker that is told of a GPU and takes the CPU; started in the place of `service.worker`."""

import sys

from service.worker import __main__ as worker


def main() -> None:
    at = sys.argv.index("--device") + 1
    if not sys.argv[at].startswith("cuda:"):
        raise ValueError("it stands for a worker on a GPU")
    sys.argv[at] = "cpu"
    worker.main()


if __name__ == "__main__":
    main()
