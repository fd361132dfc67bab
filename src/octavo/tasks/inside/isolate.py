"""Giving up rights, for good: what the sandboxed program does to itself before it runs foreign code. Linux, else POSIX.

Two ways begin here: "namespaces" makes what bubblewrap makes (no network, no processes but its own, a read-only system
and an empty temporary folder in memory, nothing else of the file system); "rlimits" has limits only. With "bubblewrap"
all that is done already.
"""

import ctypes
import os
import resource
import signal
import sys
from collections.abc import Mapping, Sequence
from typing import Any

# From <sched.h>, <sys/mount.h>, <sys/prctl.h>, <linux/mount.h>, <linux/capability.h>
_CLONE_NEWNS, _CLONE_NEWUTS, _CLONE_NEWIPC = 0x20000, 0x4000000, 0x8000000
_CLONE_NEWUSER, _CLONE_NEWPID, _CLONE_NEWNET = 0x10000000, 0x20000000, 0x40000000
_MS_BIND, _MS_REC, _MS_PRIVATE, _MS_NOSUID, _MS_NODEV = 0x1000, 0x4000, 0x40000, 0x2, 0x4
_SYS_MOUNT_SETATTR, _AT_FDCWD, _AT_RECURSIVE, _MOUNT_ATTR_RDONLY, _MOUNT_ATTR_NOSUID = 442, -100, 0x8000, 0x1, 0x2
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_CHILD_SUBREAPER, _PR_SET_NO_NEW_PRIVS = 1, 4, 36, 38
_CAPABILITY_VERSION_3 = 0x20080522

_OURS = 3  # processes: this one, the one that waits for it, the one that it will start
_NOBODY = 65534
_DEVICES = ("/dev/null", "/dev/zero", "/dev/urandom", "/dev/random")
_ROOT = "/tmp"  # covered by the new root, and the temporary folder inside it


def isolate(kind: str, visible: Sequence[str], limits: Mapping[str, int], become_user: int | None) -> None:
    """Return isolated, in a child process if "namespaces" are asked for. Raises OSError where the system refuses.

    `become_user` is for root: a user whom nobody else is, so that its processes can be counted.
    """
    linux = sys.platform == "linux"
    if linux:
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if kind == "namespaces":
        _enter_namespaces(visible, limits)
    if become_user is not None:
        _become(become_user)
    if linux:
        _drop_capabilities()
        _prctl(_PR_SET_NO_NEW_PRIVS, 1)
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # again: forking and changing the user undo it
        _prctl(_PR_SET_CHILD_SUBREAPER, 1)
        _prctl(_PR_SET_DUMPABLE, 0)  # so that no process of the same user can read this one's memory or files
    if kind != "rlimits" or become_user is not None:  # a user of its own, who has no other processes
        _limit(resource.RLIMIT_NPROC, limits["processes"] + _OURS)
    elif os.getuid() != 0:
        _limit(resource.RLIMIT_NPROC, limits["processes"] + _OURS + limits["processes_of_user"])
    _limit(resource.RLIMIT_AS, limits["memory_bytes"])
    _limit(resource.RLIMIT_FSIZE, limits["file_bytes"])
    _limit(resource.RLIMIT_NOFILE, limits["open_files"])
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_CPU, limits["cpu_seconds"] + 2)  # of the tests; the solution sets its own


def limit_cpu(seconds: int) -> None:
    """Have this process killed after so many seconds of processor time."""
    _limit(resource.RLIMIT_CPU, seconds)


def _limit(what: int, most: int) -> None:
    _, hard = resource.getrlimit(what)
    most = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(what, (most, most))


def _enter_namespaces(visible: Sequence[str], limits: Mapping[str, int]) -> None:
    """Return in a child that is process 1 of its own world; this process waits for it and ends as it does."""
    user, group = os.getuid(), os.getgid()
    flags = _CLONE_NEWNS | _CLONE_NEWPID | _CLONE_NEWNET | _CLONE_NEWIPC | _CLONE_NEWUTS
    _checked(_libc().unshare(flags | (_CLONE_NEWUSER if user else 0)), "unshare")
    if user:
        _write("/proc/self/setgroups", "deny")
        _write("/proc/self/uid_map", f"{user} {user} 1")
        _write("/proc/self/gid_map", f"{group} {group} 1")
    _mount(None, "/", None, _MS_REC | _MS_PRIVATE)
    child = os.fork()
    if child:
        _, status = os.waitpid(child, 0)
        os._exit(os.waitstatus_to_exitcode(status) & 0xFF)
    os.setsid()
    _enter_root(visible, limits)


def _enter_root(visible: Sequence[str], limits: Mapping[str, int]) -> None:
    """Make a root of what may be seen, in memory, and go there."""
    shown = [path for path in (*visible, *_DEVICES) if os.path.exists(path)]
    # Opened before the new root covers the folder that they may lie in.
    sources = [os.open(path, os.O_PATH) for path in shown]
    _mount("tmpfs", _ROOT, "tmpfs", _MS_NOSUID | _MS_NODEV, "mode=755")
    for path, source in zip(shown, sources, strict=True):
        target = _ROOT + path
        if os.path.isdir(f"/proc/self/fd/{source}"):
            os.makedirs(target, exist_ok=True)
        else:
            os.makedirs(os.path.dirname(target), exist_ok=True)
            os.close(os.open(target, os.O_CREAT | os.O_WRONLY))
        _mount(f"/proc/self/fd/{source}", target, None, _MS_BIND | _MS_REC)
        if path not in _DEVICES:
            _make_read_only(target, _AT_RECURSIVE)
        os.close(source)
    os.makedirs(_ROOT + "/tmp", exist_ok=True)
    _make_read_only(_ROOT, 0)
    options = f"mode=1777,size={limits['disk_bytes']},nr_inodes={limits['files'] + 1}"
    _mount("tmpfs", _ROOT + "/tmp", "tmpfs", _MS_NOSUID | _MS_NODEV, options)
    os.chroot(_ROOT)
    os.chdir("/tmp")


def _become(user: int) -> None:
    """Raises OSError."""
    os.setgroups([])
    for known in (user, _NOBODY):  # a container may know few users
        try:
            os.setresgid(known, known, known)
            os.setresuid(known, known, known)
        except OSError:
            if known == _NOBODY:
                raise
        else:
            return


def _drop_capabilities() -> None:
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    _checked(_libc().capset(header, (ctypes.c_uint32 * 6)()), "capset")


def _make_read_only(path: str, depth: int) -> None:
    attributes = (ctypes.c_uint64 * 4)(_MOUNT_ATTR_RDONLY | _MOUNT_ATTR_NOSUID, 0, 0, 0)
    arguments = (_AT_FDCWD, path.encode(), depth, attributes, ctypes.c_size_t(ctypes.sizeof(attributes)))
    _checked(_libc().syscall(_SYS_MOUNT_SETATTR, *arguments), f"mount_setattr {path}")


def _mount(source: str | None, target: str, kind: str | None, flags: int, options: str | None = None) -> None:
    texts = [text.encode() if text is not None else None for text in (source, target, kind)]
    done = _libc().mount(*texts, ctypes.c_ulong(flags), options.encode() if options else None)
    _checked(done, f"mount {target}")


def _prctl(what: int, value: int) -> None:
    _checked(_libc().prctl(what, ctypes.c_ulong(value), 0, 0, 0), "prctl")


def _write(path: str, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)


def _libc() -> Any:
    return ctypes.CDLL(None, use_errno=True)


def _checked(result: int, what: str) -> None:
    if result != 0:
        error = ctypes.get_errno()
        raise OSError(error, f"{what}: {os.strerror(error)}")
