"""What of a group of errors escapes."""

import pytest
import trio

from ssasr.errors import EngineLost
from ssasr.runtime.process import plain_nursery


async def fail(error):
    """Raises, even where it is cancelled first."""
    raise error


@pytest.mark.parametrize("turned", [False, True])
async def test_of_several_errors_the_bug_escapes_and_names_the_others(turned):
    errors = [EngineLost("gone"), KeyError("bug")]
    with pytest.raises(KeyError) as caught:
        async with plain_nursery() as nursery:
            for error in reversed(errors) if turned else errors:
                nursery.start_soon(fail, error)
    assert "EngineLost('gone')" in "".join(caught.value.__notes__)


async def test_a_cancellation_is_no_error():
    with pytest.raises(EngineLost) as caught:
        async with plain_nursery() as nursery:
            nursery.start_soon(fail, EngineLost("gone"))
            nursery.start_soon(trio.sleep_forever)
    assert not hasattr(caught.value, "__notes__")
