"""A server with the scripted engines for the tests of a module."""

import pytest

from tests.harness.demo_page import SCRIPTED
from tests.harness.processes import server


@pytest.fixture(scope="module")
def port():
    with server(*SCRIPTED) as (_, port):
        yield port
