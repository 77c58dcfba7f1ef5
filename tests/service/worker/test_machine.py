from pathlib import Path

import pytest

from service.worker.machine import anonymous_bytes, available_bytes

MIB = 1024**2
UNLIMITED = 9_223_372_036_854_771_712


class Machine:
    """The kernel's files, as a test writes them."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def write(self, path: str, text: str) -> None:
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)

    def memory(self, available: int, swap: int = 0) -> None:
        self.write("proc/meminfo", f"MemFree: 1 kB\nMemAvailable: {available * 1024} kB\nSwapFree: {swap * 1024} kB\n")

    def group(self, path: str, limit: int | str, anonymous: int, **files: object) -> None:
        """Of version 2, in MiB; the file cache takes all the rest of it."""
        folder = f"sys/fs/cgroup{path}"
        self.write(f"{folder}/memory.max", f"{limit * MIB if isinstance(limit, int) else limit}\n")
        self.write(f"{folder}/memory.current", f"{limit}\n")
        self.write(f"{folder}/memory.stat", f"anon {anonymous * MIB}\nfile {900 * MIB}\nshmem {10 * MIB}\n")
        for name, value in files.items():
            self.write(f"{folder}/memory.{name.replace('_', '.')}", f"{value}\n")

    def old_group(self, path: str, limit: int, anonymous: int) -> None:
        """Of version 1, in MiB."""
        folder = f"sys/fs/cgroup/memory{path}"
        self.write(f"{folder}/memory.limit_in_bytes", f"{limit * MIB if limit < UNLIMITED else limit}\n")
        self.write(f"{folder}/memory.stat", f"rss 1\ntotal_cache 5\ntotal_rss {anonymous * MIB}\ntotal_shmem {MIB}\n")

    @property
    def available(self) -> float | None:
        size = available_bytes(self.root)
        return None if size is None else size / MIB


@pytest.fixture
def machine(tmp_path) -> Machine:
    return Machine(tmp_path)


def test_a_machine_without_groups_has_what_the_kernel_calls_available(machine) -> None:
    machine.memory(700)
    assert machine.available == 700
    machine.memory(700, swap=300)
    assert machine.available == 1000


def test_the_tightest_group_above_the_process_decides(machine) -> None:
    machine.memory(7000)
    machine.write("proc/self/cgroup", "0::/system.slice/whisper.service\n")
    machine.group("/system.slice/whisper.service", 2000, 300)
    assert machine.available == 2000 - 300 - 10
    machine.group("/system.slice", 1000, 400)
    assert machine.available == 1000 - 400 - 10
    machine.group("/system.slice", "max", 400)
    assert machine.available == 2000 - 300 - 10
    machine.memory(50)
    assert machine.available == 50


def test_a_container_sees_its_own_group_at_the_top(machine) -> None:
    machine.memory(7000)
    machine.write("proc/self/cgroup", "0::/kubepods/pod1/container\n")
    machine.group("", 512, 12)
    assert machine.available == 490
    machine.write("proc/self/cgroup", "0::/../../elsewhere\n")
    assert machine.available == 490


def test_a_group_has_only_as_much_swap_as_it_may(machine) -> None:
    machine.memory(7000, swap=800)
    machine.write("proc/self/cgroup", "0::/\n")
    machine.group("", 512, 12)
    assert machine.available == 490 + 800
    machine.group("", 512, 12, swap_max="max", swap_current=0)
    assert machine.available == 490 + 800
    machine.group("", 512, 12, swap_max=100 * MIB, swap_current=40 * MIB)
    assert machine.available == 490 + 60
    machine.group("", 512, 12, swap_max=0, swap_current=0)
    assert machine.available == 490


def test_groups_of_the_first_version_count_too(machine) -> None:
    machine.memory(7000)
    machine.write("proc/self/cgroup", "5:cpu,cpuacct:/docker/abc\n4:memory:/docker/abc\n1:name=systemd:/\n0::/\n")
    machine.old_group("", UNLIMITED, 3000)
    assert machine.available == 7000
    machine.old_group("/docker/abc", 600, 99)
    assert machine.available == 500
    machine.memory(7000, swap=30)
    assert machine.available == 530


def test_a_group_that_says_only_half_of_it_says_nothing(machine) -> None:
    """No limit, or none of what it holds; what it lacks is not taken for granted."""
    machine.memory(7000, swap=30)
    machine.write("proc/self/cgroup", "4:memory:/old\n0::/new\n")
    machine.write("sys/fs/cgroup/new/memory.max", f"{100 * MIB}\n")
    machine.write("sys/fs/cgroup/new/memory.swap.max", "0\n")
    machine.write("sys/fs/cgroup/memory/old/memory.limit_in_bytes", f"{100 * MIB}\n")
    assert machine.available == 7030
    machine.write("sys/fs/cgroup/new/memory.stat", f"anon {10 * MIB}\n")
    assert machine.available == 100 - 10 + 30
    machine.write("sys/fs/cgroup/memory/old/memory.stat", f"total_rss {50 * MIB}\n")
    assert machine.available == 100 - 50 + 30
    (machine.root / "sys/fs/cgroup/memory/old/memory.limit_in_bytes").unlink()
    assert machine.available == 100 - 10 + 30


def test_more_than_is_there_leaves_nothing(machine) -> None:
    machine.memory(7000)
    machine.write("proc/self/cgroup", "0::/\n")
    machine.group("", 100, 120)
    assert machine.available == 0


@pytest.mark.parametrize("text", ["", "no such line\n", "MemAvailable: many kB\n", "\udcff\n"])
def test_what_cannot_be_read_says_nothing(machine, text) -> None:
    assert machine.available is None
    machine.write("proc/meminfo", text.encode("utf-8", "replace").decode())
    machine.write("proc/self/cgroup", text.encode("utf-8", "replace").decode() or "0\n:\n::\nmemory:relative\n")
    assert machine.available is None
    assert anonymous_bytes(machine.root) == 0


def test_this_machine_says_something_that_can_be(machine) -> None:
    if not Path("/proc/meminfo").exists():
        pytest.skip("no /proc")
    size = available_bytes()
    assert size is not None
    assert MIB < size < 2**50
    assert MIB < anonymous_bytes() < 2**40
