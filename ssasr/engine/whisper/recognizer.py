"""Whisper as a streaming recogniser: one step for any subset of the streams.

A step first runs the speech detector over the new audio of all streams, in one batch. Then each
stream advances through its audio until it needs a decode or an end-of-turn estimate. The most
urgent of these jobs are started (``worker_pool``), as many at once as there are workers. When a job
is done, in this step or a later one, its stream goes on; until then the stream is ``unfinished``.
So no stream waits for another's job.
"""

from collections.abc import Sequence
from concurrent.futures import Future
from functools import partial
from math import inf
from weakref import WeakSet

import numpy as np
import torch
from attrs import define, evolve, field, frozen

from ssasr.engine.capacity import MOST_STREAMS, Workload
from ssasr.engine.devices import choose_device, choose_dtype, choose_int8
from ssasr.engine.features import LogMel
from ssasr.engine.graphs import CudaGraphRecorder
from ssasr.engine.recognizer import (
    MANY_CHUNKS,
    Outcome,
    RecognizerSettings,
    SegmentStart,
    State,
    StepResult,
    Work,
)
from ssasr.engine.smart_turn import WINDOW, SmartTurn
from ssasr.engine.tokenizers import WhisperTokenizer
from ssasr.engine.vad import SileroVad, VadState, stack, unstack
from ssasr.engine.weights import read_weights
from ssasr.engine.whisper import checkpoint
from ssasr.engine.whisper.alignment import FRAME, token_frames
from ssasr.engine.whisper.biasing import STRENGTH, Terms, terms_of
from ssasr.engine.whisper.decoding import Decoding, Hypothesis, Request
from ssasr.engine.whisper.end_of_turn import evidence
from ssasr.engine.whisper.graph_passes import GraphPasses
from ssasr.engine.whisper.hypothesis_alignment import DecodedWord, without_squeezed
from ssasr.engine.whisper.language import SpokenLanguage
from ssasr.engine.whisper.model import Dims
from ssasr.engine.whisper.partial_interval import PartialInterval, least_capacity, most_streams
from ssasr.engine.whisper.passes import Network, Passes, PlainPasses
from ssasr.engine.whisper.quantized import quantize
from ssasr.engine.whisper.segment import CHUNK, SETTLE, Due, Kind, Segment
from ssasr.engine.whisper.settings import read_settings
from ssasr.engine.whisper.vocabulary import Vocabulary
from ssasr.engine.whisper.whole_segment import WholeSegment
from ssasr.engine.whisper.worker_pool import WorkerPool
from ssasr.engine.whisper.workload import workload
from ssasr.models import catalogue
from ssasr.protocol.recognition import SAMPLE_RATE, VAD_FRAME, StreamOptions, Word
from ssasr.runtime.processors import cores

PATIENCE = 0.04
"""Seconds that a step waits for workers; then it is time to listen to what has arrived."""
SHORT_PATIENCE = 0.01
"""The same while nobody listens live to what they do: somebody might begin to speak."""
BEHIND = SAMPLE_RATE
"""Samples that a stream's words may be behind its audio and the engine keeps up all the same."""
QUIET = 2.0
"""Seconds after which a stream without audio is none that somebody speaks on."""
NO_SPEECH = 0.6
LEAST_LOGPROB = -1.0
"""Whisper's own rule: above the first and, on average, below the second there was no speech."""

SPEAKERS = 2.1 * 4 * 384**2
"""Speaking streams that one core keeps up with, times layers and width² of the encoder: 2.1 of
tiny.en on an Intel Xeon at 2.8 GHz (``benchmarks/archive``)."""
STREAMS = 8
"""Streams offered on a device of models that were not measured on one."""
SMALL_STREAMS = 48
"""The same of small models: tiny.en on an H100, where the host's thread is what is busy
(``benchmarks/archive/whisper_device.md``)."""
SMALL = 512
"""Width of the models (tiny, base) to which a second thread of torch costs more than it gives. Four
streams of tiny.en on two cores: turns end 0.6 and 0.8 s after the silence asked for with one
thread, 2.0 s with two (median of a run each). Their threads decode side by side instead."""
OTHER_CODES = {"fil": "tl", "jv": "jw", "nb": "no"}
"""ISO 639 codes of languages for which Whisper uses another code."""
LONGEST_PROMPT = 2_000
"""Characters of a prompt, at its end, that are made tokens of: more than there is room for."""
MOST_WORKERS = 4
"""The most threads that a small model takes by default; more have not been measured."""


@frozen
class _EndOfTurnJob:
    """Whether speakers sound as if they had finished; ``place``: of the stream among them."""

    found: Future[list[float]]
    place: int


@frozen
class _DecodeJob:
    """What is said, with the words that make it up; ``place`` as above."""

    found: Future[list[tuple[Hypothesis, list[DecodedWord]]]]
    place: int
    request: Request


@define(eq=False)
class _Stream:
    """A segment with the speech detector's state, and the results of the current step."""

    segment: Segment
    vad: VadState
    final_at: int | None = None
    answers: list[StepResult] = field(factory=list)
    job: "_EndOfTurnJob | _DecodeJob | None" = None
    """What is being found out about the segment."""
    begun_at: float | None = None
    """When the first step with it began, where there is a clock."""
    stepped_at: float = 0.0

    def late(self, now: float) -> bool:
        """Whether it is behind and comes on more slowly than real time. One whose
        client sends a file faster than that is behind too, and one that was taken over."""
        speech_buffer = self.segment.speech_buffer
        advanced = (speech_buffer.position - speech_buffer.start) / SAMPLE_RATE
        slow = self.begun_at is not None and advanced < now - self.begun_at
        return slow and not self.in_background and speech_buffer.behind >= BEHIND

    def note_speaking(self, now: float) -> bool:
        """Whether somebody speaks, and the client goes on sending it."""
        if self.in_background:
            return False
        speaks = self.segment.speech_buffer.speech_end is not None and self.final_at is None
        return speaks and now - self.stepped_at < QUIET

    @property
    def in_background(self) -> bool:
        """Nobody listens live."""
        return self.segment.options.offline

    @property
    def waits(self) -> bool:
        """Whether it cannot advance any further yet."""
        return self.segment.due is not None or self.segment.end_of_turn_due

    @property
    def urgency(self) -> tuple[bool, int, int]:
        """The smaller, the more urgent: first those where somebody waits for the last words of a
        turn, or will as soon as these have advanced so far; then by what is due; then whoever
        has waited longest for new words. Streams in the background have an order of their own."""
        segment, due = self.segment, self.segment.due
        turn_ends = self.final_at is not None or segment.speech_buffer.silence_ahead >= SETTLE
        if due is None:
            return not turn_ends, 0, 0
        return not turn_ends, due.kind, segment.decoded - due.end


class WhisperRecognizer:
    """Implements ``engine.recognizer.Recognizer``."""

    chunk = CHUNK
    max_chunks = MANY_CHUNKS
    steps_at_once = 1

    def __init__(
        self,
        name: str,
        decoding: Decoding,
        vocabulary: Vocabulary,
        vad: SileroVad,
        smart_turn: SmartTurn,
        device: torch.device,
        max_streams: int,
        heads_delay: int = 0,
        workers: int = 0,
        capacity: float = inf,
        workload: Workload | None = None,
    ) -> None:
        """``heads_delay``: frames by which the alignment finds words too late. ``workers``: threads
        that decode side by side, beside the caller's. ``capacity``: see ``PartialInterval``.
        ``workload``: if ``max_streams`` is to be measured."""
        self.name = name
        self.workload = workload
        # A step chooses by itself what of all that is due it does.
        self.max_batch = max(max_streams, MOST_STREAMS)
        self.max_streams = max_streams
        self.languages = vocabulary.languages
        self.translates = vocabulary.multilingual
        self.decoding = decoding
        self._pool = WorkerPool(workers)
        self._background = WorkerPool(workers, background=True)
        self.vocabulary = vocabulary
        self._vad = vad
        self._smart_turn = smart_turn
        self._device = device
        self._delay = heads_delay * FRAME
        self._interval = PartialInterval(capacity)
        self.strength = STRENGTH
        """Of key terms: see ``biasing``."""
        self._streams = WeakSet[_Stream]()
        self._now = 0.0
        self._stepped: list[_Stream] = []

    def warm_up(self) -> None:
        """Two seconds of a tone through the networks; the first pass allocates and plans."""
        self.decoding.passes.warm_up()
        tone = np.sin(np.arange(32_000, dtype=np.float32) * 0.1) * 0.1
        silence = torch.zeros(1, 3, VAD_FRAME, device=self._device)
        with torch.inference_mode():
            self._smart_turn.probability([tone])
            for _ in range(2):
                self.decoding([Request(tone, self.languages[0])])
                self._vad.detect(silence, self._vad.initial_state(1, self._device))

    def new_state(self, options: StreamOptions, start: SegmentStart) -> State:
        segment = (WholeSegment if options.offline else Segment)(
            self._known(options), start.at, list(start.committed), start.committed_at,
            multilingual=self.vocabulary.multilingual,
            language=SpokenLanguage(start.language_before),
        )  # fmt: skip
        stream = _Stream(segment, self._vad.initial_state(1, self._device))
        self._streams.add(stream)
        return stream

    def configure(self, state: State, options: StreamOptions) -> None:
        _stream(state).segment.configure(self._known(options))

    def release(self, state: State) -> None:
        self._streams.discard(_stream(state))

    @torch.inference_mode()
    def step(self, batch: Sequence[Work]) -> list[Outcome]:
        streams = [_stream(work.state) for work in batch]
        for work, stream in zip(batch, streams, strict=True):
            stream.final_at, stream.answers = work.final_at, []
            stream.stepped_at = self._now
        self._detect_speech(batch, streams)
        self._advance(streams)
        nothing_else = all(one.in_background and one.waits for one in streams)
        if not self._pool.wait(PATIENCE) and nothing_else:
            self._background.wait(SHORT_PATIENCE)
        self._advance([one for one in streams if one.waits])  # the others have said all there is
        outcomes = [Outcome(tuple(one.answers), one.waits) for one in streams]
        self._stepped = streams
        return outcomes

    def worked(self, seconds: float, now: float) -> None:
        self._now = now
        for stream in self._stepped:
            if stream.begun_at is None:
                stream.begun_at = now - seconds
        keeps_up = not any(stream.late(now) for stream in self._stepped)
        self._interval.note_speaking(sum(one.note_speaking(now) for one in self._streams))
        self._interval.worked(seconds, now, busy=self._pool.busy, keeps_up=keeps_up)

    def _advance(self, streams: Sequence[_Stream]) -> None:
        """Give the segments what was found out, let them advance through the audio that there is,
        and begin what is most urgent of that which is needed next."""
        for stream in streams:
            if stream.job is not None and stream.job.found.done():
                self._apply(stream.segment, stream.job)
                stream.job = None
            if stream.job is None:
                stream.answers += stream.segment.advance(stream.final_at, self._interval.factor)
        waiting = [stream for stream in streams if stream.job is None and stream.waits]
        waiting.sort(key=lambda stream: stream.urgency)
        live = [stream for stream in waiting if not stream.in_background]
        later = [stream for stream in waiting if stream.in_background]
        if self._pool.workers:
            for stream in live[: self._pool.free]:
                self._start_jobs([stream], self._pool)
            free = self._background.free
            for worker in range(min(free, len(later))):
                self._start_jobs(later[worker::free][: self.decoding.passes.rows], self._background)
        elif live:
            self._start_jobs(live[: self.decoding.passes.rows], self._pool)
        elif later and all(one.job is None or one.in_background for one in streams):
            alone = all(stream.in_background for stream in self._streams)
            self._start_jobs(later[: self.decoding.passes.rows if alone else 1], self._pool)

    def _start_jobs(self, streams: Sequence[_Stream], pool: WorkerPool) -> None:
        """Find out what these streams wait for, in batches."""
        pausing = [stream for stream in streams if stream.segment.end_of_turn_due]
        if pausing:
            sounds = [stream.segment.speech_buffer.recent(WINDOW) for stream in pausing]
            estimates = pool.begin(lambda: self._smart_turn.probability(sounds).tolist())
            for place, stream in enumerate(pausing):
                stream.job = _EndOfTurnJob(estimates, place)
        due = [(one, one.segment.due) for one in streams if one.segment.due is not None]
        if due:
            requests = [self._request(stream.segment, what) for stream, what in due]
            decoding = pool.begin(partial(self._decode, requests, [what for _, what in due]))
            for place, ((stream, _), request) in enumerate(zip(due, requests, strict=True)):
                stream.job = _DecodeJob(decoding, place, request)

    def _apply(self, segment: Segment, job: _EndOfTurnJob | _DecodeJob) -> None:
        """What was found."""
        if isinstance(job, _EndOfTurnJob):
            segment.set_evidence(evidence(job.found.result()[job.place], segment.closing))
            return
        hypothesis, spoken = job.found.result()[job.place]
        if segment.due is not None and segment.due.continues:
            pass  # the language is the first part's
        elif job.request.language is None:
            segment.detected(hypothesis.language, hypothesis.language_confidence)
        elif job.request.language != segment.language.name:
            segment.language.forced(job.request.language)
        segment.apply(spoken, reliable=hypothesis.complete)

    def _detect_speech(self, batch: Sequence[Work], streams: Sequence[_Stream]) -> None:
        """Speech probabilities of the new audio; streams with as many frames share a batch."""
        groups: dict[int, list[int]] = {}
        frames = []
        for number, (work, stream) in enumerate(zip(batch, streams, strict=True)):
            frames.append(stream.segment.speech_buffer.frames(work.audio))
            groups.setdefault(len(frames[-1]), []).append(number)
        for count, numbers in groups.items():
            probabilities = np.zeros((len(numbers), 0), dtype=np.float32)
            if count:
                stacked = torch.from_numpy(np.stack([frames[number] for number in numbers]))
                state = stack([streams[number].vad for number in numbers])
                result, state = self._vad.detect(stacked.to(self._device), state)
                probabilities = result.cpu().numpy()
                for number, after in zip(numbers, unstack(state), strict=True):
                    streams[number].vad = after
            for number, row in zip(numbers, probabilities.tolist(), strict=True):
                streams[number].segment.speech_buffer.receive(batch[number].audio, row)

    def _request(self, segment: Segment, due: Due) -> Request:
        return Request(
            segment.samples(due), self._language(segment, due), segment.draft(due),
            segment.options.languages, segment.language.before,
            segment.language.settled, self._terms(segment.options), segment.options.translate,
            self._prompt(segment.options),
        )  # fmt: skip

    def _terms(self, options: StreamOptions) -> Terms | None:
        if not options.keyterms and not options.names:
            return None
        tokenizer = self.vocabulary.tokenizer
        return terms_of(options.keyterms, tokenizer, self.strength, options.names)

    def _prompt(self, options: StreamOptions) -> tuple[int, ...]:
        """Whisper reads a text before its own as what was said before."""
        text = options.prompt.strip()[-LONGEST_PROMPT:] if options.offline else ""
        return tuple(self.vocabulary.tokenizer.encode(f" {text}")) if text else ()

    def _decode(
        self, requests: Sequence[Request], dues: Sequence[Due]
    ) -> list[tuple[Hypothesis, list[DecodedWord]]]:
        """In a worker, perhaps: it must not touch what belongs to a stream."""
        return [
            (found, [] if _nothing_said(found) else self._words(found, due, request.terms))
            for found, due, request in zip(self.decoding(requests), dues, requests, strict=True)
        ]

    def _known(self, options: StreamOptions) -> StreamOptions:
        named = tuple(OTHER_CODES.get(code, code) for code in options.languages)
        return evolve(options, languages=named).known(self.languages)

    def _language(self, segment: Segment, due: Due) -> str | None:
        """The language to decode in; None: to be detected."""
        if not self.vocabulary.multilingual:
            return "en"
        if due.continues:
            detected = segment.language.name  # the first part's
        else:
            detected = None if due.kind is Kind.LANGUAGE else segment.language.settled
        return segment.options.language or detected

    def _words(self, hypothesis: Hypothesis, due: Due, terms: Terms | None) -> list[DecodedWord]:
        """Words with times in the stream and a confidence: the mean probability of the tokens."""
        tokenizer = self.vocabulary.tokenizer
        skip, count = hypothesis.skip, len(hypothesis.tokens)
        if not count:
            return []
        frames = token_frames(hypothesis.scores[:, : skip + count + 1], skip)
        ends = [*frames[1:].tolist(), hypothesis.scores.shape[2]][:count]
        words, place = [], 0
        spelled = tokenizer.words(hypothesis.tokens, hypothesis.language)
        texts = [tokenizer.text(tokens) for tokens in spelled]
        for tokens, text in zip(spelled, terms.cased(texts) if terms else texts, strict=True):
            last = place + len(tokens) - 1
            word = Word(
                text,
                due.begin + int(frames[place]) * FRAME,
                min(due.begin + ends[last] * FRAME, due.end),
                float(np.exp(hypothesis.logprobs[place : last + 1]).mean()),
            )
            closing = float(hypothesis.logprobs[last])
            words.append(DecodedWord(word, hypothesis.draft(place, last + 1), closing))
            place = last + 1
        return [self._moved(spoken, due) for spoken in without_squeezed(words)]

    def _moved(self, spoken: DecodedWord, due: Due) -> DecodedWord:
        """Where the word was said, as far as it lies in the excerpt."""
        start, end = (
            min(max(at - self._delay, due.begin), due.end)
            for at in (spoken.word.start, spoken.word.end)
        )
        return evolve(spoken, word=evolve(spoken.word, start=start, end=end))


def _nothing_said(hypothesis: Hypothesis) -> bool:
    return (
        hypothesis.no_speech > NO_SPEECH
        and len(hypothesis.tokens) > 0
        and float(hypothesis.logprobs.mean()) < LEAST_LOGPROB
    )


def _stream(state: State) -> _Stream:
    assert isinstance(state, _Stream), "a state goes back to the recogniser that made it"
    return state


def create(settings: RecognizerSettings) -> WhisperRecognizer:
    """A recogniser of the named model (of the catalogue, or a path), weights loaded."""
    device = choose_device(settings.device)
    choose_int8(device, settings.precision)  # which refuses what cannot be had
    files = catalogue.resolve(settings.model, pull=False)
    model = checkpoint.load(read_weights(files))
    small = model.dims.audio_width <= SMALL
    workers = 0
    if small and device.type == "cpu":
        workers = settings.threads or min(cores(), MOST_WORKERS)
        torch.set_num_threads(1)
    elif settings.threads:
        torch.set_num_threads(settings.threads)
    tokenizer = WhisperTokenizer.load(files.directory)
    config = read_settings(files.directory, model.dims, tokenizer)
    vocabulary = Vocabulary.build(
        tokenizer, model.dims.vocabulary, config.suppressed, config.suppressed_first
    )
    if device.type == "cpu" and settings.precision != "float32":
        quantize(model)
    vad = SileroVad.load(catalogue.resolve("silero-vad", pull=False).weights, device)
    turn_files = catalogue.resolve("smart-turn", pull=False)
    smart_turn = SmartTurn.load(turn_files.weights, device)
    mel = LogMel(model.dims.mels).to(device)
    model = model.to(device, choose_dtype(device, settings.precision))
    network = Network(model, mel, config.alignment_heads, vocabulary)
    passes: Passes = PlainPasses(network)
    if device.type == "cuda":
        passes = GraphPasses(network, CudaGraphRecorder(device))
    capacity, measured = inf, None
    streams = settings.max_streams or (SMALL_STREAMS if small else STREAMS)
    if device.type == "cpu":
        usual = usual_capacity(model.dims, workers or torch.get_num_threads())
        streams = settings.max_streams or most_streams(usual)
        capacity = max(usual, least_capacity(streams))
        if settings.max_streams is None:
            measured = workload(passes, vad, smart_turn, workers, capacity)
    decoding, delay = Decoding(passes, vocabulary), config.heads_delay
    return WhisperRecognizer(
        files.name, decoding, vocabulary, vad, smart_turn, device, streams, delay, workers,
        capacity, measured,
    )  # fmt: skip


def usual_capacity(dims: Dims, threads: int) -> float:
    """Streams that can be spoken on at once on that many cores while words in the making are as
    frequent as they should be. Not measured when the engine starts, unlike how many it offers:
    the interval would depend on what else ran at that moment, and with the interval the words."""
    return threads * SPEAKERS / (dims.audio_layers * dims.audio_width**2)
