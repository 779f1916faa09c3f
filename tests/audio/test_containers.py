"""What a stream says that it is, when it is not what was asked for."""

import io

import numpy as np
import pytest
import soundfile

from ssasr.audio.decoding import make_decoder
from ssasr.audio.webm import MOST_ELEMENTS, WebmError, WebmReader
from ssasr.protocol.close_codes import CloseCode
from ssasr.protocol.faults import ClientFault
from ssasr.protocol.parameters import parse_parameters
from tests.audio.test_compressed import check_tone, encoded, pieces_of, tone

SIZES = [1, 7, 999, 1 << 20]


def received(query, pieces):
    decoder = make_decoder(parse_parameters(query))
    return b"".join([*map(decoder.decode, pieces), decoder.flush()])


def wav(rate=16_000, subtype="PCM_16", format_="WAV", channels=1):
    file = io.BytesIO()
    samples = np.repeat(tone(rate)[:, np.newaxis] / 32_768, channels, axis=1)
    soundfile.write(file, samples, rate, subtype=subtype, format=format_)
    return file.getvalue()


def remuxed(container):
    """As Opus in a file of that kind."""
    return encoded("libopus", container)[0]


@pytest.mark.parametrize("size", SIZES)
def test_opus_in_webm_is_heard_in_any_cut(size):
    samples = np.frombuffer(received("encoding=webm", pieces_of(remuxed("webm"), size)), "<i2")
    check_tone(samples, slack=400)


def test_webm_gives_the_packets_that_were_put_in():
    file, packets = encoded("libopus", "webm")
    assert WebmReader().packets(file) == packets


def test_a_live_recordings_clusters_have_no_length():
    """As MediaRecorder writes them."""
    file, packets = encoded("libopus", "webm")
    cluster = b"\x1f\x43\xb6\x75"
    at = file.index(cluster) + len(cluster)
    width = 9 - file[at].bit_length()
    live = file[:at] + b"\x01" + b"\xff" * 7 + file[at + width :]
    assert WebmReader().packets(live) == packets


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"\x00" * 20, "begins so"),
        (b"\xa3\x80" * 20, "begins so"),
        (b"\x1a\x45\xdf\xa3\x80" + b"\xa3\x84\x81\x00\x00\x80", "no Opus"),
        (b"\x1a\x45\xdf\xa3\x80" + b"\xa3\x10\xff\xff\xff", "too long"),
        (b"\x1a\x45\xdf\xa3\x80" + b"\xec\xff", "unknown length"),
        (b"\x1a\x45\xdf\xa3\x80" + b"\xec\x80" * MOST_ELEMENTS, "too many"),
    ],
)
def test_what_is_no_webm(data, problem):
    with pytest.raises(WebmError, match=problem):
        WebmReader().packets(data)


CONTAINERS = {
    "WebM": lambda: remuxed("webm"),
    "Ogg": lambda: remuxed("ogg"),
    "MP4": lambda: encoded("aac", "mp4")[0],
    "FLAC": lambda: wav(format_="FLAC"),
    "MP3": lambda: b"ID3\x04\x00\x00\x00\x00\x00\x23TSSE" + bytes(100),
}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", CONTAINERS)
@pytest.mark.parametrize("encoding", ["pcm_s16le", "pcm_mulaw", "ogg_opus", "webm", "aac"])
def test_a_container_under_another_name_is_named(encoding, name, size):
    if (encoding, name) in {("ogg_opus", "Ogg"), ("webm", "WebM")}:
        return
    with pytest.raises(ClientFault, match=f"the audio is {name}") as fault:
        received(f"encoding={encoding}", pieces_of(CONTAINERS[name](), size))
    assert fault.value.code is CloseCode.INVALID_INPUT


@pytest.mark.parametrize("size", SIZES)
def test_a_wav_header_is_no_sound(size):
    file = wav()
    assert received("", pieces_of(file, size)) == file[44:]


def test_neither_is_a_long_one():
    file = wav()
    extra = b"LIST" + (5).to_bytes(4, "little") + b"INFO!\0"
    assert received("", pieces_of(file[:36] + extra + file[36:], 10)) == file[44:]


@pytest.mark.parametrize(
    "file", [wav(8_000), wav(channels=2), wav(subtype="PCM_24"), wav(subtype="ULAW")]
)
def test_a_header_that_says_otherwise_is_a_fault(file):
    with pytest.raises(ClientFault, match="the WAV header says"):
        received("", pieces_of(file, 3_200))


def test_a_stream_shorter_than_any_header_is_heard():
    assert received("", [b"\x01", b"\x00\x02\x00"]) == b"\x01\x00\x02\x00"
