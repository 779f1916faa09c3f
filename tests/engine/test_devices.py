"""Where a model runs."""

import pytest
import torch

from ssasr.engine.devices import choose_device, choose_dtype, choose_int8
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


def test_what_cannot_be_had_in_8_bits_is_refused(monkeypatch):
    cpu = choose_device("cpu")
    assert not choose_int8(cpu, "float32")
    monkeypatch.setattr("ssasr.engine.devices.int8_limit", lambda: 0)
    assert not choose_int8(cpu, "auto")
    for device in (cpu, torch.device("cuda:0")):
        with pytest.raises(StartRefused, match="8-bit"):
            choose_int8(device, "int8")
    monkeypatch.setattr("ssasr.engine.devices.int8_limit", lambda: 63)
    assert choose_int8(cpu, "auto")
    assert not choose_int8(torch.device("cuda:0"), "auto")
