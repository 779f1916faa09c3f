"""The recogniser over slots: streams in, words out.

One step of a batch is one run of the program for all streams that have a chunk, whatever their
age, and further runs only for the streams that have more to do (a backlog, the cut-short chunks at
the end of a segment). A segment gets its slot with its state and loses it with its last words.
Streams that step on the grid are dealt with together, in the ``SlotState``'s arrays; the others by
a ``_Job`` each, whose rows ride along in the same runs.
"""

from collections.abc import Sequence
from functools import lru_cache, partial
from itertools import islice
from pathlib import Path
from typing import cast

import numpy as np
import torch
from attrs import define, field, frozen
from numpy.typing import NDArray
from torch import Tensor

from ssasr.engine.capacity import Workload
from ssasr.engine.devices import choose_device, choose_dtype, choose_int8
from ssasr.engine.fastconformer.biasing import Edges
from ssasr.engine.fastconformer.checkpoint import Processing, load_model, load_processing
from ssasr.engine.fastconformer.config import FRAME, load_config
from ssasr.engine.fastconformer.cpu import CpuProgram
from ssasr.engine.fastconformer.detokenizer import PieceTable, Token, Transcript
from ssasr.engine.fastconformer.graphs import GraphRunner
from ssasr.engine.fastconformer.program import Answer, Column, Program, Runner, SpeechDetector
from ssasr.engine.fastconformer.quantized import load_int8
from ssasr.engine.fastconformer.side_by_side import SideBySideRunner, fastest
from ssasr.engine.fastconformer.slot_state import SlotState, Speech, spoken
from ssasr.engine.fastconformer.slots import Layout, Slots
from ssasr.engine.fastconformer.streaming import (
    Grid,
    Progress,
    Row,
    RowPlan,
    can_rewind,
    write_audio,
    write_table,
)
from ssasr.engine.fastconformer.transducer import Model
from ssasr.engine.fastconformer.workload import padding_rows, workload
from ssasr.engine.graphs import CudaGraphRecorder
from ssasr.engine.recognizer import (
    Outcome,
    RecognizerSettings,
    SegmentStart,
    State,
    StepResult,
    Work,
)
from ssasr.engine.vad import SileroVad, VadState
from ssasr.errors import EngineBusy, StartRefused
from ssasr.models.catalogue import resolve
from ssasr.protocol.recognition import StreamOptions
from ssasr.runtime.free_memory import return_free_memory
from ssasr.runtime.processors import cores

CHUNK_MS = 160
"""Default chunk, or the next longer one that the model was trained with (the multilingual one has
320). English accuracy gains most from the first frame of lookahead (the published word error
rates); longer chunks are for more streams on one device."""
REWIND = 25_600
"""Samples that can be taken back when a segment is finalised in the past: 1.6 s, some two round
trips of a bad link. A guess; further back, words are cut at the sample, not decoded again."""
_FRAME_MS = 80
_LARGEST_BATCH_FRAMES = 4_096
"""Encoder frames in one step at most. Bounds the memory of the recorded graphs; a product of this
height keeps any current device busy, so more of them in a step would only be delivered later."""
_CPU_STREAMS = 16
"""For each core: there is room for as many, and how many of them are offered is measured. A slot's
memory is taken when it is first used."""
_STREAMS_OF_A_STEP = 2
"""On a CPU, as far as the choice of its kernels is concerned. Kernels that are some per cent faster
with a hundred rows take three times as long with seven."""
_CUDA_STREAMS = {1: 800, 2: 1_500, 4: 2_500, 7: 2_750, 14: 3_000}
"""Streams for each chunk, in frames, until ``max_streams`` is set from a measurement on the device:
see ``benchmarks/archive/fastconformer_device.md``. On an H100 800, 2,750 and 3,500 kept up at one,
four and fourteen frames; two and seven were not measured."""


@define(eq=False)
class Segment:
    """State of one stream's segment."""

    slot: int | None
    """None once the segment has ended or was released."""
    start: int
    transcript: Transcript


@frozen
class Statistics:
    """What has happened so far."""

    slots: int
    free_slots: int
    runs: int
    """Runs of the program."""
    rows: int
    """Rows in them."""
    rewound: int
    """Segments that ended before what had been processed."""
    cut: int
    """Those of them that lay too far back to be decoded again."""


@define(eq=False)
class _Job:
    """A ``Work`` that is more than the next chunk, on its way through a step."""

    number: int
    """In the batch."""
    segment: Segment
    final_at: int | None
    progress: Progress
    row: Row | None = None
    """The next row to run."""
    plan: RowPlan | None = None
    """Where the rows after that come from."""
    speech: list[float] = field(factory=list)
    with_tokens: bool = False
    """It brought tokens."""

    def move_on(self) -> None:
        """After ``row`` has been run."""
        self.row = None
        if self.plan is not None and self.plan.rows_left:
            self.row = self.plan.next_row()


@frozen
class _Rows:
    """Rows for one run; whole chunks first."""

    table: NDArray[np.int64]
    audio: Sequence[NDArray[np.float32]]
    segments: Sequence[Segment]


@frozen
class _Found:
    """What running them found, but for the tokens, which their transcripts have."""

    speech: list[Speech]
    with_tokens: list[int]
    """Numbers of the rows that brought tokens."""


_NO_ROWS = _Rows(np.empty((0, len(Column)), np.int64), (), ())


class FastConformerRecognizer:
    """See ``ssasr.engine.recognizer.Recognizer``."""

    translates = False
    workload: Workload | None = None

    def __init__(
        self,
        name: str,
        runner: Runner,
        layout: Layout,
        pieces: PieceTable,
        processing: Processing,
        max_streams: int,
        workload: Workload | None = None,
    ) -> None:
        """``workload``: if ``max_streams`` is to be measured."""
        self.workload = workload
        self.name, self.max_streams, self.max_batch = name, max_streams, runner.largest
        self.chunk = layout.chunk
        self.languages = processing.languages() or ("en",)
        self.max_chunks, self.steps_at_once = runner.max_chunks, runner.steps
        self._runner, self._layout, self._piece_table = runner, layout, pieces
        self._processing, self._grid = processing, Grid(layout.chunk_frames)
        self._slot_state = SlotState(self._grid, layout.slots)
        self._terms: list[tuple[str, ...]] = [()] * layout.slots
        self._edges = lru_cache(maxsize=256)(partial(Edges.of, encode=pieces.encode))
        self._free = list(range(layout.slots - 1, -1, -1))
        self._runs = self._rows = self._rewound = self._cut = 0

    def warm_up(self) -> None:
        """Records the graphs, where the device has them."""
        self._runner.warm_up()

    def new_state(self, options: StreamOptions, start: SegmentStart) -> Segment:
        """Raises EngineBusy if every slot is taken."""
        if not self._free:
            raise EngineBusy(f"all {self._layout.slots} slots of {self.name} are taken")
        transcript = Transcript(self._piece_table, start.at, start.committed)
        slot = self._free.pop()
        self._slot_state.open(slot, transcript, self._prompt(options))
        self._set_terms(slot, options.keyterms)
        return Segment(slot, start.at, transcript)

    def configure(self, state: State, options: StreamOptions) -> None:
        """The language and the key terms from the next chunk on; nothing else concerns this
        recogniser."""
        slot = _slot(_segment(state))
        self._slot_state.set_prompt(slot, self._prompt(options))
        self._set_terms(slot, options.keyterms)

    def release(self, state: State) -> None:
        """Give the slot back; for a stream that goes without ``final_at``. May be repeated."""
        segment = _segment(state)
        if segment.slot is not None:
            self._free.append(segment.slot)
            segment.slot = None

    def statistics(self) -> Statistics:
        """A snapshot."""
        return Statistics(
            self._layout.slots, len(self._free), self._runs, self._rows, self._rewound, self._cut
        )

    def step(self, batch: Sequence[Work]) -> list[Outcome]:
        """See the interface."""
        assert len(batch) <= self.max_batch, "a batch fits into one run"
        segments = cast(list[Segment], [work.state for work in batch])
        numbers = [segment.slot for segment in segments]
        assert None not in numbers, "a segment that has ended is not stepped again"
        slots = np.array(numbers, np.int64)
        audio = [work.audio for work in batch]
        on_grid_chunk = self._slot_state.on_grid_chunk(
            slots, audio, [work.final_at for work in batch]
        )
        on_grid = np.flatnonzero(on_grid_chunk)
        jobs = [self._job(n, batch[n]) for n in np.flatnonzero(~on_grid_chunk).tolist()]
        if len(on_grid) < len(batch):
            slots, chosen = slots[on_grid], on_grid.tolist()
            segments = [segments[number] for number in chosen]
            audio = [audio[number] for number in chosen]
        found = self._run(_Rows(self._slot_state.advance(slots), audio, segments), jobs)
        for row in found.with_tokens:
            self._note(segments[row])
        results = self._slot_state.results(slots, found.speech)
        while any(job.row is not None for job in jobs):
            self._run(_NO_ROWS, jobs)
        if not jobs:
            return list(map(Outcome, zip(results, strict=True)))
        outcomes = {job.number: self._outcome(job) for job in jobs}
        outcomes.update(zip(on_grid.tolist(), map(Outcome, zip(results, strict=True)), strict=True))
        return [outcomes[number] for number in range(len(batch))]

    def worked(self, seconds: float, now: float) -> None:
        """Nothing: a step does what it must."""

    def _set_terms(self, slot: int, keyterms: tuple[str, ...]) -> None:
        if self._terms[slot] != keyterms:
            self._terms[slot] = keyterms
            self._runner.set_terms(slot, self._edges(keyterms))

    def _prompt(self, options: StreamOptions) -> int:
        if not self._processing.prompts:
            return 0
        prompt = self._processing.prompt(options.known(self.languages).language or "auto")
        return self._layout.config.default_prompt_id if prompt is None else prompt

    def _job(self, number: int, work: Work) -> _Job:
        segment = _segment(work.state)
        progress = self._slot_state.progress(_slot(segment))
        job = _Job(number, segment, work.final_at, progress)
        end = None if work.final_at is None else work.final_at - segment.start
        if end is not None and end < progress.samples:
            self._rewound += 1
            if not can_rewind(self._grid, progress, end, self._layout.rewind):
                self._cut += 1
                segment.transcript.go_back(self._grid.frames_at_end(end), segment.start + end)
                return job
        before = progress.chunks
        job.plan = RowPlan.begin(self._grid, progress, work.audio, end)
        if end is not None and progress.chunks < before:
            frames = progress.chunks * self._layout.chunk_frames
            segment.transcript.go_back(frames, segment.start + end)
        job.move_on()
        return job

    def _run(self, on_grid_chunk: _Rows, jobs: Sequence[_Job]) -> _Found:
        """These rows and the next of each job; gives what was found for the former."""
        due = [job for job in jobs if job.row is not None]
        rows = self._with_jobs(on_grid_chunk, due) if due else on_grid_chunk
        if not rows.segments:
            return _Found([], [])
        inputs, count = self._runner.inputs(len(rows.segments)), len(on_grid_chunk.segments)
        inputs.table.numpy()[:] = rows.table
        write_audio(inputs.audio.numpy(), rows.audio, count)
        answer = self._runner.run(inputs)
        speech = spoken(answer.speech.numpy(), rows.table[:, Column.VAD_COUNT])
        with_tokens = self._extend(rows, answer)
        self._runs += 1
        self._rows += len(rows.segments)
        for job, probabilities in zip(due, speech[count:], strict=True):
            job.speech += probabilities
            job.move_on()
        for row in with_tokens:
            if row >= count:
                due[row - count].with_tokens = True
        return _Found(speech[:count], [row for row in with_tokens if row < count])

    def _with_jobs(self, on_grid_chunk: _Rows, due: Sequence[_Job]) -> _Rows:
        rows = [job.row for job in due if job.row is not None]
        slots = [_slot(job.segment) for job in due]
        table = np.empty((len(rows), len(Column)), np.int64)
        table[:, Column.SLOT] = slots
        table[:, Column.PROMPT] = [self._slot_state.prompt(slot) for slot in slots]
        write_table(table, rows)
        return _Rows(
            np.concatenate([on_grid_chunk.table, table]),
            [*on_grid_chunk.audio, *(row.audio for row in rows)],
            [*on_grid_chunk.segments, *(job.segment for job in due)],
        )

    def _extend(self, ran: _Rows, answer: Answer) -> list[int]:
        """Give the transcripts their tokens; says which rows had any."""
        emitted = answer.emitted.numpy()
        rows = np.flatnonzero(emitted)
        counts = emitted[rows]
        valid = np.arange(answer.tokens.shape[1]) < counts[:, None]
        first = ran.table[rows, Column.CHUNK] * self._layout.chunk_frames
        found = map(
            Token,
            answer.tokens.numpy()[rows][valid].tolist(),
            (answer.places.numpy()[rows] + first[:, None])[valid].tolist(),
            answer.confidences.numpy()[rows][valid].tolist(),
        )
        numbers: list[int] = rows.tolist()
        for row, count in zip(numbers, counts.tolist(), strict=True):
            ran.segments[row].transcript.extend(list(islice(found, count)))
        return numbers

    def _note(self, segment: Segment) -> None:
        """The segment has new tokens."""
        transcript = segment.transcript
        self._slot_state.note(_slot(segment), transcript, self._language(transcript))

    def _outcome(self, job: _Job) -> Outcome:
        segment, transcript, progress = job.segment, job.segment.transcript, job.progress
        frames = progress.chunks * self._layout.chunk_frames
        language = self._language(transcript)
        if job.final_at is None:
            slot = _slot(segment)
            self._slot_state.set_progress(slot, progress)
            if job.with_tokens:
                self._note(segment)
            words, position = self._slot_state.words(slot), segment.start + progress.samples
            decoded = segment.start + self._decoded(progress)
        else:
            words, position = transcript.words(end=job.final_at), job.final_at
            decoded = job.final_at
            self.release(segment)
        result = StepResult(
            position,
            tuple(job.speech),
            words,
            decoded,
            transcript.end_of_turn_confidence(frames),
            language,
            transcript.language_confidence if language else 0.0,
        )
        return Outcome((result,))

    def _language(self, transcript: Transcript) -> str | None:
        language = transcript.language
        return language if language in self.languages else None

    def _decoded(self, progress: Progress) -> int:
        """Samples that the words so far have been made from."""
        return self._grid.needed(progress.chunks - 1) if progress.chunks else 0


def _segment(state: State) -> Segment:
    assert isinstance(state, Segment), "states come from new_state"
    return state


def _slot(segment: Segment) -> int:
    assert segment.slot is not None, "a segment that has ended is not stepped again"
    return segment.slot


class SileroDetector:
    """Silero VAD as the program calls it: the context is read from the slot's audio."""

    def __init__(self, vad: SileroVad) -> None:
        self._vad = vad

    def __call__(self, frames: Tensor, context: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        before = VadState(state[:, 0], state[:, 1], context)
        probability, hidden, cells = self._vad.detect_with_states(frames, before)
        return probability, torch.stack([torch.stack(hidden, 1), torch.stack(cells, 1)], dim=2)


def create(settings: RecognizerSettings) -> FastConformerRecognizer:
    """The recogniser of a catalogue name or a checkpoint directory, on the device asked for.

    Raises WeightsError if the weights are not as they should be, StartRefused for a chunk that the
    model was not trained with or a device that is not there."""
    files = resolve(settings.model, pull=False)
    device = choose_device(settings.device)
    int8 = choose_int8(device, settings.precision)
    if int8:
        processing = load_processing(files.directory, load_config(files.directory))
        frames = choose_chunk(files.name, processing, settings.chunk_ms)
        torch.set_num_threads(1)  # kernels are timed as steps run them, side by side
        model = load_int8(files.name, files.directory, _STREAMS_OF_A_STEP * frames)
    else:
        model = load_model(files.directory, device, choose_dtype(device, settings.precision))
    vad = SileroVad.load(resolve("silero-vad", pull=False).weights, device)
    recognizer = build(
        files.name,
        files.directory,
        model,
        SileroDetector(vad),
        settings.chunk_ms,
        settings.max_streams,
        settings.threads,
    )
    model.encoder.forget_relative_projections()
    return_free_memory()
    return recognizer


def choose_chunk(name: str, processing: Processing, chunk_ms: int | None) -> int:
    """Encoder frames of a chunk. Raises StartRefused for one that the model was not trained
    with."""
    trained = [(frames + 1) * _FRAME_MS for frames in sorted(processing.lookaheads)]
    if chunk_ms is None:
        chunk_ms = next((known for known in trained if known >= CHUNK_MS), trained[-1])
    if chunk_ms not in trained:
        known = ", ".join(map(str, trained))
        raise StartRefused(f"{name} was not trained with chunks of {chunk_ms} ms, but {known} ms")
    return chunk_ms // _FRAME_MS


def build(
    name: str,
    directory: Path,
    model: Model,
    detector: SpeechDetector,
    chunk_ms: int | None,
    max_streams: int | None,
    threads: int | None = 1,
) -> FastConformerRecognizer:
    """The same, from a model that is loaded; ``directory`` has its tokenizer and processor.
    ``threads`` of a processor; None: its cores."""
    processing = load_processing(directory, model.config)
    chunk_frames, on_cpu = choose_chunk(name, processing, chunk_ms), model.device.type == "cpu"
    streams = max_streams
    if streams is None and on_cpu:
        streams = _CPU_STREAMS * cores()
    elif streams is None:
        streams = _CUDA_STREAMS.get(chunk_frames, _CUDA_STREAMS[1])
    # Where steps overtake each other, all streams may have left during one and others have come.
    layout = make_layout(model, streams, chunk_frames, spare=streams if on_cpu else 0)
    runner = make_runner(model, layout, detector, threads)
    pieces = PieceTable.load(directory, model.config)
    measured = None
    if on_cpu and max_streams is None:
        measured = workload(runner, layout, streams)
    return FastConformerRecognizer(name, runner, layout, pieces, processing, streams, measured)


def make_layout(model: Model, max_streams: int, chunk_frames: int, spare: int = 0) -> Layout:
    """Slots for ``max_streams`` and some that are just being handed over, ``spare`` if those are
    more than a few. On a processor a slot's memory is taken when it is first used."""
    rewind = max(2, -(-REWIND // (chunk_frames * FRAME)))
    spare = max(2, max_streams // 32, spare)
    return Layout(model.config, max_streams + spare, chunk_frames, rewind)


def largest_batch(layout: Layout) -> int:
    """Rows of a step at most."""
    return min(layout.slots, max(1, _LARGEST_BATCH_FRAMES // layout.chunk_frames))


@torch.no_grad()
def make_runner(
    model: Model, layout: Layout, detector: SpeechDetector, threads: int | None = 1
) -> Runner:
    """Allocates the slots; graphs on CUDA, the processor's program elsewhere, on so many threads
    (None: as there are cores)."""
    slots = Slots.allocate(layout, model.device, model.dtype)
    largest = largest_batch(layout)
    if model.device.type == "cuda":
        program = Program(model, slots, detector)
        return GraphRunner(program, largest, CudaGraphRecorder(model.device))
    program = CpuProgram(model, slots, detector)
    return fastest(
        partial(SideBySideRunner, program, largest),
        threads or cores(),
        lambda runner, rows: runner.run(padding_rows(runner, layout, min(rows, largest))),
    )
