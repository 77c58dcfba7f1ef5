"""Locks the calling process down, so that a flaw in a codec gives its exploiter nothing but the sound it was sent.

Called by `service.audio_child` after its codecs are loaded and before the first upload is read. What the machine does
not permit (a container without user namespaces, another kernel, another operating system) is left out; the measures
that took hold are returned by name (of `MEASURES` in `service.wire.audio_messages`), go to the log with those that are
missing, and the service runs on. In order:

- `limits`: no core files, few descriptors, a bounded output file, bounded memory (`RLIMIT_AS`), no new processes;
- `network`: a user and network namespace of its own, in which there is not even a loopback interface;
- `no-new-privileges`, and with it
- `system-calls`: a seccomp filter under which opening a file or a socket, starting a thread or a program, signalling or
  tracing another process, and renaming, deleting or mounting anything fail with EACCES. Descriptors that are open
  already, and memory, are all that is left;
- `dies-with-parent`.

Sources: prctl(2), unshare(2), seccomp(2), and the kernel's syscall tables for x86-64 and for arm64.
"""

import contextlib
import ctypes
import platform
import resource
import struct
import sys
from pathlib import Path

from service.wire.process import die_with_parent

_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP = 38, 22
_SECCOMP_MODE_FILTER = 2
_CLONE_NEWUSER, _CLONE_NEWNET = 0x1000_0000, 0x4000_0000
_MAX_DESCRIPTORS = 64

_DENIED: dict[str, dict[str, int]] = {
    "x86_64": {
        "open": 2, "socket": 41, "connect": 42, "accept": 43, "bind": 49, "listen": 50, "socketpair": 53, "clone": 56,
        "fork": 57, "vfork": 58, "execve": 59, "kill": 62, "rename": 82, "mkdir": 83, "rmdir": 84, "creat": 85,
        "link": 86, "unlink": 87, "symlink": 88, "chmod": 90, "chown": 92, "lchown": 94, "ptrace": 101,
        "rt_sigqueueinfo": 129, "mknod": 133, "pivot_root": 155, "chroot": 161, "mount": 165, "umount2": 166,
        "tkill": 200, "tgkill": 234, "add_key": 248, "request_key": 249, "keyctl": 250, "openat": 257, "mkdirat": 258,
        "mknodat": 259, "fchownat": 260, "unlinkat": 263, "renameat": 264, "linkat": 265, "symlinkat": 266,
        "fchmodat": 268, "unshare": 272, "accept4": 288, "rt_tgsigqueueinfo": 297, "perf_event_open": 298,
        "open_by_handle_at": 304, "setns": 308, "process_vm_readv": 310, "process_vm_writev": 311, "renameat2": 316,
        "bpf": 321, "execveat": 322, "userfaultfd": 323, "shmget": 29, "semget": 64, "msgget": 68, "truncate": 76,
        "utime": 132, "setpriority": 141, "sched_setparam": 142, "sched_setscheduler": 144, "setxattr": 188,
        "lsetxattr": 189, "removexattr": 197, "lremovexattr": 198, "sched_setaffinity": 203, "utimes": 235,
        "mq_open": 240, "mq_unlink": 241, "ioprio_set": 251, "futimesat": 261, "utimensat": 280, "sched_setattr": 314,
    },
    "aarch64": {
        "mknodat": 33, "mkdirat": 34, "unlinkat": 35, "symlinkat": 36, "linkat": 37, "renameat": 38, "umount2": 39,
        "mount": 40, "pivot_root": 41, "chroot": 51, "fchmodat": 53, "fchownat": 54, "openat": 56, "unshare": 97,
        "ptrace": 117, "kill": 129, "tkill": 130, "tgkill": 131, "rt_sigqueueinfo": 138, "socket": 198,
        "socketpair": 199, "bind": 200, "listen": 201, "accept": 202, "connect": 203, "add_key": 217,
        "request_key": 218, "keyctl": 219, "clone": 220, "execve": 221, "rt_tgsigqueueinfo": 240,
        "perf_event_open": 241, "accept4": 242, "open_by_handle_at": 265, "setns": 268, "process_vm_readv": 270,
        "process_vm_writev": 271, "renameat2": 276, "bpf": 280, "execveat": 281, "userfaultfd": 282, "setxattr": 5,
        "lsetxattr": 6, "removexattr": 14, "lremovexattr": 15, "ioprio_set": 30, "truncate": 45, "utimensat": 88,
        "sched_setparam": 118, "sched_setscheduler": 119, "sched_setaffinity": 122, "setpriority": 140, "mq_open": 180,
        "mq_unlink": 181, "msgget": 186, "semget": 190, "shmget": 194, "sched_setattr": 274,
    },
}  # fmt: skip
_DENIED_EVERYWHERE = {
    "pidfd_send_signal": 424, "io_uring_setup": 425, "open_tree": 428, "move_mount": 429, "fsopen": 430,
    "pidfd_open": 434, "clone3": 435, "openat2": 437, "pidfd_getfd": 438, "fchmodat2": 452,
}  # fmt: skip
_PRLIMIT = {"x86_64": 302, "aarch64": 261}
"""Sets limits of other processes too; a process may set its own, which it names 0."""
_AUDIT_ARCH = {"x86_64": 0xC000_003E, "aarch64": 0xC000_00B7}
_X32_BIT = 0x4000_0000
"""Calls by x86-64's second, 32-bit table start here."""


def lock_down(*, memory_bytes: int, output_bytes: int, parent: int) -> tuple[str, ...]:
    """Apply every measure that the machine permits, for good; the names of those that took hold.

    `memory_bytes` may be allocated on top of what the process has mapped now; `output_bytes` is the largest file that
    it may write; `parent` is the process without which it ends.
    """
    held = ["limits"] if _limit_resources(memory_bytes, output_bytes) else []
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET) == 0:
            held.append("network")
        if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0:
            held.append("no-new-privileges")
            if _filter_system_calls(libc):
                held.append("system-calls")
    if die_with_parent(parent):
        held.append("dies-with-parent")
    return tuple(held)


def limit_cpu(seconds: float) -> None:
    """Allow `seconds` more of processor time; past them the kernel ends the process."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (int(used.ru_utime + used.ru_stime + seconds) + 1, hard))


def _limit_resources(memory_bytes: int, output_bytes: int) -> bool:
    limits = [
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, _MAX_DESCRIPTORS),
        (resource.RLIMIT_FSIZE, output_bytes),
        (resource.RLIMIT_NPROC, 0),
    ]
    with contextlib.suppress(OSError):
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limits.append((resource.RLIMIT_AS, pages * resource.getpagesize() + memory_bytes))
    held = 0
    for kind, value in limits:
        with contextlib.suppress(OSError, ValueError):
            _, hard = resource.getrlimit(kind)
            value = value if hard == resource.RLIM_INFINITY else min(value, hard)
            resource.setrlimit(kind, (value, value))
            held += 1
    return held == 5


def _filter_system_calls(libc: ctypes.CDLL) -> bool:
    machine = platform.machine()
    if machine not in _DENIED:
        return False
    denied = sorted({*_DENIED[machine].values(), *_DENIED_EVERYWHERE.values()})
    program = _seccomp_program(_AUDIT_ARCH[machine], denied, _PRLIMIT[machine])
    instructions = ctypes.create_string_buffer(program)

    class Program(ctypes.Structure):
        """struct sock_fprog."""

        _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))

    filter_ = Program(len(program) // 8, ctypes.cast(instructions, ctypes.c_void_p))
    return bool(libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(filter_), 0, 0) == 0)


def _seccomp_program(architecture: int, denied: list[int], own_only: int) -> bytes:
    """Classic BPF over struct seccomp_data (number at 0, architecture at 4, first argument at 16).

    Denies the calls `denied`, and `own_only` unless its first argument is 0; allows the rest.
    """
    load, equal, not_below, give = 0x20, 0x15, 0x35, 0x06
    allow, deny, kill = 0x7FFF_0000, 0x0005_0000 | 13, 0x8000_0000  # 13 is EACCES
    lines = [(load, 0, 0, 4), (equal, 1, 0, architecture), (give, 0, 0, kill), (load, 0, 0, 0)]
    left = len(denied)
    lines.append((not_below, left + 4, 0, _X32_BIT))
    for index, number in enumerate(denied):
        lines.append((equal, left - index + 3, 0, number))
    # Of the pid, a 32-bit number, the kernel reads the lower half alone.
    lines += [(equal, 0, 2, own_only), (load, 0, 0, 16), (equal, 0, 1, 0)]
    lines += [(give, 0, 0, allow), (give, 0, 0, deny)]
    return b"".join(struct.pack("=HBBI", *line) for line in lines)
