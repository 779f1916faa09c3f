"""Where a model runs."""

import pytest
import torch

from ssasr.engine.devices import choose_device, choose_dtype
from ssasr.errors import StartRefused


def test_a_device_that_is_not_there_is_refused():
    with pytest.raises(StartRefused, match="no device cuda:99"):
        choose_device("cuda:99")
    with pytest.raises(StartRefused, match="unknown device"):
        choose_device("abacus")


def test_a_cpu_computes_in_float32():
    device = choose_device("cpu")
    assert device == torch.device("cpu")
    assert choose_dtype(device) == torch.float32
