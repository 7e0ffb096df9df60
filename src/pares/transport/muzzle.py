"""A thread that cannot send a datagram to an address of its choice. Linux; elsewhere nothing is changed.

In loopback mode nothing may leave the machine. iroh 1.2.0 asks the local network for a router that forwards ports
whenever an endpoint begins, and its binding has no switch for that. The question goes out by `sendto` with an address;
QUIC's own datagrams go by `sendmsg`. A seccomp filter (seccomp(2)) refuses the former, to the thread that sets it and
to those that it starts: so the endpoint is opened, and with it iroh's threads are started, in such a thread.
"""

from __future__ import annotations

import ctypes
import errno
import logging
import os
import platform
import struct

log = logging.getLogger(__name__)

_SENDTO = {"x86_64": (0xC000003E, 44), "aarch64": (0xC00000B7, 206)}
"""By machine: its number in linux/audit.h, and that of the system call."""
_NUMBER, _ARCHITECTURE, _ADDRESS_LOW, _ADDRESS_HIGH = 0, 4, 48, 52
"""Offsets in `struct seccomp_data`; the address is the fifth argument of `sendto`."""
_LOAD, _IF_EQUAL, _RETURN = 0x20, 0x15, 0x06
_ALLOW, _REFUSE = 0x7FFF0000, 0x00050000 | errno.EPERM
_SET_NO_NEW_PRIVILEGES, _SET_SECCOMP, _FILTER = 38, 22, 2


def _program(architecture: int, sendto: int) -> list[tuple[int, int, int, int]]:
    """Classic BPF: code, instructions to skip if true, if false, operand."""
    return [
        (_LOAD, 0, 0, _ARCHITECTURE),
        (_IF_EQUAL, 0, 6, architecture),
        (_LOAD, 0, 0, _NUMBER),
        (_IF_EQUAL, 0, 4, sendto),
        (_LOAD, 0, 0, _ADDRESS_LOW),
        (_IF_EQUAL, 0, 3, 0),
        (_LOAD, 0, 0, _ADDRESS_HIGH),
        (_IF_EQUAL, 0, 1, 0),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _REFUSE),
    ]


def muzzle() -> None:
    """From now on `sendto` with an address fails with EPERM in this thread and in those that it will start."""
    if platform.system() != "Linux" or platform.machine() not in _SENDTO:
        return
    program = b"".join(struct.pack("HBBI", *each) for each in _program(*_SENDTO[platform.machine()]))
    instructions = ctypes.create_string_buffer(program, len(program))
    header = struct.pack("H6xP", len(program) // 8, ctypes.addressof(instructions))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_SET_NO_NEW_PRIVILEGES, 1, 0, 0, 0) or libc.prctl(_SET_SECCOMP, _FILTER, header, 0, 0):
        log.warning("iroh may ask the local network for a router: %s", os.strerror(ctypes.get_errno()))
