"""Silence as FLAC writes it: a frame of 65,535 samples is a dozen bytes."""

BLOCK = 65_535
RATE = 8_000


def silence(hours, *, says_length=True):
    """A file of so many hours; ``says_length``: its head gives the number of samples, which is
    optional (RFC 9639, 8.2)."""
    frames = round(hours * 3_600 * RATE / BLOCK)
    samples = frames * BLOCK if says_length else 0
    packed = RATE << 44 | 15 << 36 | samples  # one channel, 16 bits
    info = BLOCK.to_bytes(2) * 2 + bytes(6) + packed.to_bytes(8) + bytes(16)
    head = b"fLaC" + b"\x80" + len(info).to_bytes(3) + info
    return head + b"".join(map(_frame, range(frames)))


def _frame(number):
    """A head, a constant subframe of 0, a checksum (RFC 9639, 9)."""
    head = b"\xff\xf8\x74\x08" + chr(number).encode("utf-8", "surrogatepass")
    head += (BLOCK - 1).to_bytes(2)
    head += bytes([_checksum(head, 8, 0x07)])
    frame = head + b"\x00\x00\x00"
    return frame + _checksum(frame, 16, 0x8005).to_bytes(2)


def _checksum(data, width, polynomial):
    rest = 0
    for byte in data:
        rest ^= byte << width - 8
        for _ in range(8):
            rest = rest << 1 ^ (polynomial if rest >> width - 1 else 0)
            rest &= (1 << width) - 1
    return rest
