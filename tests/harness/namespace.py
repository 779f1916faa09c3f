"""The inside of a network namespace: a loopback, and one way out that leads into our hands.

Run by ``isolated`` under ``unshare --net --mount``. Everything that a process in here sends to any
address but the loopback's arrives as a packet at a tun device that this process reads, so that
"nothing left" is something a test can see, not something it assumes.
"""

import ctypes
import fcntl
import ipaddress
import os
import socket
import struct
import subprocess
from contextlib import suppress
from pathlib import Path

import trio

TUNSETIFF = 0x400454CA
IFF_TUN, IFF_NO_PI, IFF_UP, IFF_RUNNING = 0x0001, 0x1000, 0x1, 0x40
SIOCADDRT, SIOCSIFFLAGS, SIOCSIFADDR, SIOCSIFNETMASK = 0x890B, 0x8914, 0x8916, 0x891C
RTF_UP = 1
ROUTE = struct.Struct("=Q16s16s16sHh4xQQh6xQQQH6x")
"""``struct rtentry`` of 64-bit Linux."""
WAY_OUT = "out0"
ADDRESS = "10.64.0.1"


def _inet(address: str) -> bytes:
    return struct.pack("=HH4s8x", socket.AF_INET, 0, socket.inet_aton(address))


def open_way_out() -> int:
    """Bring up the loopback and the tun device with the default route; a file descriptor that
    reads one packet at a time. Raises OSError without the rights or the device."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        up = IFF_UP | IFF_RUNNING
        fcntl.ioctl(control, SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", up))
        tun = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        name = WAY_OUT.encode()
        fcntl.ioctl(tun, TUNSETIFF, struct.pack("16sH14x", name, IFF_TUN | IFF_NO_PI))
        fcntl.ioctl(control, SIOCSIFADDR, struct.pack("16s16s", name, _inet(ADDRESS)))
        fcntl.ioctl(control, SIOCSIFNETMASK, struct.pack("16s16s", name, _inet("255.255.255.0")))
        fcntl.ioctl(control, SIOCSIFFLAGS, struct.pack("16sH14x", name, up))
        device = ctypes.create_string_buffer(name)
        every, nobody = _inet("0.0.0.0"), _inet("0.0.0.0")
        route = ROUTE.pack(
            0, every, nobody, every, RTF_UP, 0, 0, 0, 0, ctypes.addressof(device), 0, 0, 0
        )
        fcntl.ioctl(control, SIOCADDRT, route)
    return tun


def keep_service_ports() -> None:
    """No connection in here gets a port that a service is still to listen on (50051, 50052): by
    default they are among those that connections are given."""
    with suppress(OSError):  # not ours to set on some machines; then it goes well nearly always
        Path("/proc/sys/net/ipv4/ip_local_port_range").write_text("20000 40000")


def use_name_server(run_dir: Path, address: str) -> None:
    """In this mount namespace, the only name server is the one at ``address``."""
    own = run_dir / "resolv.conf"
    own.write_text(f"nameserver {address}\n")
    subprocess.run(["mount", "--bind", str(own), "/etc/resolv.conf"], check=True)


async def watch_way_out(tun: int, leaving: list[str]) -> None:
    """Note where every packet wanted to go. The kernel's own IPv6 housekeeping is not counted."""
    while True:
        await trio.lowlevel.wait_readable(tun)
        packet = os.read(tun, 65_536)
        destination = describe(packet)
        if destination is not None:
            leaving.append(destination)


def describe(packet: bytes) -> str | None:
    """``protocol address:port`` of an IP packet; None for multicast IPv6 (router solicitation)."""
    if packet[0] >> 4 == 6:
        address: ipaddress.IPv4Address | ipaddress.IPv6Address
        address = ipaddress.IPv6Address(packet[24:40])
        if address.is_multicast:
            return None
        protocol, rest = packet[6], packet[40:]
    else:
        address = ipaddress.IPv4Address(packet[16:20])
        protocol, rest = packet[9], packet[(packet[0] & 15) * 4 :]
    port = int.from_bytes(rest[2:4]) if protocol in {6, 17} else 0
    kind = {6: "tcp", 17: "udp"}.get(protocol, str(protocol))
    return f"{kind} {address}:{port}"
