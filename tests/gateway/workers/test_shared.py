"""Places and tokens of several workers, when one of them holds the others up."""

import sqlite3
from time import monotonic

import pytest

from ssasr.gateway.auth.access import QuotaBusy
from ssasr.gateway.workers.shared import PATIENCE_SECONDS, SharedQuota, prepare

KEY = b"key"


@pytest.fixture
def quota(tmp_path):
    prepare(tmp_path)
    return SharedQuota(tmp_path, 0)


@pytest.fixture
def stuck(tmp_path, quota):
    """Another worker, stopped in the middle of its transaction."""
    other = sqlite3.connect(tmp_path / "shared.db", isolation_level=None)
    other.execute("begin immediate")
    yield other
    other.close()


def test_a_worker_that_is_stuck_does_not_stop_this_one(quota, stuck):
    """What waits here, waits with every session of the process."""
    began = monotonic()
    with pytest.raises(QuotaBusy):
        quota.take(KEY, 1)
    assert monotonic() - began < PATIENCE_SECONDS / 2
    stuck.execute("rollback")
    assert quota.take(KEY, 1)


def test_a_place_is_given_back_later_if_not_now(quota, tmp_path):
    assert quota.take(KEY, 1)
    other = sqlite3.connect(tmp_path / "shared.db", isolation_level=None)
    other.execute("begin immediate")
    quota.release_place(KEY)
    assert quota.count(KEY) == 1
    other.execute("rollback")
    assert quota.take(KEY, 1), "the place that was owed is free again"
    other.close()
