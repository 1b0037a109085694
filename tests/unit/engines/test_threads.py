"""A model computes with as many threads as make it faster, unless somebody said how many."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

from pgenrm_agent.engines import Prompt, SamplingParams
from pgenrm_agent.engines.threads import LARGE, _measured, choose_threads, computing_with
from pgenrm_agent.engines.transformers import TransformersEngine
from pgenrm_agent.errors import ConfigurationError
from pgenrm_agent.schema import Message

STEP_S = 0.02


def never() -> None:
    pytest.fail("nothing is to be measured")


@pytest.fixture
def set_by_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("slowdown", "count"),
    [
        ({1: 1, 2: 0.5, 4: 0.25, 8: 0.125}, 8),
        ({1: 1, 2: 0.55, 4: 0.3, 8: 0.29}, 4),
        ({1: 1, 2: 0.9}, 1),
        ({1: 1, 2: 10}, 1),
    ],
)
def test_threads_are_added_while_they_pay(slowdown: dict[int, float], count: int) -> None:
    tried: list[int] = []

    def step() -> None:
        tried.append(torch.get_num_threads())
        time.sleep(STEP_S * slowdown[tried[-1]])

    before = torch.get_num_threads()
    threads = _measured(8, step)
    assert threads.number == count
    assert "of 8, measured at loading: " in threads.why
    assert "ms on 1, " in threads.why
    assert torch.get_num_threads() == before
    # A number that is far too slow is not tried again, which is what a busy machine makes of two.
    assert tried.count(2) == (1 if slowdown[2] > 3 else 5)


def test_a_number_that_is_no_power_of_two_is_reached() -> None:
    assert _measured(6, lambda: time.sleep(STEP_S / torch.get_num_threads())).number == 6


@pytest.mark.usefixtures("set_by_nobody")
def test_what_somebody_asked_for_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose_threads(3, 0, never) == (3, "threads=3 was passed")
    monkeypatch.setenv("MKL_NUM_THREADS", "1")
    count, why = choose_threads(None, 0, never)
    assert (count, why) == (torch.get_num_threads(), "MKL_NUM_THREADS is 1")
    with pytest.raises(ConfigurationError, match="threads is 0"):
        choose_threads(0, 0, never)


@pytest.mark.usefixtures("set_by_nobody")
@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="this system tells no cores")
def test_what_torch_was_told_before_is_kept() -> None:
    unusual = len(os.sched_getaffinity(0)) + 3
    with computing_with(torch.get_num_threads()):
        pass
    before = torch.get_num_threads()
    torch.set_num_threads(unusual)
    try:
        assert choose_threads(None, 0, never) == (
            unusual,
            f"torch.set_num_threads({unusual}) was called",
        )
    finally:
        torch.set_num_threads(before)


def test_each_caller_gets_its_number_and_all_of_them_leave_what_was() -> None:
    before = torch.get_num_threads()
    inside, leave = threading.Event(), threading.Event()
    seen: list[int] = []

    def compute() -> None:
        with computing_with(3):
            seen.append(torch.get_num_threads())
            inside.set()
            leave.wait(30)
            seen.append(torch.get_num_threads())
        seen.append(torch.get_num_threads())

    worker = threading.Thread(target=compute)
    worker.start()
    assert inside.wait(30)
    assert torch.get_num_threads() == before
    with computing_with(5):
        assert torch.get_num_threads() == 5
    assert torch.get_num_threads() == before
    leave.set()
    worker.join()
    assert seen == [3, 3, before]
    fresh: list[int] = []
    newcomer = threading.Thread(target=lambda: fresh.append(torch.get_num_threads()))
    newcomer.start()
    newcomer.join()
    assert fresh == [before]


class Watched(TransformersEngine):
    """Notes with how many threads it writes."""

    seen: int | None = None

    def _decode(self, *arguments: object) -> None:
        self.seen = torch.get_num_threads()
        super()._decode(*arguments)  # type: ignore[arg-type]


async def test_samples_are_the_same_with_any_number_of_threads(tiny_llama: Path) -> None:
    before = torch.get_num_threads()
    prompt = Prompt(messages=(Message(role="user", content="how and why " * 20),), n=6, seed=4)
    texts = []
    for count in (1, 2):
        engine = Watched(tiny_llama, threads=count)
        texts.append(await engine.sample([prompt], SamplingParams(max_tokens=40)))
        assert engine.threads == (count, f"threads={count} was passed")
        assert engine.seen == count
        await engine.aclose()
    assert texts[0] == texts[1]
    assert torch.get_num_threads() == before


def test_the_bundled_model_is_measured_in_a_fresh_process() -> None:
    code = (
        "from pgenrm_agent.engines.transformers import TransformersEngine as Engine\n"
        "from pgenrm_agent.model_files import bundled_model\n"
        "print(Engine(bundled_model(), device='cpu').threads.why)"
    )
    environment = {name: value for name, value in os.environ.items() if "NUM_THREADS" not in name}
    said = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert "measured at loading" in said.stdout or "there is one core" in said.stdout


@pytest.mark.usefixtures("set_by_nobody")
def test_a_large_model_gets_all_threads_unmeasured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pgenrm_agent.engines.threads._was_set", lambda count: False)
    most = torch.get_num_threads()
    if most == 1:
        assert choose_threads(None, LARGE + 1, never).number == 1
    else:
        assert choose_threads(None, LARGE + 1, never) == (
            most,
            "all, as the model has 0.3 billion parameters",
        )
