"""The client's audio as 16 kHz mono PCM, whatever it sends and however it cuts it.

Every decoder gives the same samples for the same bytes in any cut (``opus``, one packet a message,
is the exception that its framing makes). Decoders hold state and belong to one session.
"""

from ssasr.audio.containers import StartChecked
from ssasr.audio.pcm import SAMPLE_FORMATS, Decoder, NativeRate, PcmDecoder
from ssasr.audio.resampling import Resampler
from ssasr.protocol.faults import invalid_value
from ssasr.protocol.parameters import SessionParameters
from ssasr.protocol.recognition import SAMPLE_RATE


def make_decoder(parameters: SessionParameters) -> Decoder:
    """The decoder for the session's encoding. ``ClientFault`` 3006 when it is a compressed one and
    the extra that decodes those is not installed."""
    if parameters.compressed:
        return _compressed(parameters.encoding)
    encoding, rate = parameters.encoding, parameters.sample_rate
    decoder: Decoder = NativeRate()
    if encoding != "pcm_s16le" or rate != SAMPLE_RATE:
        decoder = PcmDecoder(SAMPLE_FORMATS[encoding](), Resampler(rate))
    return StartChecked(decoder, encoding=encoding, rate=rate)


def _compressed(encoding: str) -> Decoder:
    try:
        from ssasr.audio.compressed import make_compressed_decoder
    except ModuleNotFoundError as missing:
        if missing.name != "av":
            raise
        raise invalid_value("encoding", f"{encoding} is not available on this server") from None
    return make_compressed_decoder(encoding)
