"""The Context: values that are derived and never changed, and where the ambient one is right."""

from __future__ import annotations

import contextvars

import msgspec
import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock as VirtualReactor

from ropewalk.context import NOWHERE, Context, Trace, bound, current_context, enter_context, leave_context
from ropewalk.driver import Driver
from ropewalk.runtime.clock import Clock

ONE, TWO = Context(request_id="one"), Context(request_id="two")
plain: contextvars.ContextVar[str] = contextvars.ContextVar("plain", default="-")


def within(context, function):
    """Call `function` as code in an operation under `context`; the Deferred of the run."""

    async def operation():
        enter_context(context)
        return function()

    return Driver.of(VirtualReactor()).run(operation())


# -- the value


def test_a_context_begins_with_nothing():
    assert NOWHERE == Context()
    assert (NOWHERE.deadline, NOWHERE.trace, NOWHERE.key, NOWHERE.attempt) == (None, None, None, 1)


def test_a_context_is_derived_and_never_changed():
    with pytest.raises(AttributeError):
        ONE.request_id = "other"  # type: ignore[misc]

    assert msgspec.structs.replace(ONE, tenant="acme") == Context(request_id="one", tenant="acme")


@pytest.mark.parametrize(("flags", "shown"), [(0, "00"), (1, "01"), (255, "ff")])
def test_a_trace_is_the_header_of_the_standard(flags, shown):
    assert Trace("a1" * 16, "b2" * 8, flags).traceparent == f"00-{'a1' * 16}-{'b2' * 8}-{shown}"


# -- the ambient one


def test_outside_of_any_operation_it_is_empty():
    assert current_context() is NOWHERE


def test_it_is_what_was_entered_until_it_is_left():
    seen = []

    async def operation():
        token = enter_context(ONE)
        seen.append(current_context())
        leave_context(token)
        seen.append(current_context())

    Driver.of(VirtualReactor()).run(operation())

    assert seen == [ONE, NOWHERE]


def test_what_an_operation_enters_does_not_leak_to_who_started_it():
    within(ONE, current_context)

    assert current_context() is NOWHERE


# -- bound


def test_a_bound_callback_runs_in_the_context_it_was_made_in():
    callback = within(ONE, lambda: bound(current_context)).result

    assert within(TWO, callback).result == ONE
    assert callback() == ONE


def test_a_bound_callback_carries_plain_contextvars_too():
    def make():
        plain.set("mine")
        return bound(plain.get)

    assert within(ONE, make).result() == "mine"
    assert plain.get() == "-"


def test_a_bound_callback_gives_what_it_is_given_and_answers_what_it_answers():
    assert bound(lambda *args, **kwargs: (args, kwargs))(1, two=2) == ((1,), {"two": 2})


def test_a_bound_callback_raises_what_it_raises():
    with pytest.raises(KeyError, match="room"):
        bound({}.__getitem__)("room")


def test_a_bound_callback_may_be_called_again_and_within_itself():
    def make():
        return bound(lambda depth: [current_context()] + (callback(depth - 1) if depth else []))

    callback = within(ONE, make).result

    assert callback(2) == [ONE, ONE, ONE]
    assert callback(0) == [ONE]


def test_what_a_bound_callback_enters_does_not_leak_to_its_next_call():
    def make():
        return bound(lambda: (current_context(), enter_context(TWO))[0])

    callback = within(ONE, make).result

    assert [callback(), callback()] == [ONE, ONE]
    assert current_context() is NOWHERE


def test_a_bound_callback_of_a_deferred_does_not_see_who_fires_it():
    fired: Deferred[None] = Deferred()
    seen = []

    within(ONE, lambda: fired.addCallback(bound(lambda _: seen.append(current_context()))))
    within(TWO, lambda: fired.callback(None))

    assert seen == [ONE]


# -- the clock the runtime hands out


def test_the_runtimes_clock_calls_each_in_the_context_of_who_asked():
    reactor = VirtualReactor()
    clock, seen = Clock(reactor, reactor.seconds), []

    for seconds, context in ((2, ONE), (1, TWO)):
        within(context, lambda seconds=seconds: clock.callLater(seconds, lambda: seen.append(current_context())))
    clock.callLater(3, lambda: seen.append(current_context()))
    reactor.pump([1, 1, 1])

    assert seen == [TWO, ONE, NOWHERE]


def test_the_runtimes_clock_gives_arguments_on_and_can_take_a_call_back():
    reactor = VirtualReactor()
    clock, seen = Clock(reactor, reactor.seconds), []

    clock.callLater(1, lambda *args, **kwargs: seen.append((args, kwargs)), 1, two=2)
    taken_back = clock.callLater(1, seen.append, "never")
    assert len(clock.getDelayedCalls()) == 2
    taken_back.cancel()
    reactor.advance(1)

    assert seen == [((1,), {"two": 2})]
