"""Greedy decoding of a batch of excerpts, each with a draft (speculative decoding).

The draft is the previous hypothesis about nearly the same audio. The decoder checks all of it in
one pass: the longest prefix that greedy decoding would have chosen is kept, the first token that
differs is replaced by the greedy choice, and the rest of the draft is tried again after it. The
result equals greedy decoding from scratch, in a few passes. Key terms are tried in the text that
came of it (``biasing``).
"""

import math
from collections.abc import Sequence
from itertools import chain

import numpy as np
import torch
from attrs import define, field, frozen
from numpy.typing import NDArray

from ssasr.engine.whisper.alignment import FRAME, attention_map
from ssasr.engine.whisper.biasing import LONGEST, Terms, Trial, gain
from ssasr.engine.whisper.passes import Batch, Excerpt, Inputs, Outputs, Passes
from ssasr.engine.whisper.vocabulary import Vocabulary
from ssasr.protocol.recognition import SURE_LANGUAGE

PADDING = 8_000
"""Least zeros after the excerpt, in samples; the vectors that stand for the silence up to 30 s are
made of the last of them."""
LENGTH_STEP = 8_000
"""Excerpts are padded to multiples of this, so that streams share encoder batches."""
TOKENS_PER_SECOND = 12
"""More tokens a second than people speak; bounds the cost of a hypothesis."""
SPARE_TOKENS = 12
LOOK_AHEAD = 8
"""Tokens of the draft among which a token is looked for that came instead of another."""
RETRY = 12
"""Tokens of the draft that are tried after that; more would cost more than they save."""
FAMILIAR = 10.0
"""How much likelier people go on in a language than with any other. 150 prompts in five languages
(``benchmarks/archive``): after half a second of speech base takes 77 for what they are, 104 with
their language spoken before and 70 with another one; after one second 109, 123 and 103."""
REWIND = 10
"""Frames (20 ms) that words said twice are apart at least; a loop attends to the same ones."""


@frozen
class Request:
    """samples: float32 (n,). language: forced, or None to detect it, ``among`` these if there are
    any. draft: expected tokens."""

    samples: NDArray[np.float32]
    language: str | None
    draft: tuple[int, ...] = ()
    among: tuple[str, ...] = ()
    language_before: str | None = None
    """What was spoken before: ``FAMILIAR`` times likelier than others."""
    settled: str | None = None
    """What the language is taken for, unless another has a share of ``SURE_LANGUAGE``."""
    terms: Terms | None = None
    """Key terms that the text may hold."""
    translate: bool = False
    """Into English."""
    prompt: tuple[int, ...] = ()
    """Tokens of a text that this one may be taken to follow; the last ``Decoding.most_prompt`` of
    them count."""


@frozen
class Hypothesis:
    """What greedy decoding and key terms make of an excerpt.

    scores (heads, rows, frames) as ``alignment.token_frames`` takes them, with ``skip`` rows before
    the text; the frames are those of the excerpt without its padding. ``complete``: the decoder
    ended the text itself, it was not cut for looping or length."""

    tokens: tuple[int, ...]
    logprobs: NDArray[np.float32]
    scores: NDArray[np.float32]
    skip: int
    no_speech: float
    language: str
    language_confidence: float
    complete: bool
    greedy: tuple[tuple[int, ...], ...] = ()
    """What greedy decoding wrote instead of each token, all of it at a term's first; nothing where
    no term was written."""

    def draft(self, begin: int, end: int) -> tuple[int, ...]:
        """Greedy's tokens for these."""
        if not self.greedy:
            return self.tokens[begin:end]
        return tuple(chain(*self.greedy[begin:end]))


@define
class _Row:
    """One excerpt on its way. ``pending``: inputs for the next pass; those after the first
    ``certain`` are a draft."""

    draft: list[int]
    frames: int
    limit: int
    terms: Terms | None = None
    prompt: Sequence[int] = ()
    """What stands before all inputs."""
    language: str = ""
    translate: bool = False
    language_confidence: float = 1.0
    no_speech: float = 0.0
    pending: list[int] = field(factory=list)
    certain: int = 0
    before: int = 0
    """Inputs that counted until now."""
    skip: int = 0
    cursor: int = 0
    """How far into ``draft`` the text has come."""
    tokens: list[int] = field(factory=list)
    logprobs: list[float] = field(factory=list)
    scores: list[NDArray[np.float32]] = field(factory=list)
    done: bool = False
    complete: bool = False
    end: float = 0.0
    """Log probability of the end, where the text is complete."""
    trials: list[Trial] = field(factory=list)
    """The key terms that are still to be tried in the text, the first of them in the next pass."""
    greedy: list[tuple[int, ...]] = field(factory=list)
    shares: list[float] = field(factory=list)
    """How sure each token is as a term's, in logarithms; as ``greedy``, empty where there is none.
    """

    @property
    def most_tokens(self) -> int:
        """That it may put into the decoder."""
        terms = LONGEST if self.terms else 0
        return len(self.prompt) + len(self.draft) + self.limit + terms

    def inputs(self) -> Inputs:
        """For the next pass."""
        asked = self.trials[0].asked if self.trials else ()
        return Inputs(self.pending, self.certain, self.before, asked, len(self.prompt))

    def hypothesis(self) -> Hypothesis:
        return Hypothesis(
            tuple(self.tokens),
            np.array(list(map(max, self.logprobs, self.shares or self.logprobs)), np.float32),
            np.concatenate(self.scores, axis=1),
            self.skip,
            self.no_speech,
            self.language,
            self.language_confidence,
            self.complete,
            tuple(self.greedy),
        )


class Decoding:
    """Greedy decoding through ``passes``; holds nothing between calls."""

    def __init__(self, passes: Passes, vocabulary: Vocabulary, *, cut_loops: bool = True) -> None:
        """``cut_loops=False`` gives plain greedy decoding, loops and all, as references do it."""
        self.passes = passes
        self._vocabulary = vocabulary
        self._cut_loops = cut_loops
        self._full_stop = vocabulary.tokenizer.encode(".")[0]
        self.longest = passes.frames * FRAME
        """Samples that the encoder has positions for."""
        self.most_prompt = passes.room // 2 - 1
        """Tokens of the text before it that count, as in Whisper's own decoding."""

    def __call__(self, requests: Sequence[Request], padding: int = PADDING) -> list[Hypothesis]:
        """One hypothesis a request, in order."""
        rows = [self._row(request) for request in requests]
        excerpts = [self._excerpt(request, padding) for request in requests]
        batch = self.passes.begin(excerpts, max(row.most_tokens for row in rows))
        self._start(rows, requests, batch)
        self._read_prompt(rows, batch)
        active = list(rows)
        while True:
            found = batch.read([row.inputs() for row in active])
            for row, outputs in zip(active, found, strict=True):
                self._advance(row, outputs)
            keep = [number for number, row in enumerate(active) if not row.done]
            if not keep:
                return [row.hypothesis() for row in rows]
            if len(keep) < len(active):
                batch.keep(keep)
                active = [active[number] for number in keep]

    def _row(self, request: Request) -> _Row:
        seconds = len(request.samples) / 16_000
        tokens = self._vocabulary.tokenizer
        prompt = [tokens.previous, *request.prompt[-self.most_prompt :]] if request.prompt else []
        room = self.passes.room - 8 - len(prompt)
        limit = min(int(TOKENS_PER_SECOND * seconds) + SPARE_TOKENS, room)
        frames = min(-(-len(request.samples) // FRAME), self.passes.frames)
        draft = list(request.draft[:limit])
        draft += self._ending(draft[-1]) if draft else []
        return _Row(draft, frames, limit, request.terms, prompt)

    def _excerpt(self, request: Request, padding: int) -> Excerpt:
        padded = -(-(len(request.samples) + padding) // LENGTH_STEP) * LENGTH_STEP
        return Excerpt(request.samples, min(padded, self.longest) // FRAME)

    def _start(self, rows: list[_Row], requests: Sequence[Request], batch: Batch) -> None:
        """Settle the languages and set each row's first inputs."""
        vocabulary = self._vocabulary
        if vocabulary.multilingual and any(request.language is None for request in requests):
            detected = self._detect(requests, batch)
        else:
            detected = []
        for number, (row, request) in enumerate(zip(rows, requests, strict=True)):
            if request.language is not None:
                row.language = request.language
            elif detected:
                row.language, row.language_confidence = detected[number]
            else:
                row.language = "en"
            row.translate = request.translate
            prefix = vocabulary.prefix(row.language, translate=request.translate)
            row.pending = [*prefix, *row.draft[: self.passes.widest - len(prefix)]]
            row.certain = len(prefix)
            row.skip = len(prefix) - 1

    def _read_prompt(self, rows: Sequence[_Row], batch: Batch) -> None:
        """In passes as wide as they may be. A row that has no more reads the first of its own
        tokens, which it reads again."""
        widest = self.passes.widest
        for at in range(0, max(len(row.prompt) for row in rows), widest):
            parts = [row.prompt[at : at + widest] or row.pending[:1] for row in rows]
            befores = [min(at, len(row.prompt)) for row in rows]
            batch.read(
                [
                    Inputs(part, len(part), before)
                    for part, before in zip(parts, befores, strict=True)
                ]
            )

    def _detect(self, requests: Sequence[Request], batch: Batch) -> list[tuple[str, float]]:
        """The likeliest language of each row and its share among those that may be."""
        names = self._vocabulary.languages
        odds = torch.tensor([_odds(request, names) for request in requests])
        shares = (batch.languages() + odds.log()).softmax(-1).tolist()
        return [
            _choice(names, row, each.settled) for row, each in zip(shares, requests, strict=True)
        ]

    def _advance(self, row: _Row, outputs: Outputs) -> None:
        """Take what a pass gave for the row, as far as its inputs hold."""
        scores = outputs.scores[:, :, : row.frames]
        if row.trials:
            self._finish_trial(row, outputs, scores)
            return
        if not row.before:
            row.no_speech = outputs.no_speech
        used = self._accept_draft(row, outputs, scores)
        row.scores.append(scores[:, :used])
        row.before += used
        if row.complete and row.terms is not None:
            trials = row.terms.trials(row.tokens, [*row.logprobs, row.end], row.language)
            room = self.passes.room - len(row.prompt) - row.skip
            row.trials = [each for each in trials if each.longest <= room]
            self._prepare_trial(row)

    def _accept_draft(self, row: _Row, outputs: Outputs, scores: NDArray[np.float32]) -> int:
        """Accept the draft as far as greedy agrees, set what comes next; the inputs that count.
        Loops are looked for after each token, or a draft would hide where they begin."""
        end = self._vocabulary.tokenizer.end
        draft = row.pending[row.certain :]
        for accepted, (token, logprob) in enumerate(outputs.choices):
            used = row.certain + accepted
            if token == end:
                row.done = row.complete = True
                row.end = logprob
                return used
            row.tokens.append(token)
            row.logprobs.append(logprob)
            stop = self._must_stop(row, cut_loops=self._cut_loops)
            if stop or (self._cut_loops and self._looping(row, scores[:, :used])):
                row.done = True
                return used
            if accepted >= len(draft) or draft[accepted] != token:
                row.pending = [token, *self._proposal(row, token, accepted)][: self.passes.widest]
                row.certain = 1
                return used
        raise AssertionError("there is a choice after the last token of the draft")

    def _prepare_trial(self, row: _Row) -> None:
        """The next pass is for the next term, after what stands before its place."""
        row.done = not row.trials
        if row.trials:
            trial = row.trials[0] = row.trials[0].followed_by(row.tokens)
            prefix = self._vocabulary.prefix(row.language, translate=row.translate)
            before = row.tokens[trial.begin - 1] if trial.begin else prefix[-1]
            row.pending, row.certain = [before, *trial.asked[:-1]], 1
            row.before = row.skip + trial.begin

    def _finish_trial(self, row: _Row, outputs: Outputs, scores: NDArray[np.float32]) -> None:
        """Write the term that was tried, if it is worth it."""
        trial, *others = row.trials
        worth = gain(trial, outputs.asked, [*row.logprobs, row.end]) + trial.cost
        row.trials = others
        if worth >= 0:
            self._write_term(row, trial, outputs, scores, worth)
            row.trials = [each for each in others if each.end <= trial.begin]
        self._prepare_trial(row)

    @staticmethod
    def _write_term(
        row: _Row, trial: Trial, outputs: Outputs, scores: NDArray[np.float32], worth: float
    ) -> None:
        """Put the term into the text, with where it was said and how sure it is: ``worth`` is by
        how much its text is likelier now."""
        place, count = slice(trial.begin, trial.end), len(trial.tokens)
        share = -math.log1p(math.exp(-worth))
        row.greedy = row.greedy or [(token,) for token in row.tokens]
        row.greedy[place] = [tuple(chain(*row.greedy[place])), *[()] * (count - 1)]
        row.tokens[place] = trial.tokens
        row.shares = row.shares or list(row.logprobs)
        row.shares[place] = [share] * count
        row.logprobs[place] = outputs.asked[:count]
        said = np.concatenate(row.scores, axis=1)
        first, last = row.skip + trial.begin, row.skip + trial.end
        row.scores = [said[:, :first], scores[:, : count + 1], said[:, last + 1 :]]

    def _proposal(self, row: _Row, token: int, accepted: int) -> list[int]:
        """What may follow ``token``, which stands where the draft did not hold any more.

        The old hypothesis goes on after the same token, if it has it close by; else perhaps one
        token was replaced by one, unless that was tried in vain just now: then perhaps it was put
        before the one that it seemed to replace. Where the old one has nothing more, or nothing
        that is likely, a full stop, which is how most texts end."""
        row.cursor += accepted
        begin = max(0, row.cursor - (not accepted))
        near = row.draft[begin : row.cursor + LOOK_AHEAD]
        if token in near:
            row.cursor = begin + near.index(token) + 1
        elif accepted or len(row.tokens) == 1:
            row.cursor += 1
        else:
            return self._ending(token)
        return row.draft[row.cursor : row.cursor + RETRY] or self._ending(token)

    def _ending(self, last: int) -> list[int]:
        """What comes after it is then seen in the same pass: of 4.13 passes a decode 0.19 fewer
        (tiny.en, read speech), for a token more in most of the others."""
        return [] if last == self._full_stop else [self._full_stop]

    def _looping(self, row: _Row, newest: NDArray[np.float32]) -> bool:
        """Whether the text has gone back to audio that it has covered: its last three tokens stand
        further up already, and attend to the same place. The repetition is taken back."""
        tokens = row.tokens
        last = tokens[-3:]
        earlier = [at for at in range(len(tokens) - 5) if tokens[at : at + 3] == last]
        if not earlier:
            return False
        attention = attention_map(np.concatenate([*row.scores, newest], axis=1))[row.skip :]
        peaks = attention.argmax(axis=1)
        first, second = earlier[-1], len(tokens) - 3
        if np.median(peaks[second : second + 3]) > np.median(peaks[first : first + 3]) + REWIND:
            return False
        while (
            first
            and second > earlier[-1] + 3
            and self._alike(tokens[first - 1], tokens[second - 1])
        ):
            first, second = first - 1, second - 1
        # The unit of a loop may be shorter than what was compared.
        for unit in range(1, second // 2 + 1):
            while tokens[second - unit : second] == tokens[second - 2 * unit : second - unit]:
                second -= unit
        del tokens[second:], row.logprobs[second:]
        return True

    def _alike(self, one: int, other: int) -> bool:
        """The same word, however it is cased."""
        decode = self._vocabulary.tokenizer.decode
        return one == other or decode([one]).casefold() == decode([other]).casefold()

    @staticmethod
    def _must_stop(row: _Row, *, cut_loops: bool) -> bool:
        if len(row.tokens) >= row.limit:
            return True
        copies = repeated_tail(row.tokens) if cut_loops else 0
        if copies:
            del row.tokens[-copies:], row.logprobs[-copies:]
        return bool(copies)


def _odds(request: Request, languages: Sequence[str]) -> list[float]:
    """Of each language, before any audio."""
    return [
        (FAMILIAR if name == request.language_before else 1.0)
        if not request.among or name in request.among
        else 0.0
        for name in languages
    ]


def _choice(
    languages: Sequence[str], shares: Sequence[float], settled: str | None
) -> tuple[str, float]:
    """The language to decode in, and its share."""
    share, best = max(zip(shares, languages, strict=True))
    if settled is None or share >= SURE_LANGUAGE:
        return best, share
    return settled, shares[languages.index(settled)]


def repeated_tail(tokens: Sequence[int]) -> int:
    """How many tokens at the end are needless copies of what stands before them: 0 unless the last
    tokens are one sequence four times over (three times, if it is longer than four tokens), which
    people do not say and a decoder that has lost the audio does."""
    for length in range(1, len(tokens) // 3 + 1):
        times = 3 if length > 4 else 6 if length == 1 else 4
        if len(tokens) < length * times:
            continue
        unit = tokens[-length:]
        if all(tokens[-length * (copy + 1) : -length * copy] == unit for copy in range(1, times)):
            return length * (times - 1)
    return 0
