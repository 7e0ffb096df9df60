"""A muzzled thread: no datagram to an address of its choice; everything else as before."""

from __future__ import annotations

import socket
from concurrent.futures import ThreadPoolExecutor

import pytest

from pares.transport.muzzle import muzzle


def test_a_muzzled_thread_and_its_children_cannot_send_to_an_address_and_others_can() -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as receiver, socket.socket(type=socket.SOCK_DGRAM) as sender:
        receiver.bind(("127.0.0.1", 0))
        receiver.settimeout(5)
        where = receiver.getsockname()

        def of_a_child() -> int:
            with ThreadPoolExecutor(1) as child:
                return child.submit(sender.sendto, b"child", where).result()

        with ThreadPoolExecutor(1, initializer=muzzle) as muzzled:
            for attempt in (lambda: sender.sendto(b"own", where), of_a_child):
                with pytest.raises(PermissionError):
                    muzzled.submit(attempt).result()
            # As QUIC sends, and as streams and connected sockets do.
            assert muzzled.submit(sender.sendmsg, [b"message"], [], 0, where).result() == len(b"message")
        assert receiver.recv(64) == b"message"
        sender.sendto(b"free", where)
        assert receiver.recv(64) == b"free"
