"""Compressed audio, encoded here with PyAV and decoded as a client's."""

import contextlib
import io
import sys

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssasr.audio.containers import MOST_PACKETS
from ssasr.audio.decoding import make_decoder
from ssasr.audio.ogg import OggError, OggReader, crc
from ssasr.protocol.close_codes import CloseCode
from ssasr.protocol.faults import ClientFault
from ssasr.protocol.parameters import parse_parameters

RATE = 48_000
SECONDS = 2.0
HERTZ = 440


def tone(rate):
    return np.sin(2 * np.pi * HERTZ * np.arange(int(rate * SECONDS)) / rate) * 8_000


def encoded(codec, container, layout="mono", rate=RATE):
    """The tone as a whole file, and its packets."""
    file, packets = io.BytesIO(), []
    with av.open(file, "w", format=container) as output:
        stream = output.add_stream(codec, rate=rate)
        stream.layout = layout
        channels = 2 if layout == "stereo" else 1
        samples = np.repeat(np.rint(tone(rate)).astype(np.int16), channels)[np.newaxis]
        frame = av.AudioFrame.from_ndarray(samples, format="s16", layout=layout)
        frame.sample_rate = rate
        size = stream.codec_context.frame_size or 960
        resampler = av.AudioResampler(stream.format.name, layout, rate, frame_size=size)
        frames = [*resampler.resample(frame), *resampler.resample(None), None]
        for each in frames:
            for packet in stream.encode(each):
                packets.append(bytes(packet))
                output.mux(packet)
    return file.getvalue(), packets


def decoded(encoding, pieces):
    decoder = make_decoder(parse_parameters(f"encoding={encoding}"))
    return np.frombuffer(b"".join([*map(decoder.decode, pieces), decoder.flush()]), "<i2")


def pieces_of(data, size):
    return [data[i : i + size] for i in range(0, len(data), size)]


def check_tone(samples, slack):
    """The right length, the right pitch, the right loudness."""
    assert abs(len(samples) - 16_000 * SECONDS) <= slack
    middle = samples[8_000:24_000].astype(float)
    spectrum = np.abs(np.fft.rfft(middle * np.hanning(len(middle))))
    assert np.argmax(spectrum) == HERTZ  # bins of 1 Hz
    assert abs(np.abs(middle).max() - 8_000) < 800


@pytest.mark.parametrize("layout", ["mono", "stereo"])
def test_opus_packets(layout):
    _, packets = encoded("libopus", "ogg", layout)
    check_tone(decoded("opus", packets), slack=400)


@pytest.mark.parametrize("layout", ["mono", "stereo"])
def test_ogg_opus_drops_the_encoders_delay(layout):
    file, _ = encoded("libopus", "ogg", layout)
    samples = decoded("ogg_opus", [file])
    check_tone(samples, slack=330)
    start = np.rint(tone(16_000))[2_000:4_000]
    assert np.corrcoef(samples[2_000:4_000], start)[0, 1] > 0.99  # in phase: nothing shifted


@pytest.mark.parametrize("layout", ["mono", "stereo"])
def test_aac(layout):
    file, _ = encoded("aac", "adts", layout)
    check_tone(decoded("aac", [file]), slack=700)


@pytest.mark.parametrize(
    ("encoding", "codec", "container"), [("ogg_opus", "libopus", "ogg"), ("aac", "aac", "adts")]
)
@pytest.mark.parametrize("size", [1, 7, 333, 4_096])
def test_any_cut_of_a_byte_stream_gives_the_same_samples(encoding, codec, container, size):
    file, _ = encoded(codec, container)
    assert np.array_equal(decoded(encoding, pieces_of(file, size)), decoded(encoding, [file]))


@pytest.mark.parametrize("encoding", ["opus", "ogg_opus", "aac"])
def test_bad_data_is_the_clients_fault(encoding):
    with pytest.raises(ClientFault, match="Invalid 'audio'") as caught:
        decoded(encoding, [b"\xff\xff\xff no audio at all" * 100])
    assert caught.value.code is CloseCode.INVALID_INPUT


@pytest.mark.parametrize("encoding", ["opus", "ogg_opus", "aac"])
def test_damaged_data_decodes_or_is_the_clients_fault(encoding):
    random = np.random.default_rng(7)
    file, packets = encoded(*{"aac": ("aac", "adts")}.get(encoding, ("libopus", "ogg")))
    for _ in range(60):
        damaged = bytearray(packets[5] if encoding == "opus" else file)
        for position in random.integers(0, len(damaged), 5):
            damaged[position] = random.integers(0, 256)
        with contextlib.suppress(ClientFault):
            decoded(encoding, [bytes(damaged)])


def test_a_message_cannot_unfold_to_hours():
    file = bytearray()
    for sequence in range(40):  # one-byte packets of 60 ms of nothing each
        file += page([b"\x18"] * 100, sequence)
    head = page([b"OpusHead\x01\x01" + bytes(9)], 0, flags=2) + page([b"OpusTags"], 1)
    with pytest.raises(ClientFault) as caught:
        decoded("ogg_opus", [head + bytes(file)])
    assert caught.value.code is CloseCode.INPUT_RATE


def test_without_the_extra_the_encoding_is_refused(monkeypatch):
    monkeypatch.delitem(sys.modules, "ssasr.audio.compressed", raising=False)
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ClientFault, match="Invalid 'encoding': opus is not available"):
        make_decoder(parse_parameters("encoding=opus"))


# -- Ogg -------------------------------------------------------------------------------------------


def page(packets, sequence, *, flags=0, lacing=None):
    body = b"".join(packets)
    if lacing is None:
        lacing = [n for p in packets for n in [255] * (len(p) // 255) + [len(p) % 255]]
    head = b"OggS\0" + bytes([flags]) + bytes(8) + b"\1\0\0\0" + sequence.to_bytes(4, "little")
    rest = bytes([len(lacing), *lacing]) + body
    checksum = crc(head + bytes(4) + rest)
    return head + checksum.to_bytes(4, "little") + rest


def test_a_packet_runs_over_pages():
    long = bytes(range(200)) * 4
    whole = page([long[:510]], 0, lacing=[255, 255]) + page([long[510:], b"x"], 1, flags=1)
    reader = OggReader()
    packets = [packet for piece in pieces_of(whole, 3) for packet in reader.read(piece)]
    assert [p.data for p in packets] == [long, b"x"]


@pytest.mark.parametrize(
    "stream",
    [
        page([b"audio"], 0),  # no header
        page([b"\x01vorbis" + bytes(20)], 0, flags=2),  # not Opus
        page([bytes(255 * 255)], 0, flags=1, lacing=[255] * 255) * 17,  # a packet without an end
    ],
)
def test_what_is_ogg_and_not_opus(stream):
    with pytest.raises(ClientFault, match="Invalid 'audio'"):
        decoded("ogg_opus", [stream])


def test_ogg_of_nothing_but_empty_packets_is_not_read_to_its_end():
    """A megabyte of them would take seconds, in which nobody else is served."""
    with pytest.raises(OggError, match="too many"):
        OggReader().read(page([b""] * 255, 0) * (MOST_PACKETS // 255 + 1))


def test_a_chain_of_streams_goes_on():
    """As a browser writes them when its recorder is started again."""
    file, _ = encoded("libopus", "ogg")
    once, twice = decoded("ogg_opus", [file]), decoded("ogg_opus", [file, file])
    assert abs(len(twice) - 2 * len(once)) < 400


def test_an_empty_adts_frame():
    with pytest.raises(ClientFault, match="Invalid 'audio'"):
        decoded("aac", [b"\xff\xf1\x50\x80\x00\x1f\xfc" * 3])


def test_a_change_of_rate_within_an_adts_stream():
    slow, _ = encoded("aac", "adts", rate=24_000)
    fast, _ = encoded("aac", "adts")
    assert abs(len(decoded("aac", [slow, fast])) - 2 * 16_000 * SECONDS) < 3_000


def test_another_missing_module_is_not_taken_for_the_extra(monkeypatch):
    monkeypatch.delitem(sys.modules, "ssasr.audio.compressed", raising=False)
    monkeypatch.setitem(sys.modules, "ssasr.audio.adts", None)
    with pytest.raises(ModuleNotFoundError, match="adts"):
        make_decoder(parse_parameters("encoding=aac"))


def plain_crc(data):
    """Bit by bit, as RFC 3533 describes it."""
    value = 0
    for byte in data:
        value ^= byte << 24
        for _ in range(8):
            value = (value << 1) ^ (0x104C11DB7 if value & 0x80000000 else 0)
    return value


@given(st.binary(max_size=50))
def test_checksum(data):
    assert crc(data) == plain_crc(data)


def test_damage_is_noticed():
    good = page([b"abc"], 0)
    with pytest.raises(OggError, match="damaged"):
        OggReader().read(good[:-1] + b"d")
    with pytest.raises(OggError, match="must begin"):
        OggReader().read(good + b"Ogx")
