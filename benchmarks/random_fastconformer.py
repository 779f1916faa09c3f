"""FastConformer models with random weights that say something, for benchmarks.

Random weights alone make a transducer that is silent or never stops: see ``Ticker``.
"""

import numpy as np
import torch

from ssasr.engine.fastconformer.checkpoint import Processing
from ssasr.engine.fastconformer.config import EncoderConfig, ModelConfig
from ssasr.engine.fastconformer.cpu import CpuProgram
from ssasr.engine.fastconformer.detokenizer import Piece, PieceTable
from ssasr.engine.fastconformer.encoder import Span, WholePast
from ssasr.engine.fastconformer.program import PlainRunner, Program
from ssasr.engine.fastconformer.recognizer import (
    FastConformerRecognizer,
    SileroDetector,
    make_layout,
    make_runner,
)
from ssasr.engine.fastconformer.slots import Slots
from ssasr.engine.fastconformer.transducer import Model
from ssasr.engine.recognizer import SegmentStart, Work
from ssasr.engine.vad import SileroVad
from ssasr.protocol.recognition import SAMPLE_RATE, StreamOptions

SIZES = {
    "full": EncoderConfig(1024, 24, 8, 4096, 128, 71, attention_bias=False,
                          convolution_bias=False, scale_input=False),
    "small": EncoderConfig(96, 3, 4, 192, 80, 71, subsampling_conv_channels=16),
}  # fmt: skip


def model_config(size: str, vocabulary: int) -> ModelConfig:
    """The published sizes, or small ones to try the program with."""
    hidden = 640 if size == "full" else 64
    return ModelConfig(SIZES[size], vocabulary, vocabulary - 1, hidden, 2)


@torch.no_grad()
def random_model(config: ModelConfig, device: torch.device, dtype: torch.dtype) -> Model:
    """Normal weights, frames and texts rescaled to the same spread, so that both matter."""
    torch.manual_seed(0)
    with torch.device(device):
        model = Model(config)
    model = model.eval().requires_grad_(False)
    for name, parameter in model.named_parameters():
        if parameter.dim() > 1:
            parameter.normal_(0.0, parameter[0].numel() ** -0.5)
        elif "norm" not in name:
            parameter.zero_()
    model.decoder.embedding.weight.normal_()
    frames = sample_frames(model, device)
    rescale(model.encoder_projector, frames, 2.0)
    rescale(model.decoder.decoder_projector, sample_texts(model, device), 1.0)
    return model.to(dtype)


def sample_frames(model: Model, device: torch.device) -> torch.Tensor:
    """(rows, dim) projected frames of noise."""
    encoder, config = model.encoder, model.config.encoder
    mel = torch.randn(4, 8 * 40 + 7, config.num_mel_bins, device=device) * 2.0 - 6.0
    mel = mel.to(model.dtype)
    ones = torch.ones(4, dtype=torch.int64, device=device)
    cache = WholePast(config.left_frames(40), config.conv_context)
    frames = encoder(mel, Span(0 * ones, 2**40 * ones), cache, encoder.relative_keys(40))
    return model.encoder_projector(frames[:, 8:]).flatten(0, 1)


def sample_texts(model: Model, device: torch.device) -> torch.Tensor:
    """(rows, dim) summaries of random texts."""
    text = model.decoder.start()
    text = text.unpack(text.pack().expand(64, -1).contiguous(), model.decoder.depth)
    for _ in range(4):
        tokens = torch.randint(0, model.config.blank_token_id, (64,), device=device)
        text = model.decoder(tokens, text)
    return text.summary


def rescale(layer: torch.nn.Linear, outputs: torch.Tensor, deviation: float) -> None:
    """Make ``outputs`` of the layer centred and of that deviation."""
    scale = deviation / (outputs.std(0) + 1e-3)
    layer.weight.mul_(scale[:, None])
    layer.bias.sub_(outputs.mean(0)).mul_(scale)


class Ticker:
    """Makes the transducer say about one token for each change of the sound, as a trained one does.

    With random weights alone the number of tokens tips over: what makes a text speak makes it speak
    again, ten times a frame and for ever, or nothing does. A trained one falls silent when its text
    has caught up with the frames. So here tokens are of two kinds, by their parity, and the text
    knows the kind of its last one (the first number of each layer). A direction of the frames
    that changes sign often has its kind too. The first two numbers of the joint tell by how much
    the two disagree, and in which sense; the one leads to a token of the one kind, the other to
    one of the other, and blank wins below the bias that ``calibrate`` sets."""

    SAYS = 10.0

    @classmethod
    @torch.no_grad()
    def install(cls, model: Model, chunk_frames: int) -> None:
        """Into weights that are random otherwise. The frames are those of ``Audio``."""
        frames = heard_frames(model, chunk_frames)
        projected = torch.nn.functional.linear(frames, model.encoder_projector.weight[2:].float())
        centred = projected - projected.mean((0, 1))
        changes = (centred[:, 1:] * centred[:, :-1] < 0).float().mean((0, 1))
        best = int(changes.argmax())
        direction = model.encoder_projector.weight[2 + best].float() / centred[:, :, best].std()
        middle = (frames @ direction).mean()
        cls._text(model)
        head = model.joint.head.weight
        head[:, :2] = 0.0
        for sign, row in ((1.0, 0), (-1.0, 1)):
            model.encoder_projector.weight[row] = sign * direction
            model.encoder_projector.bias[row] = -sign * middle
            model.decoder.decoder_projector.weight[row] = 0.0
            model.decoder.decoder_projector.weight[row, 0] = -sign / 0.76
            model.decoder.decoder_projector.bias[row] = 0.0
            head[row : model.config.blank_token_id : 2, row] = cls.SAYS
        # Which token of its kind it is, the rest decides; not whether.
        head[:, 2:] *= 0.2 / head[:, 2:].float().std() / head.shape[1] ** 0.5
        model.joint.head.bias.zero_()
        head[model.config.blank_token_id] = 0.0

    @staticmethod
    def _text(model: Model) -> None:
        decoder, dim = model.decoder, model.config.decoder_hidden_size
        decoder.embedding.weight[0::2, 0], decoder.embedding.weight[1::2, 0] = 1.0, -1.0
        for layer in range(decoder.depth):
            gates = [decoder.lstm.get_parameter(f"{name}_l{layer}") for name in
                     ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]  # fmt: skip
            for parameter in gates:
                parameter[0::dim] = 0.0
            gates[0][2 * dim, 0] = 4.0
            gates[2][0::dim] = torch.tensor([8.0, -8.0, 0.0, 8.0])


@torch.no_grad()
def heard_frames(model: Model, chunk_frames: int) -> torch.Tensor:
    """(streams, frames, dim): what the projector is given while streams hear ``Audio``."""
    found = []
    hook = model.encoder_projector.register_forward_hook(
        lambda _, given, __: found.append(given[0].float())
    )
    blank, before = model.config.blank_token_id, model.joint.head.bias.clone()
    model.joint.head.bias[blank] = 1e4
    measured_rate(model, chunk_frames, 1.0)
    model.joint.head.bias.copy_(before)
    hook.remove()
    frames = torch.cat(found, 1)
    return frames[:, frames.shape[1] // 4 :]


@torch.no_grad()
def calibrate(model: Model, rate: float, chunk_frames: int) -> float:
    """Set the blank's bias for ``rate`` tokens a second; gives the rate found, unpaced."""
    Ticker.install(model, chunk_frames)
    bias, blank = model.joint.head.bias, model.config.blank_token_id
    low, high, rates = 0.0, 6 * Ticker.SAYS, {}
    for _ in range(8):
        bias[blank] = (low + high) / 2
        middle = float(bias[blank])
        rates[middle] = measured_rate(model, chunk_frames, 3 * rate)
        low, high = (middle, high) if rates[middle] > rate else (low, middle)
    nearest = min(rates, key=lambda each: abs(rates[each] - rate))
    bias[blank] = nearest
    return rates[nearest]


def measured_rate(model: Model, chunk_frames: int, limit: float) -> float:
    """Tokens a second and stream, over three seconds; it stops early beyond ``limit``."""
    streams = 8
    recognizer = make_recognizer(model, chunk_frames, streams, warm=False)
    audio = Audio(recognizer.chunk)
    states = [recognizer.new_state(StreamOptions(), SegmentStart(0)) for _ in range(streams)]
    steps = max(1, round(3 * SAMPLE_RATE / recognizer.chunk))
    tokens, seconds = 0, streams * steps * recognizer.chunk / SAMPLE_RATE
    for step in range(steps):
        recognizer.step([Work(s, audio.chunk(i, step)) for i, s in enumerate(states)])
        tokens = sum(len(state.transcript._tokens) for state in states)
        if tokens > limit * seconds:
            break
    return tokens / seconds


def make_recognizer(
    model: Model, chunk_frames: int, streams: int, *, warm: bool = True
) -> FastConformerRecognizer:
    """A recogniser with the model, room for that many streams, and a speech detector of the real
    size (random weights: the time is the same)."""
    detector = SileroDetector(SileroVad().to(model.device).eval().requires_grad_(False))
    layout = make_layout(model, streams, chunk_frames)
    if warm:
        runner = make_runner(model, layout, detector, torch.get_num_threads())
    else:
        slots = Slots.allocate(layout, model.device, model.dtype)
        kind = CpuProgram if model.device.type == "cpu" else Program
        runner = PlainRunner(kind(model, slots, detector), streams)
    words = tuple(Piece(f"w{n}", starts_word=n % 2 == 0) for n in range(model.config.vocab_size))
    processing = Processing((chunk_frames - 1,), {})
    recognizer = FastConformerRecognizer(
        "random", runner, layout, PieceTable(words), processing, streams
    )
    if warm:
        recognizer.warm_up()
    return recognizer


class Audio:
    """Noise with tones, one minute, of which every stream hears another part."""

    def __init__(self, chunk: int) -> None:
        generator = np.random.default_rng(0)
        time_ = np.arange(60 * SAMPLE_RATE) / SAMPLE_RATE
        pitch = 200 + 150 * np.sin(2 * np.pi * 0.7 * time_)
        tone = np.sin(2 * np.pi * np.cumsum(pitch) / SAMPLE_RATE)
        loudness = 0.5 + 0.5 * np.sin(2 * np.pi * 3.1 * time_)
        noise = 0.05 * generator.standard_normal(len(time_))
        self._samples = (0.3 * tone * loudness + noise).astype(np.float32)
        self._chunk = chunk

    def chunk(self, stream: int, step: int) -> np.ndarray:
        """The stream's next chunk."""
        begin = (stream * 7_919 + step * self._chunk) % (len(self._samples) - self._chunk)
        return self._samples[begin : begin + self._chunk]
