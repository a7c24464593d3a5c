"""Run a Python file in this process, which may open no socket and write no file.

    python silent_process.py FILE ARGUMENT...

A seccomp filter of the kernel kills the process (SIGSYS) at its first `socket` and at its first
`openat` for writing, from Python or from any library. Needs no rights and no other program.
"""

from __future__ import annotations

import ctypes
import os
import platform
import runpy
import struct
import sys
from typing import NamedTuple


class Architecture(NamedTuple):
    """Numbers of the kernel's interface."""

    audit: int
    """AUDIT_ARCH_*: the kernel gives it with each call."""
    socket: int
    openat: int


ARCHITECTURES = {
    "x86_64": Architecture(0xC000003E, socket=41, openat=257),
    "aarch64": Architecture(0xC00000B7, socket=198, openat=56),
}
PR_SET_SECCOMP = 22
PR_SET_NO_NEW_PRIVS = 38
SECCOMP_MODE_FILTER = 2
LOAD = 0x20
JUMP_IF_EQUAL = 0x15
JUMP_IF_BITS = 0x45
RETURN = 0x06
KILL_PROCESS = 0x80000000
ALLOW = 0x7FFF0000
CALL_NUMBER, ARCHITECTURE, THIRD_ARGUMENT = 0, 4, 32
"""Offsets in seccomp_data; of an argument the low half."""
FOR_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


def silence(of: Architecture) -> None:
    """From here on, for this process and what it starts."""
    instructions = [
        (LOAD, 0, 0, ARCHITECTURE),
        (JUMP_IF_EQUAL, 0, 6, of.audit),
        (LOAD, 0, 0, CALL_NUMBER),
        (JUMP_IF_EQUAL, 3, 0, of.socket),
        (JUMP_IF_EQUAL, 0, 3, of.openat),
        (LOAD, 0, 0, THIRD_ARGUMENT),
        (JUMP_IF_BITS, 0, 1, FOR_WRITING),
        (RETURN, 0, 0, KILL_PROCESS),
        (RETURN, 0, 0, ALLOW),
    ]
    packed = b"".join(struct.pack("=HBBI", *instruction) for instruction in instructions)
    code = ctypes.create_string_buffer(packed)
    program = struct.pack("@HP", len(instructions), ctypes.addressof(code))
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    if libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, program, 0, 0):
        raise OSError(ctypes.get_errno(), "no seccomp filter")


if __name__ == "__main__":
    silence(ARCHITECTURES[platform.machine()])
    # As the program itself would see them.
    sys.argv = sys.argv[1:]
    runpy.run_path(sys.argv[0], run_name="__main__")
