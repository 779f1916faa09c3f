"""How a benchmark drives a recogniser without an engine around it."""

from ssasr.engine.recognizer import Recognizer, StepResult, Work


def step_until_done(recognizer: Recognizer, work: Work) -> list[StepResult]:
    """All that a stream's step says: it is stepped again until nothing is put off any more."""
    outcome = recognizer.step([work])[0]
    heard = list(outcome.results)
    while outcome.unfinished:
        outcome = recognizer.step([Work(work.state, work.audio[:0], work.final_at)])[0]
        heard += outcome.results
    return heard
