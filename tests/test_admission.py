"""Admission: how many calls run, wait and are refused, and how many bytes they hold."""

from __future__ import annotations

import contextlib
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from fcnseg.saved_model.session import StatusError
from serving.admission import Admission, Call


def admission(running=1, waiting=1, held=100):
    return Admission(max_running=running, max_waiting=waiting, max_held_bytes=held)


def wait_for(condition):
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_call_beyond_those_that_run_and_wait_is_refused():
    calls = admission()
    message = "RESOURCE_EXHAUSTED: 1 calls run and 1 wait"
    with calls.enter(Call()), calls.enter(Call()), pytest.raises(StatusError, match=message):
        run(calls, Call(), pytest.fail)
    assert calls.counts == (0, 0, 0)


def test_bytes_beyond_the_limit_are_refused_unless_they_are_alone():
    calls = admission(waiting=2)
    with calls.enter(Call()) as first, calls.enter(Call()) as second:
        first.hold(150)
        with pytest.raises(StatusError, match="RESOURCE_EXHAUSTED: messages of 150 bytes wait"):
            second.hold(1)
    with calls.enter(Call()) as first, calls.enter(Call()) as second:
        first.hold(60)
        second.hold(40)
        with pytest.raises(StatusError, match="with 1 more they would exceed 100"):
            second.hold(1)
    assert calls.counts == (0, 0, 0)


@pytest.mark.parametrize(
    ("timeout_s", "action", "code"),
    [
        (0.05, lambda calls, call: None, "DEADLINE_EXCEEDED"),
        (None, lambda calls, call: calls.give_up(call), "CANCELLED"),
        (None, lambda calls, call: calls.close(), "UNAVAILABLE"),
    ],
    ids=["deadline", "given up", "closed"],
)
def test_call_that_waits_ends_and_never_runs(timeout_s, action, code):
    calls, call = admission(), Call(timeout_s)
    with calls.enter(Call()) as first, first.running(), ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(run, calls, call)
        wait_for(lambda: calls._running.waiting or waiting.done())
        action(calls, call)
        with pytest.raises(StatusError) as caught:
            waiting.result(timeout=10)
    assert caught.value.code == code
    assert calls.counts == (0, 0, 0)


def run(calls, call, work=lambda: None):
    with calls.enter(call) as place, place.running():
        return work()


def test_so_many_messages_are_read_at_once_and_never_more_than_memory_has_room_for():
    calls = admission(waiting=5)  # of 100 bytes, an eighth for a message
    with contextlib.ExitStack() as stack, ThreadPoolExecutor(1) as pool:
        places = [stack.enter_context(calls.enter(Call())) for _ in range(3)]
        places[0].hold(80)
        with places[1].reading():
            assert not calls.has_unread
            waiting = pool.submit(read, places[2])
            wait_for(lambda: calls.has_unread)
            assert not waiting.done()
        assert waiting.result(timeout=10) == "read"
        places[1].hold(20)
        assert read(places[2]) == "read"  # one at a time whatever is held
    with contextlib.ExitStack() as stack, ThreadPoolExecutor(1) as pool:
        calls = admission(waiting=20)
        for _ in range(8):
            stack.enter_context(stack.enter_context(calls.enter(Call())).reading())
        call = Call()
        waiting = pool.submit(read, stack.enter_context(calls.enter(call)))
        wait_for(lambda: calls.has_unread)
        calls.give_up(call)
        with pytest.raises(StatusError, match="CANCELLED"):
            waiting.result(timeout=10)


def test_replies_count_until_they_are_sent_and_no_run_begins_while_they_are_too_many():
    calls = admission(running=2)
    with calls.enter(Call()) as first, calls.enter(Call()) as second, ThreadPoolExecutor(1) as pool:
        first.hold(60)
        with calls.replying(70):  # is never refused: the work is done
            with pytest.raises(StatusError, match="RESOURCE_EXHAUSTED: messages of 130 bytes wait"):
                second.hold(1)
            waiting = pool.submit(begin, second)
            wait_for(lambda: calls._running.waiting)
            assert calls.is_full
            assert not waiting.done()
        assert waiting.result(timeout=10) == "begun"
    with calls.replying(5):
        assert not calls.wait_until_idle(0.01)
    assert calls.wait_until_idle(0)


def begin(place):
    with place.running():
        return "begun"


def read(place):
    with place.reading():
        return "read"


def test_turns_are_taken_in_order_of_arrival():
    calls, order = admission(waiting=5), []
    with ThreadPoolExecutor(5) as pool, calls.enter(Call()) as first, first.running():
        for number in range(5):
            pool.submit(run, calls, Call(), lambda number=number: order.append(number))
            wait_for(lambda number=number: len(calls._running.waiting) == number + 1)
    assert order == list(range(5))


def test_never_more_run_than_may():
    calls, running, most = admission(running=2, waiting=20), [], []
    lock = threading.Lock()

    def work():
        with lock:
            running.append(1)
            most.append(len(running))
        time.sleep(0.002)
        with lock:
            running.pop()

    with ThreadPoolExecutor(20) as pool:
        for done in [pool.submit(run, calls, Call(), work) for _ in range(20)]:
            done.result()
    assert max(most) == 2
    assert calls.wait_until_idle(0)


def test_closed_server_admits_no_call():
    calls = admission()
    calls.close()
    with pytest.raises(StatusError, match="UNAVAILABLE: the server is stopping"):
        run(calls, Call())
