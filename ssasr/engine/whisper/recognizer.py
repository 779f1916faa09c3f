"""Whisper as a streaming recogniser: one step for any subset of the streams.

A step first listens: the speech detector runs over all the streams' new audio in one batch. Then
each stream is walked through its audio until something has to be decoded. The most urgent decodes
are done, a bounded number, so that no step keeps the other streams waiting long, and their streams
walk on; what did not fit is ``unfinished`` and comes with the next step.
"""

import os
from collections.abc import Sequence

import numpy as np
import torch
from attrs import define, evolve, field

from ssasr import catalogue
from ssasr.engine.features import LogMel
from ssasr.engine.recognizer import Heard, Outcome, Recognizer, RecognizerSettings, State, Work
from ssasr.engine.smart_turn import WINDOW, SmartTurn
from ssasr.engine.tokenizers import WhisperTokenizer
from ssasr.engine.vad import SileroVad, VadState, stack, unstack
from ssasr.engine.weights import read_weights
from ssasr.engine.whisper import checkpoint
from ssasr.engine.whisper.alignment import FRAME, token_frames
from ssasr.engine.whisper.crew import Crew
from ssasr.engine.whisper.decoding import Decoding, Hypothesis, Request, Vocabulary
from ssasr.engine.whisper.pace import Pace
from ssasr.engine.whisper.quantized import quantize
from ssasr.engine.whisper.segment import CHUNK, SETTLE, Due, Segment, without_squeezed
from ssasr.engine.whisper.settings import read_settings
from ssasr.engine.whisper.splice import Spoken
from ssasr.protocol.recognition import StreamOptions, Word

DECODES_PER_WORKER = 4
"""Bounds how long a step takes: tiny.en needs 60 to 120 ms for one decode on one core. With more of
them, a loaded engine hears too late of turns that have ended."""
NO_SPEECH = 0.6
LEAST_LOGPROB = -1.0
"""Whisper's own rule: with more of the one and less of the other on average there was no speech."""

OPEN_SENTENCE = 0.4
"""What is left of Smart Turn's confidence when the text does not end a sentence. The two must agree
before a turn ends early at the default threshold (0.4): to cut a speaker off costs more than to
wait for the silence. A full stop alone proves nothing: the decoder closes most texts with one."""
SENTENCE_ENDS = ".?!。？！…"
SMALL = 512
"""Width of the models (tiny, base) to which a second thread of torch costs more than it gives. Four
streams of tiny.en on two cores: turns end 0.6 and 0.8 s after the silence asked for with one
thread, 2.0 s with two (median of a run each). Their threads decode side by side instead."""
MOST_WORKERS = 4
"""Threads that a small model takes by itself; nobody has measured more."""


@define(eq=False)
class _Stream:
    """A segment with the speech detector's state, and what this step has found out about it."""

    segment: Segment
    vad: VadState
    final_at: int | None = None
    answers: list[Heard] = field(factory=list)

    @property
    def waited_for(self) -> bool:
        """Whether somebody waits for the last words of a turn, or will as soon as this stream has
        been walked through."""
        return self.final_at is not None or self.segment.hearing.silence_ahead >= SETTLE


class WhisperRecognizer:
    """Implements ``engine.recognizer.Recognizer``."""

    chunk = CHUNK

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
        workers: int = 1,
    ) -> None:
        """``heads_delay``: frames by which the alignment finds words too late. ``workers``: threads
        that decode side by side."""
        self.name = name
        self.max_streams = max_streams
        self.languages = vocabulary.languages
        self.decoding = decoding
        self._crew = Crew(decoding, workers)
        self.vocabulary = vocabulary
        self._vad = vad
        self._smart_turn = smart_turn
        self._device = device
        self._delay = heads_delay * FRAME
        self._pace = Pace()
        self._caught_up = True
        """Whether the last step left nothing to do and came soon after the one before."""

    def warm_up(self) -> None:
        """Two seconds of a tone through both networks; the first pass allocates and plans."""
        tone = np.sin(np.arange(32_000, dtype=np.float32) * 0.1) * 0.1
        with torch.inference_mode():
            self._smart_turn.probability([tone])
            for _ in range(2):
                self.decoding([Request(tone, self.languages[0])])
                self._vad.listen(torch.zeros(1, 3, 512), self._vad.initial_state(1, self._device))

    def new_state(
        self,
        options: StreamOptions,
        start: int,
        committed: tuple[Word, ...] = (),
        committed_at: int = 0,
    ) -> State:
        detects = self.vocabulary.multilingual
        segment = Segment(options, start, list(committed), committed_at, detects=detects)
        return _Stream(segment, self._vad.initial_state(1, self._device))

    def configure(self, state: State, options: StreamOptions) -> None:
        _stream(state).segment.options = options

    def release(self, state: State) -> None:
        """Nothing to do: a state is ordinary memory."""

    @torch.inference_mode()
    def step(self, batch: Sequence[Work]) -> list[Outcome]:
        streams = [_stream(work.state) for work in batch]
        for work, stream in zip(batch, streams, strict=True):
            stream.final_at, stream.answers = work.final_at, []
        self._listen(batch, streams)
        self._walk(streams)
        room = DECODES_PER_WORKER * self._crew.workers
        while room and (now := _most_urgent(streams, room)):
            self._decode(now)
            self._walk(now)
            room -= len(now)
        outcomes = [Outcome(tuple(one.answers), one.segment.due is not None) for one in streams]
        newest = max((len(work.audio) for work in batch), default=0)
        self._caught_up = newest <= 2 * CHUNK and not any(one.unfinished for one in outcomes)
        return outcomes

    def worked(self, seconds: float, now: float) -> None:
        self._pace.worked(seconds, now, caught_up=self._caught_up)

    def _walk(self, streams: Sequence[_Stream]) -> None:
        """On through the audio that there is, until a decode is needed first."""
        while streams:
            for stream in streams:
                stream.answers += stream.segment.walk(stream.final_at, self._pace.factor)
            streams = [stream for stream in streams if stream.segment.to_judge]
            self._judge([stream.segment for stream in streams])

    def _listen(self, batch: Sequence[Work], streams: Sequence[_Stream]) -> None:
        """Speech probabilities of the new audio; streams with as many frames share a batch."""
        groups: dict[int, list[int]] = {}
        frames = []
        for number, (work, stream) in enumerate(zip(batch, streams, strict=True)):
            frames.append(stream.segment.hearing.frames(work.audio))
            groups.setdefault(len(frames[-1]), []).append(number)
        for count, numbers in groups.items():
            probabilities = np.zeros((len(numbers), 0), dtype=np.float32)
            if count:
                heard = torch.from_numpy(np.stack([frames[number] for number in numbers]))
                state = stack([streams[number].vad for number in numbers])
                result, state = self._vad.listen(heard.to(self._device), state)
                probabilities = result.cpu().numpy()
                for number, after in zip(numbers, unstack(state), strict=True):
                    streams[number].vad = after
            for number, row in zip(numbers, probabilities.tolist(), strict=True):
                streams[number].segment.hearing.receive(batch[number].audio, row)

    def _decode(self, streams: Sequence[_Stream]) -> None:
        """What is due in these streams, in one batch."""
        jobs = [(one.segment, one.segment.due) for one in streams if one.segment.due is not None]
        requests = [
            Request(segment.samples(due), self._language(segment), segment.draft(due))
            for segment, due in jobs
        ]
        hypotheses = self._crew(requests)
        for (segment, due), request, hypothesis in zip(jobs, requests, hypotheses, strict=True):
            if request.language is None:
                segment.detected(hypothesis.language, hypothesis.language_confidence)
            elif request.language != segment.language:
                segment.forced(request.language)
            words = [] if _nothing_said(hypothesis) else self._words(hypothesis, due)
            segment.apply(words, reliable=hypothesis.complete)

    def _language(self, segment: Segment) -> str | None:
        """The language to decode in; None: to be detected."""
        if not self.vocabulary.multilingual:
            return "en"
        return segment.options.language or (segment.language if segment.language_settled else None)

    def _words(self, hypothesis: Hypothesis, due: Due) -> list[Spoken]:
        """Words with times in the stream and a confidence: the mean probability of the tokens."""
        tokenizer = self.vocabulary.tokenizer
        skip, count = hypothesis.skip, len(hypothesis.tokens)
        if not count:
            return []
        frames = token_frames(hypothesis.scores[:, : skip + count + 1], skip)
        ends = [*frames[1:].tolist(), hypothesis.scores.shape[2]][:count]
        words, place = [], 0
        for tokens in tokenizer.words(hypothesis.tokens, hypothesis.language):
            last = place + len(tokens) - 1
            word = Word(
                tokenizer.text(tokens),
                due.begin + int(frames[place]) * FRAME,
                min(due.begin + ends[last] * FRAME, due.end),
                float(np.exp(hypothesis.logprobs[place : last + 1]).mean()),
            )
            words.append(Spoken(word, tokens))
            place = last + 1
        return [self._moved(spoken, due) for spoken in without_squeezed(words)]

    def _moved(self, spoken: Spoken, due: Due) -> Spoken:
        """Where the word was said, as far as it lies in the excerpt."""
        start, end = (
            min(max(at - self._delay, due.begin), due.end)
            for at in (spoken.word.start, spoken.word.end)
        )
        return evolve(spoken, word=evolve(spoken.word, start=start, end=end))

    def _judge(self, segments: Sequence[Segment]) -> None:
        """How sure it is that these speakers, who pause, have finished: how they sound, and whether
        the text ends a sentence."""
        if not segments:
            return
        sounds = self._smart_turn.probability(
            [segment.hearing.recent(WINDOW) for segment in segments]
        )
        for segment, sound in zip(segments, sounds.tolist(), strict=True):
            words = segment.words()
            ended = bool(words) and words[-1].text[-1] in SENTENCE_ENDS
            segment.judge(sound if ended else OPEN_SENTENCE * sound)


def _most_urgent(streams: Sequence[_Stream], room: int) -> list[_Stream]:
    """The ends of turns first, then whoever has waited longest for new words; no more than fit."""
    waiting = [
        (not stream.waited_for, due.kind, stream.segment.decoded - due.end, number)
        for number, stream in enumerate(streams)
        if (due := stream.segment.due) is not None
    ]
    return [streams[number] for *_, number in sorted(waiting)[:room]]


def _nothing_said(hypothesis: Hypothesis) -> bool:
    return (
        hypothesis.no_speech > NO_SPEECH
        and len(hypothesis.tokens) > 0
        and float(hypothesis.logprobs.mean()) < LEAST_LOGPROB
    )


def _stream(state: State) -> _Stream:
    assert isinstance(state, _Stream), "a state goes back to the recogniser that made it"
    return state


def create(settings: RecognizerSettings) -> Recognizer:
    """A recogniser of the named model (of the catalogue, or a path), weights loaded."""
    device = _device(settings.device)
    files = catalogue.resolve(settings.model, pull=False)
    model = checkpoint.load(read_weights(files))
    small = device.type == "cpu" and model.dims.audio_width <= SMALL
    workers = (settings.threads or min(cores(), MOST_WORKERS)) if small else 1
    if small:
        torch.set_num_threads(1)
    elif settings.threads:
        torch.set_num_threads(settings.threads)
    tokenizer = WhisperTokenizer.load(files.directory)
    config = read_settings(files.directory, model.dims, tokenizer)
    vocabulary = Vocabulary.build(
        tokenizer, model.dims.vocabulary, config.suppressed, config.suppressed_first
    )
    if device.type == "cpu":
        quantize(model)
    vad = SileroVad.load(catalogue.resolve("silero-vad", pull=False).weights, device)
    turn_files = catalogue.resolve("smart-turn", pull=False)
    smart_turn = SmartTurn.load(turn_files.weights, device)
    mel = LogMel(model.dims.mels).to(device)
    decoding = Decoding(model.to(device), mel, vocabulary, config.alignment_heads, device)
    streams = settings.max_streams or 8
    delay = config.heads_delay
    return WhisperRecognizer(
        files.name, decoding, vocabulary, vad, smart_turn, device, streams, delay, workers
    )


def cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(name)
