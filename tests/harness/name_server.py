"""A name server for one test: answers A questions from a table that the test changes as it goes."""

import struct

import trio
from attrs import define, field

HEADER = struct.Struct("!6H")
ANSWER = struct.Struct("!HHHLH4s")
NO_SUCH_NAME = 3
A, IN = 1, 1


@define(eq=False)
class NameServer:
    """``addresses``: name to IPv4 addresses. A name that is not there does not exist."""

    addresses: dict[str, list[str]] = field(factory=dict)
    questions: list[str] = field(factory=list)
    """Every name asked for, in order."""

    async def run(
        self,
        address: str = "127.0.0.1",
        port: int = 0,
        *,
        task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Started with ``host:port``."""
        with trio.socket.socket(type=trio.socket.SOCK_DGRAM) as socket:
            await socket.bind((address, port))
            host, port = socket.getsockname()
            task_status.started(f"{host}:{port}")
            while True:
                question, peer = await socket.recvfrom(512)
                await socket.sendto(self.answer(question), peer)

    def answer(self, packet: bytes) -> bytes:
        number, _, _, _, _, _ = HEADER.unpack_from(packet)
        name, end = read_name(packet, HEADER.size)
        (kind,) = struct.unpack_from("!H", packet, end)
        self.questions.append(name)
        known = self.addresses.get(name)
        found = known or [] if kind == A else []
        flags = 0x8180 | (0 if known is not None else NO_SUCH_NAME)
        records = b"".join(
            ANSWER.pack(0xC000 | HEADER.size, A, IN, 1, 4, bytes(map(int, address.split("."))))
            for address in found
        )
        head = HEADER.pack(number, flags, 1, len(found), 0, 0)
        return head + packet[HEADER.size : end + 4] + records


def read_name(packet: bytes, at: int) -> tuple[str, int]:
    """The dotted name at ``at``, and where what follows it begins."""
    labels = []
    while length := packet[at]:
        labels.append(packet[at + 1 : at + 1 + length].decode("ascii"))
        at += 1 + length
    return ".".join(labels), at + 1
