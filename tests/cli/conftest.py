import pytest
import structlog


@pytest.fixture(autouse=True)
def logging_as_before():
    """A command that runs in this process sets logging up for the standard error of its test, which
    is closed when the next one begins."""
    yield
    structlog.reset_defaults()
