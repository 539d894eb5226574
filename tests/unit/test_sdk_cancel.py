"""A cancel reaches the call it is for, and a cancelled call never passes for a finished one."""

import pytest

from toft_sdk import CancelledError, InputError, Plugin, context
from toft_sdk.surroundings import CancellingCall


class Process:
    def __init__(self) -> None:
        self.ended = 0

    def terminate(self) -> None:
        self.ended += 1


class Work(Plugin):
    def execute(self) -> None:
        """Do nothing."""


@pytest.fixture
def call() -> CancellingCall:
    return CancellingCall()


def test_progress_and_checks_raise_once_cancelled(call: CancellingCall) -> None:
    with context.enter(call):
        Work().check_cancel()
        call.cancel()
        with pytest.raises(CancelledError):
            Work().check_cancel()
        with pytest.raises(CancelledError):
            Work().report_progress(0.5)
    Work().check_cancel()


def test_a_process_is_ended_once_and_the_block_says_cancelled(call: CancellingCall) -> None:
    process = Process()

    def wait_for(call: CancellingCall) -> None:
        with Work().cancel_signal_to(process):
            call.cancel()
            raise OSError("the process went away")

    with context.enter(call), pytest.raises(CancelledError) as caught:
        wait_for(call)
    assert process.ended == 1
    assert isinstance(caught.value.__cause__, OSError)


def test_a_block_that_ends_well_after_a_cancel_is_still_cancelled(call: CancellingCall) -> None:
    with context.enter(call), pytest.raises(CancelledError), Work().cancel_signal_to(Process()):
        call.cancel()


def test_a_process_of_a_cancelled_call_is_ended_at_once(call: CancellingCall) -> None:
    call.cancel()
    process = Process()
    with context.enter(call), pytest.raises(CancelledError), Work().cancel_signal_to(process):
        assert process.ended == 1


def test_without_a_cancel_nothing_happens_and_errors_pass(call: CancellingCall) -> None:
    process, done = Process(), []
    with context.enter(call):
        with Work().cancel_signal_to(process):
            pass
        with pytest.raises(InputError), Work().cancel_signal_to(lambda: done.append(1)):
            raise InputError("no")
        call.cancel()
    assert (process.ended, done) == (0, [])


def test_a_callback_that_was_taken_back_is_not_called(call: CancellingCall) -> None:
    called: list[int] = []
    with context.enter(call):
        forget = Work().register_cancel_callback(lambda: called.append(1))
        Work().register_cancel_callback(lambda: called.append(2))
        forget()
        call.cancel()
    assert called == [2]


def test_what_cannot_be_ended_is_refused_at_once() -> None:
    with pytest.raises(TypeError, match="terminate"):
        Work().cancel_signal_to(3)  # type: ignore[arg-type]


def test_progress_is_kept_between_0_and_1_or_unknown() -> None:
    class Seen(context.Call):
        def __init__(self) -> None:
            self.fractions: list[float] = []

        def progress(self, fraction: float, message: str) -> None:
            self.fractions.append(fraction)

    seen = Seen()
    with context.enter(seen):
        for fraction in (0, 0.5, 1.5, -1):
            Work().report_progress(fraction)
    assert seen.fractions == [0, 0.5, 1.0, -1]
