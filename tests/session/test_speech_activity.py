"""Hysteresis over speech probabilities: several frames at once are what they are one by one."""

from hypothesis import given, settings
from hypothesis import strategies as st

from ssasr.protocol.recognition import VAD_FRAME
from ssasr.session.speech_activity import SpeechActivity

runs = st.tuples(st.sampled_from([0.0, 0.02, 0.3, 0.36, 0.5, 0.51, 0.97]), st.integers(1, 6))
probabilities = st.lists(runs, max_size=12).map(
    lambda drawn: [level for level, count in drawn for _ in range(count)]
)


class FrameByFrame(SpeechActivity):
    def _update_unchanged(self, frames, threshold):
        return False


def view(activity):
    names = ("speaking", "speech", "speech_end", "onset", "onset_confirmed", "loudest")
    return [getattr(activity, name) for name in names]


@settings(deadline=None)
@given(probabilities, st.data(), st.sampled_from([0.0, 0.1, 0.5, 1.0]), st.integers(0, 5_000))
def test_unchanged_speech_is_counted_at_once_as_frame_by_frame(levels, data, threshold, start):
    quick, plain = SpeechActivity(start), FrameByFrame(start)
    at = 0
    while at < len(levels):
        count = data.draw(st.integers(1, 4))
        part = tuple(levels[at : at + count])
        at += len(part)
        position = start + at * VAD_FRAME + data.draw(st.integers(0, VAD_FRAME - 1))
        for activity in (quick, plain):
            activity.update(position, part, threshold)
            activity.update(position, part, threshold)  # repeated frames
        assert view(quick) == view(plain)
