"""The errors that cross module boundaries, and who is at fault in each."""


class SsasrError(Exception):
    """Base of every error that a user or operator may be shown."""


class StartRefused(SsasrError):
    """The process cannot start as asked; the command prints the one line and exits with 1."""


class WeightsError(StartRefused):
    """Weights are missing, incomplete, of the wrong digest or of the wrong shape."""


class EngineError(SsasrError):
    """Something between a session and its engine; the routing layer decides what follows."""


class EngineBusy(EngineError):
    """Every engine of the model is up and has no free slot."""


class EngineUnavailable(EngineError):
    """No engine of the model can be reached, or none is ready yet."""


class EngineLost(EngineError):
    """An open stream broke: the engine died, stopped answering or drains."""


class UsageError(SsasrError):
    """The command line or the environment cannot be used; exit status 2."""
