"""An engine that is a pure function of a script, and a session that feeds a turn policy from it.

The script is what is said, by position. The engine keeps the contract of ``protocol.recognition``:
steps on a grid from the start of the segment, final words that stay, words of the segment only. The
session decides nothing; it delivers answers early or late, and loses the engine, as it is asked to.
"""

import zlib
from collections import deque

from attrs import define, field, frozen

from ssasr.protocol.recognition import VAD_FRAME, Final, Update, Word
from ssasr.session.turns import Finalize, Send, TurnPolicy


@frozen
class Script:
    """``words`` in order of position; ``noise``: stretches of voice without words; ``length`` in
    samples. ``lag``: samples after its end before a word is final, or None: at the end only.
    ``eager``: False decodes only in silence, as an engine that decodes at pauses does."""

    words: tuple[Word, ...]
    length: int
    noise: tuple[tuple[int, int], ...] = ()
    lag: int | None = 4_000
    eager: bool = True
    confidence: float | None = None
    language: str = "en"

    def probability(self, begin: int, end: int) -> float:
        stretches = [(word.start, word.end) for word in self.words] + list(self.noise)
        return 0.9 if any(a < end and begin < b for a, b in stretches) else 0.05


@define
class SimulatedEngine:
    script: Script
    chunk: int
    segment: int
    start: int
    frames: int = 0
    decoded: int = 0

    def _words(self, until: int, *, final: bool) -> tuple[Word, ...]:
        """Each word belongs to the segment that holds its middle."""
        words = []
        for word in self.script.words:
            middle = (word.start + word.end) // 2
            if not self.start <= middle < until:
                continue
            lag = self.script.lag
            settled = lag is not None and word.end + lag <= until
            end = word.end if final or settled else min(word.end, until)
            words.append(Word(word.text, word.start, end, word.confidence, final or settled))
        return tuple(words)

    def _confidence(self, position: int) -> float:
        if self.script.confidence is not None:
            return self.script.confidence
        return zlib.crc32(f"{self.start} {position}".encode()) % 101 / 100

    def step(self, position: int) -> Update:
        count = (position - self.start) // VAD_FRAME
        speech = tuple(
            self.script.probability(self.start + i * VAD_FRAME, self.start + (i + 1) * VAD_FRAME)
            for i in range(self.frames, count)
        )
        self.frames = count
        silent = not speech or speech[-1] < 0.5
        if self.script.eager or silent:
            self.decoded = position
        decoded = max(self.decoded, self.start)
        return Update(
            self.segment,
            position,
            speech,
            self._words(decoded, final=False),
            decoded,
            self._confidence(decoded),
            self.script.language,
            0.9,
        )

    def finish(self, at: int) -> Final:
        words = self._words(at, final=True)
        return Final(self.segment, at, words, self._confidence(at), self.script.language, 0.9)


@define
class SimulatedSession:
    """``late``: called before each delivery; True keeps the answer for later. ``crash``: likewise;
    True loses the engine, and everything it has not delivered. ``ahead``: called before a final is
    delivered; True has the engine say another step of the segment first."""

    policy: TurnPolicy
    script: Script
    chunk: int
    late: object = None
    crash: object = None
    ahead: object = None
    sent: int = 0
    decisions: list = field(factory=list)
    said: list = field(factory=list)
    _engine: SimulatedEngine = None
    _position: int = 0
    _pending: Finalize | None = None
    _news: deque = field(factory=deque)

    def __attrs_post_init__(self):
        self._engine = SimulatedEngine(self.script, self.chunk, 0, 0)

    def _take(self, decisions):
        for decision in decisions:
            self.decisions.append(decision)
            if isinstance(decision, Send):
                self.said.append(decision.message)
            else:
                assert decision.at <= self.sent, "finalize beyond the audio sent"
                assert decision.at >= self._engine.start
                self._pending = decision
                self._news.append(decision)

    def _lose_engine(self):
        """A new engine is given the segment's audio again, and the finalize if one is open."""
        self._engine = SimulatedEngine(
            self.script, self.chunk, self._engine.segment, self._engine.start
        )
        self._position = self._engine.start
        self._news.clear()
        if self._pending is not None:
            self._news.append(self._pending)

    def _deliver(self):
        """One answer; False when there is none."""
        stepped = self._position + self.chunk <= self.sent
        if stepped and (not self._news or (self.ahead and self.ahead())):
            self._position += self.chunk
            self._take(self.policy.update(self._engine.step(self._position)))
        elif self._news:
            finalize = self._news.popleft()
            final = self._engine.finish(finalize.at)
            self._engine = SimulatedEngine(
                self.script, self.chunk, finalize.segment + 1, finalize.at
            )
            self._position, self._pending = finalize.at, None
            self._take(self.policy.final(final))
        else:
            return False
        return True

    def listen(self):
        """Deliver what there is, unless it is to be late."""
        while not (self.late and self.late()):
            if self.crash and self.crash():
                self._lose_engine()
            if not self._deliver():
                return

    def run(self, actions=(), *, message=1_600):
        """Send all the audio, with ``actions`` ((position, callable of policy and position)) where
        they belong, then end as Terminate does."""
        actions = sorted(actions, key=lambda action: action[0])
        while self.sent < self.script.length:
            until = min(self.sent + message, self.script.length)
            if actions and actions[0][0] <= until:
                at, action = actions.pop(0)
                self.sent = max(self.sent, min(at, self.script.length))
                self._take(action(self.policy, self.sent) or [])
            else:
                self.sent = until
            self.listen()
        self._take(self.policy.force(self.sent))
        self.late = None
        self.listen()
        assert self.policy.settled(self.sent), "a forced end was never reached"
        return self.said
