"""What a process and its children do to files and the network, seen by strace.

Attempts count, whether they succeed or not.
"""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

SYSCALLS = (
    "socket,connect,sendto,sendmsg,open,openat,openat2,creat,mkdir,mkdirat,rename,renameat,"
    "renameat2,link,linkat,symlink,symlinkat,unlink,unlinkat,rmdir,truncate,chmod,fchmodat,mknodat"
)
STRACE = ("strace", "-f", "--seccomp-bpf", "-y", "-qq", "-s", "4096", "-e", f"trace={SYSCALLS}")
# What a resolver reads (nsswitch.conf names who resolves), and the name service's daemon.
RESOLVER = re.compile(r"/etc/(resolv\.conf|hosts|gai\.conf|nsswitch\.conf)\"|/nscd/socket")
INTERNET = re.compile(r"AF_INET|AF_NETLINK|AF_PACKET")
WRITES = re.compile(r"O_(WRONLY|RDWR|CREAT|TRUNC|APPEND)")
CALL = re.compile(r"^\d+ +(\w+)\((.*)$")
# A path argument of strace -y: the descriptor of a folder with its path, then a string.
PLACE = re.compile(r'(?:(?:AT_FDCWD|\d+)<([^>]*)>, )?"((?:[^"\\]|\\.)*)"')
DEVICES = ("/dev/null", "/dev/tty", "/dev/shm/", "/proc/self/", "/dev/nvidia")


@dataclass(frozen=True)
class Trace:
    """A process that ended.

    Attributes:
        code: its exit code.
        stdout: what it printed.
        stderr: what it printed there.
        lines: its calls, as strace writes them.
        folder: its working directory.
    """

    code: int
    stdout: str
    stderr: str
    lines: tuple[str, ...]
    folder: Path

    def network(self) -> list[str]:
        """Calls that make an internet socket or ask a resolver."""
        return [line for line in self.lines if _is_network(line)]

    def writes_outside(self, folders: Iterable[Path]) -> list[str]:
        """Paths that were written, made or removed, or were to be, outside some folders."""
        allowed = tuple(f"{folder}/" for folder in folders)
        roots = {str(folder) for folder in folders}
        return sorted(
            {
                path
                for line in self.lines
                for path in _written(line, self.folder)
                if path not in roots and not path.startswith((*allowed, *DEVICES))
            }
        )


@functools.cache
def why_no_trace() -> str:
    """Why processes cannot be traced here; empty if they can."""
    if shutil.which("strace") is None:
        return "needs strace"
    done = subprocess.run([*STRACE, "-o", os.devnull, "true"], capture_output=True)
    return "" if done.returncode == 0 else "strace may not trace here"


def trace(
    command: Sequence[str | Path],
    log: Path,
    environment: dict[str, str],
    folder: Path,
) -> Trace:
    """Run a command under strace.

    Args:
        command: the program and its arguments.
        log: where strace writes.
        environment: all of the process's variables.
        folder: its working directory.
    """
    done = subprocess.run(
        [*STRACE, "-o", str(log), *map(str, command)],
        capture_output=True,
        stdin=subprocess.DEVNULL,
        text=True,
        env=environment,
        cwd=folder,
        timeout=200,
    )
    lines = log.read_text("utf-8", "replace").splitlines()
    return Trace(done.returncode, done.stdout, done.stderr, tuple(lines), folder)


def _is_network(line: str) -> bool:
    call = CALL.match(line)
    if call is None:
        return False
    name, arguments = call.groups()
    if name in ("socket", "connect", "sendto", "sendmsg") and INTERNET.search(arguments):
        return True
    return bool(RESOLVER.search(arguments))


def _written(line: str, folder: Path) -> Iterator[str]:
    """Paths that a call writes. Relative ones start in `folder`, unless a descriptor says more."""
    call = CALL.match(line)
    if call is None:
        return
    name, arguments = call.groups()
    if name in ("socket", "connect", "sendto", "sendmsg"):
        return
    if name.startswith("open") and not WRITES.search(arguments.rpartition('"')[2]):
        return
    places = PLACE.findall(arguments)
    if name.startswith(("symlink",)):
        places = places[1:]  # the first is only text
    for above, path in places:
        yield os.path.normpath(os.path.join(above or folder, path))
