"""Redis carries what every broker carries, and what its own nature adds: leases, cut connections, what it keeps."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from itertools import count
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.logger import capturedLogs
from zope.interface.verify import verifyObject

from ropewalk import Unavailable
from ropewalk.errors import ConfigurationError
from ropewalk.event import Message
from ropewalk.interfaces import IBroker, ISubscription
from ropewalk.plugin import find_adapter
from ropewalk.policy.backoff import Backoff
from ropewalk.testing.contracts import BrokerContract
from ropewalk.testing.contracts.suite import Contract
from ropewalk.testing.proxy import FaultProxy, Toxics
from ropewalk_redis import broker as broker_module
from ropewalk_redis import connection, member
from ropewalk_redis.broker import FLOOR, make, partition_of
from ropewalk_redis.where import Where, parse

TOPIC = "rooms.held"
OTHER = "rooms.left"
_numbers = count()


class Taker:
    """Handles messages: notes each, and keeps those in hand that it is told to `hold`."""

    def __init__(self, *hold: str) -> None:
        self.given: list[tuple[str, int]] = []
        self.cancelled: list[str] = []
        self.held: dict[str, Deferred[None]] = {}
        self._hold = set(hold)

    async def __call__(self, message: Message, attempt: int) -> None:
        self.given.append((message.id, attempt))
        if message.id in self._hold:
            self.held[message.id] = Deferred(lambda _: self.cancelled.append(message.id))
            await self.held[message.id]

    @property
    def ids(self) -> list[str]:
        """What came, the first time each."""
        return list(dict.fromkeys(id for id, _ in self.given))


class OnRedis(Contract):
    """What the tests on a real server share."""

    port = 6379
    prefix: str

    @pytest.fixture(autouse=True)
    def _under_a_prefix_of_its_own(self) -> Iterator[None]:
        self.prefix = f"ropewalk-test-{os.getpid()}-{next(_numbers)}"
        yield
        delete(self.port, self.prefix)

    @pytest.fixture
    def make(self) -> Callable[[], Awaitable[Any]]:
        async def make() -> Any:
            return self.broker()

        return make

    def broker(self, port: int | None = None, query: str = "") -> Any:
        """A new one; `port`: of a proxy."""
        from twisted.internet import reactor

        where = f"redis://127.0.0.1:{port or self.port}/0?prefix={self.prefix}{query}"
        return make(where, data=Path(), reactor=reactor, clock=reactor, now=None, random=Random(next(_numbers)))

    @pytest.fixture
    def brokers(self) -> Iterator[Callable[..., Any]]:
        """Makes them, and closes them in the end."""
        made: list[Any] = []

        def new(port: int | None = None, query: str = "") -> Any:
            made.append(self.broker(port, query))
            return made[-1]

        yield new

        async def close() -> None:
            for each in reversed(made):
                await each.close()

        self.drive(close())

    @pytest.fixture
    def proxy(self) -> Iterator[FaultProxy]:
        from twisted.internet import reactor

        proxy = FaultProxy(reactor, "127.0.0.1", self.port, Random(1))
        yield proxy
        self.drive(proxy.close())


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """All waiting is short, in the proportions it has."""
    for module, name, value in (
        (member, "LEASE", 0.5),
        (member, "BEAT", 0.1),
        (member, "BLOCK", 0.1),
        (member, "AGAIN", 0.05),
        (connection, "PATIENCE", 0.3),
        (connection, "BACKOFF", Backoff(first=0.01, limit=0.05)),
    ):
        monkeypatch.setattr(module, name, value)


@pytest.mark.backend("redis")
@pytest.mark.usefixtures("impatient")
class TestRedisBroker(OnRedis, BrokerContract):
    """What every broker keeps."""

    brokers = BrokerContract.brokers


@pytest.mark.backend("redis")
@pytest.mark.usefixtures("impatient")
class TestLeases(OnRedis):
    @pytest.mark.slow
    async def test_who_dies_without_a_word_stops_before_another_goes_on_where_it_was(
        self, brokers: Callable[..., Any], proxy: FaultProxy
    ) -> None:
        told: list[str] = []
        dying, living = Taker("1"), Taker()
        living_broker = brokers()
        await brokers(await proxy.listen()).subscribe("g", [TOPIC], dying, 4)
        await living_broker.publish([message("1"), message("2")])
        await until(lambda: dying.held)
        dying.held["1"].addBoth(lambda _: told.append(f"cancelled, {living.ids} elsewhere"))

        proxy.black_hole()
        await living_broker.subscribe("g", [TOPIC], living, 4)
        await until(lambda: len(living.given) == 2)

        assert [("1", 1)] == dying.given
        assert [("1", 2), ("2", 1)] == living.given
        assert ["cancelled, [] elsewhere"] == told

    async def test_what_a_member_had_read_and_not_given_is_given_elsewhere_for_the_first_time(
        self, brokers: Callable[..., Any]
    ) -> None:
        first, second = Taker("0"), Taker()
        leaving = await brokers().subscribe("g", [TOPIC], first, 1)
        await brokers().publish([message(str(number)) for number in range(250)])
        await until(lambda: first.held)
        stopping = run(leaving.stop())
        await brokers().subscribe("g", [TOPIC], second, 1)
        first.held["0"].callback(None)
        await stopping

        await until(lambda: len(second.given) == 249)

        assert [("0", 1)] == first.given
        assert [(str(number), 1) for number in range(1, 250)] == second.given

    @pytest.mark.slow
    async def test_partitions_are_shared_evenly_as_members_come_and_go(self, brokers: Callable[..., Any]) -> None:
        members = [await brokers().subscribe("g", [TOPIC], Taker(), 1) for _ in range(5)]
        await until(lambda: [1, 1, 2, 2, 2] == sorted(map(has, members)))

        for leaving in members[:3]:
            await leaving.stop()

        await until(lambda: [4, 4] == sorted(map(has, members[3:])))

    async def test_there_may_be_more_members_than_partitions(self, brokers: Callable[..., Any]) -> None:
        members = [await brokers(query="&partitions=2").subscribe("g", [TOPIC], Taker(), 1) for _ in range(3)]
        await until(lambda: [0, 1, 1] == sorted(map(has, members)))

        await next(each for each in members if has(each)).stop()

        await until(lambda: 2 == sum(map(has, members)))

    @pytest.mark.slow
    async def test_a_partition_goes_to_another_member_when_what_is_in_hand_is_done(
        self, brokers: Callable[..., Any]
    ) -> None:
        keys = [str(number) for number in range(16)]
        busy, free = Taker(*keys), Taker()
        first = await brokers().subscribe("g", [TOPIC], busy, 16)
        await brokers().publish([message(f"{key}{turn}", key=key) for turn in ("", "+") for key in keys])
        await until(lambda: len(busy.held) == 16)
        await brokers().subscribe("g", [TOPIC], free, 16)
        await until(lambda: 4 == sum(each.leaving for each in first._partitions.values()))
        assert [] == free.given

        for held in busy.held.values():
            held.callback(None)

        await until(lambda: len(busy.given + free.given) == 32)
        assert {1} == {attempt for _, attempt in busy.given + free.given}
        assert set(free.given) == {(f"{key}+", 1) for key in keys} - set(busy.given)
        assert len(free.given) > 0

    @pytest.mark.slow
    async def test_whoever_keeps_a_partition_from_moving_for_too_long_is_cancelled(
        self, brokers: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(member, "GRACE", 0.1)
        monkeypatch.setattr(connection, "PATIENCE", 5.0)  # nothing is lost here, however busy the machine is
        slow, others = Taker(*(str(number) for number in range(16))), Taker()
        await brokers().subscribe("g", [TOPIC], slow, 16)
        await brokers().publish([message(str(number), key=str(number)) for number in range(16)])
        await until(lambda: len(slow.held) == 16)

        await brokers().subscribe("g", [TOPIC], others, 16)
        await until(lambda: others.given and set(others.ids) == set(slow.cancelled))

        assert {2} == {attempt for _, attempt in others.given}
        for held in slow.held.values():
            if not held.called:
                held.callback(None)


@pytest.mark.backend("redis")
@pytest.mark.usefixtures("impatient")
class TestConnectionsThatAreLost(OnRedis):
    @pytest.mark.slow
    async def test_what_was_sent_and_not_answered_may_have_been_published(
        self, brokers: Callable[..., Any], proxy: FaultProxy
    ) -> None:
        broker, taker = brokers(await proxy.listen()), Taker()
        await brokers().subscribe("g", [TOPIC], taker, 1)
        await broker.publish([message("0")])
        proxy.towards_client = Toxics(swallow=True)

        with pytest.raises(Unavailable) as raised:
            await broker.publish([message("1")])

        assert (
            "maybe",
            f"redis://127.0.0.1:{await proxy.listen()}/0 cannot be used: it did not answer within 0.3 seconds.",
        ) == (raised.value.ran, raised.value.detail)
        proxy.heal()
        assert [] == await published(broker, [message("2")])
        await until(lambda: taker.ids == ["0", "1", "2"])

    @pytest.mark.slow
    async def test_nothing_was_published_where_nobody_listens(
        self, brokers: Callable[..., Any], proxy: FaultProxy
    ) -> None:
        broker = brokers(await proxy.listen())
        await broker.publish([message("0")])
        await proxy.refuse()
        proxy.cut()
        await until(lambda: ": connected;" not in repr(broker))  # it has heard of it

        with pytest.raises(Unavailable) as raised:
            await broker.publish([message("1")])

        assert "no" == raised.value.ran
        await proxy.listen()
        assert ["2"] == await published(broker, [message("2")])
        assert ["0", "2"] == [each.id async for each in broker.history(TOPIC)]

    @pytest.mark.slow
    async def test_who_cannot_reach_redis_cannot_subscribe(
        self, brokers: Callable[..., Any], proxy: FaultProxy
    ) -> None:
        port = await proxy.listen()
        await proxy.refuse()

        with pytest.raises(Unavailable, match=f"redis://127.0.0.1:{port}/0 cannot be used: ") as raised:
            await brokers(port).subscribe("g", [TOPIC], Taker(), 1)

        assert "no" == raised.value.ran

    @pytest.mark.slow
    async def test_cut_while_publishing_again_and_again_nothing_is_lost_and_keys_keep_their_order(
        self, brokers: Callable[..., Any], proxy: FaultProxy
    ) -> None:
        broker, taker = brokers(await proxy.listen()), Taker()
        await brokers().subscribe("g", [TOPIC], taker, 8)
        chance = Random(3)

        for start in range(0, 200, 5):
            if chance.random() < 0.3:
                proxy.towards_client = Toxics(reset_after=chance.randrange(60))
            await published(
                broker, [message(str(number), key=str(number % 3)) for number in range(start, start + 5)], proxy.heal
            )

        await until(lambda: len(taker.ids) == 200)
        assert proxy.statistics().resets > 3
        for key in range(3):
            assert [str(number) for number in range(200) if number % 3 == key] == [
                each for each in taker.ids if int(each) % 3 == key
            ]

    @pytest.mark.slow
    async def test_cut_while_reading_again_and_again_nothing_is_lost_and_keys_keep_their_order(
        self, brokers: Callable[..., Any], proxy: FaultProxy
    ) -> None:
        broker, taker = brokers(), Taker()
        await brokers(await proxy.listen()).subscribe("g", [TOPIC], taker, 8)

        for start in range(0, 300, 30):
            await broker.publish([message(str(number), key=str(number % 3)) for number in range(start, start + 30)])
            await until(lambda start=start: len(taker.ids) > start)
            proxy.cut()

        await until(lambda: len(taker.ids) == 300)
        for key in range(3):
            assert [str(number) for number in range(300) if number % 3 == key] == [
                each for each in taker.ids if int(each) % 3 == key
            ]

    async def test_what_was_on_its_way_when_the_connection_was_cut_is_read_again(
        self, brokers: Callable[..., Any], proxy: FaultProxy
    ) -> None:
        port, taker = await proxy.listen(), Taker()
        await brokers(port, "&partitions=1").subscribe("g", [TOPIC], taker, 1)
        proxy.towards_client = Toxics(reset_after=5000)

        await brokers().publish([message(str(number)) for number in range(50)])
        await until(lambda: proxy.statistics().resets)
        proxy.heal()

        await until(lambda: len(taker.given) == 50)
        assert [(str(number), 1) for number in range(50)] == taker.given

    async def test_a_short_cut_cancels_nothing_that_is_in_hand(
        self, brokers: Callable[..., Any], proxy: FaultProxy
    ) -> None:
        taker = Taker("1")
        subscription = await brokers(await proxy.listen()).subscribe("g", [TOPIC], taker, 1)
        await brokers().publish([message("1"), message("2")])
        await until(lambda: taker.held)

        proxy.cut()
        taker.held["1"].callback(None)
        await until(lambda: len(taker.given) == 2)
        await subscription.stop()

        assert [("1", 1), ("2", 1)] == taker.given
        assert (
            "0" == redis(self.port, "XPENDING", f"{self.prefix}:stream:{TOPIC}:{partition_of(message('1'), 8)}", "g")[0]
        )

    async def test_closed_it_leaves_no_connection_and_closes_twice(
        self, brokers: Callable[..., Any], proxy: FaultProxy
    ) -> None:
        broker = brokers(await proxy.listen())
        await broker.subscribe("g", [TOPIC], Taker(), 1)
        await broker.subscribe("h", [TOPIC], Taker(), 1)

        await broker.close()
        await broker.close()

        await until(lambda: proxy.statistics().open == 0)
        with pytest.raises(Unavailable, match="closed") as raised:
            await broker.publish([message("1")])
        assert "no" == raised.value.ran

    @pytest.mark.slow
    async def test_it_closes_though_redis_is_away(self, brokers: Callable[..., Any], proxy: FaultProxy) -> None:
        broker, taker = brokers(await proxy.listen()), Taker("1")
        await broker.subscribe("g", [TOPIC], taker, 1)
        await broker.publish([message("1")])
        await until(lambda: taker.held)
        await proxy.refuse()
        proxy.cut()

        await broker.close()

        assert ["1"] == taker.cancelled


@pytest.mark.backend("redis")
@pytest.mark.usefixtures("impatient")
class TestWhatIsKept(OnRedis):
    async def test_keys_keep_their_order_over_several_topics_also_when_much_has_to_be_read(
        self, brokers: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(member, "PAGE", 7)
        monkeypatch.setattr(member, "LOADED", 20)
        broker, taker, chance = brokers(), Taker(), Random(5)
        topics = [chance.choice([TOPIC, TOPIC, TOPIC, OTHER]) for _ in range(300)]
        await broker.publish([message(str(number), topic=topic, key="k") for number, topic in enumerate(topics)])

        await broker.subscribe("g", [OTHER, TOPIC], taker, 4, from_start=True)

        await until(lambda: len(taker.given) == 300)
        assert [(str(number), 1) for number in range(300)] == taker.given

    async def test_a_new_owner_puts_several_topics_together_likewise(
        self, brokers: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(member, "PAGE", 7)
        broker, first, second, chance = brokers(), Taker("40"), Taker(), Random(5)
        topics = [chance.choice([TOPIC, TOPIC, TOPIC, OTHER]) for _ in range(300)]
        leaving = await broker.subscribe("g", [OTHER, TOPIC], first, 4)
        await broker.publish([message(str(number), topic=topic, key="k") for number, topic in enumerate(topics)])
        await until(lambda: first.held)
        stopping = run(leaving.stop())
        first.held["40"].callback(None)
        await stopping

        await broker.subscribe("g", [OTHER, TOPIC], second, 4)

        await until(lambda: len(second.given) == 259)
        assert [(str(number), 1) for number in range(41, 300)] == second.given

    async def test_history_is_in_the_order_of_publishing_over_all_partitions(
        self, brokers: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(broker_module, "PAGE", 3)
        broker = brokers()
        await broker.publish([message(str(number), key=str(number % 30)) for number in range(100)])

        assert [str(number) for number in range(100)] == [each.id async for each in broker.history(TOPIC)]
        assert [] == [each.id async for each in broker.history(OTHER)]

    async def test_messages_without_a_key_are_spread(self, brokers: Callable[..., Any]) -> None:
        await brokers().publish([message(str(number), key="") for number in range(100)])

        lengths = [int(redis(self.port, "XLEN", f"{self.prefix}:stream:{TOPIC}:{n}")[0]) for n in range(8)]

        assert 100 == sum(lengths)
        assert min(lengths) > 0

    async def test_what_is_old_goes_unless_a_group_has_not_acknowledged_it(
        self, brokers: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        broker, taker = brokers(query="&partitions=1"), Taker("3")
        await broker.publish([message("0")])
        await broker.subscribe("g", [TOPIC], taker, 1)
        await broker.publish([message(str(number)) for number in range(1, 6)])
        await until(lambda: taker.held)
        await until(lambda: redis(self.port, "XPENDING", f"{self.prefix}:stream:{TOPIC}:0", "g")[0] == "3")
        redis(self.port, "DEL", f"{self.prefix}:purged")
        monkeypatch.setattr(broker_module, "KEEPS", -1)

        with capturedLogs() as logged:
            assert 3 == await broker.purge()

        assert ["3", "4", "5"] == [each.id async for each in broker.history(TOPIC)]
        assert [("g", TOPIC)] == [(each["group"], each["topic"]) for each in logged if "group" in each]
        assert 0 == await broker.purge()  # somebody has just looked
        taker.held["3"].callback(None)
        await until(lambda: redis(self.port, "XPENDING", f"{self.prefix}:stream:{TOPIC}:0", "g")[0] == "0")
        redis(self.port, "DEL", f"{self.prefix}:purged")
        assert 3 == await broker.purge()

    async def test_a_group_that_was_deleted_is_made_again_and_what_comes_then_is_given(
        self, brokers: Callable[..., Any]
    ) -> None:
        broker, taker = brokers(), Taker()
        await broker.subscribe("g", [TOPIC], taker, 1)
        await broker.publish([message("1")])
        await until(lambda: taker.given)

        delete(self.port, self.prefix)
        await until(lambda: redis(self.port, "SCARD", f"{self.prefix}:groups:{TOPIC}")[0] == "1")
        await broker.publish([message("2")])

        await until(lambda: taker.ids == ["1", "2"])

    async def test_what_is_no_message_is_left_out_and_said(self, brokers: Callable[..., Any]) -> None:
        broker, taker = brokers(query="&partitions=1"), Taker()
        await broker.subscribe("g", [TOPIC], taker, 1)

        with capturedLogs() as logged:
            redis(self.port, "XADD", f"{self.prefix}:stream:{TOPIC}:0", "1-1", "m", "rubbish")
            await broker.publish([message("1")])
            await until(lambda: taker.given)
            await until(lambda: redis(self.port, "XPENDING", f"{self.prefix}:stream:{TOPIC}:0", "g")[0] == "0")

        assert ["1-1"] == [each["id"] for each in logged if "broker.unreadable" in each["log_format"]]

    async def test_the_number_of_partitions_stays_what_it_was_first(self, brokers: Callable[..., Any]) -> None:
        await brokers(query="&partitions=3").publish([message("1")])

        await brokers().publish([message("2")])
        with pytest.raises(ConfigurationError) as raised:
            await brokers(query="&partitions=4").publish([message("3")])

        assert str(raised.value) == (
            f"[adapters] broker: partitions is 4, but redis://127.0.0.1:{self.port}/0 has 3 of them under the prefix "
            f"'{self.prefix}', and keys cannot move. Say 3, or take another prefix."
        )

    async def test_it_provides_what_the_ports_promise(self, brokers: Callable[..., Any]) -> None:
        broker = brokers()

        assert verifyObject(IBroker, broker)
        assert verifyObject(ISubscription, await broker.subscribe("g", [TOPIC], Taker(), 1))


# -- whatever happens


class Watched:
    """What all members of a group handle, and what of it should not have been."""

    def __init__(self, chance: Random) -> None:
        self.handled: dict[str, list[int]] = {}
        self.wrong: list[str] = []
        self._in_hand: dict[str, str] = {}
        self._chance = chance

    async def __call__(self, message: Message, attempt: int) -> None:
        key, number, handled = message.key, int(message.id), self.handled.setdefault(message.key, [])
        if key in self._in_hand:
            self.wrong.append(f"{number} was given while {self._in_hand[key]} was in hand")
        self._in_hand[key] = message.id
        try:
            await pause(self._chance.random() * 0.01)
            if self._chance.random() < 0.02:
                raise ValueError("not now")
        finally:
            del self._in_hand[key]
        if number not in handled:
            if handled and handled[-1] > number:
                self.wrong.append(f"{number} came after {handled[-1]}")
            handled.append(number)


@pytest.mark.backend("redis")
@pytest.mark.long
@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("seed", range(3))
class TestWhateverHappens(OnRedis):
    async def test_all_comes_in_order_and_of_a_key_one_at_a_time(
        self, brokers: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, seed: int
    ) -> None:
        from twisted.internet import reactor

        for name, value in (("PAGE", 10), ("LOADED", 30), ("GRACE", 0.3)):
            monkeypatch.setattr(member, name, value)
        chance, publisher, count = Random(seed), brokers(), 3000
        watched, members = Watched(chance), {}
        proxies = [FaultProxy(reactor, "127.0.0.1", self.port, Random(number)) for number in range(3)]
        through = [brokers(await proxy.listen()) for proxy in proxies]

        async def join_or_leave(number: int) -> None:
            if number in members:
                await members.pop(number).stop()
                return
            with suppress(Unavailable):
                members[number] = await through[number].subscribe("g", [TOPIC, OTHER], watched, 8)

        def heal(proxy: FaultProxy) -> None:
            proxy.heal()
            proxy.cut()

        happens: list[Callable[[FaultProxy], object]] = [
            FaultProxy.cut,
            FaultProxy.black_hole,
            heal,
            heal,
            lambda proxy: proxy.vanish("server"),
            lambda proxy: setattr(proxy, "towards_client", Toxics(reset_after=chance.randrange(4000))),
            lambda proxy: setattr(proxy, "towards_server", Toxics(swallow=True)),
        ]
        while 0 not in members:
            await join_or_leave(0)
        for start in range(0, count, 10):
            topics = [chance.choice([TOPIC, OTHER]) for _ in range(10)]
            some = [message(str(start + n), f"k{chance.randrange(20)}", topic) for n, topic in enumerate(topics)]
            await publisher.publish(some)
            await pause(0.01)
            if chance.random() < 0.05:
                chance.choice(happens)(chance.choice(proxies))
            if chance.random() < 0.02:
                await join_or_leave(chance.randrange(3))
        for proxy in proxies:
            heal(proxy)
        while not members:
            await join_or_leave(0)

        await until(lambda: sum(map(len, watched.handled.values())) == count)
        assert [] == watched.wrong
        for each in through:
            await each.close()
        for proxy in proxies:
            await proxy.close()


# -- a server of our own


class Server:
    """A redis-server that keeps what it has in a folder, on a port of its own."""

    def __init__(self, folder: Path, *options: str) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port: int = free.getsockname()[1]
        where = ("--bind", "127.0.0.1", "--port", str(self.port), "--dir", str(folder), "--save", "")
        self._command = ("redis-server", *where, *options)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL)

    def kill(self) -> None:
        """As a crash would."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
            self._process = None


DURABLE = ("--appendonly", "yes", "--appendfsync", "always")


@pytest.mark.backend("redis")
@pytest.mark.slow
class TestServersOfOurOwn(OnRedis):
    @pytest.fixture
    def server(self, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Server]:
        server = Server(tmp_path, *request.param)
        self.port = server.port
        server.start()
        yield server
        server.kill()

    @pytest.fixture(autouse=True)
    def _under_a_prefix_of_its_own(self) -> None:
        self.prefix = "ropewalk"

    @pytest.mark.parametrize("server", [DURABLE], indirect=True)
    async def test_what_was_published_is_there_after_a_crash_and_so_is_who_waits_for_it(
        self, server: Server, brokers: Callable[..., Any]
    ) -> None:
        broker, taker = brokers(), Taker("k3")
        member = await subscribed(broker, taker)
        for number in range(20):
            assert [] == await broker.publish([message(f"{key}{number}", key=key) for key in "kl"])
        await until(lambda: "k3" in taker.held)

        server.kill()
        server.start()
        taker.held["k3"].callback(None)
        await until(lambda: len(taker.ids) == 40)
        await member.stop()

        assert 40 == len([each async for each in brokers().history(TOPIC)])
        assert [f"k{number}" for number in range(20)] == [each for each in taker.ids if each.startswith("k")]

    @pytest.mark.parametrize("server", [DURABLE], indirect=True)
    async def test_nothing_is_said_of_a_server_that_keeps_what_it_has(
        self, server: Server, brokers: Callable[..., Any]
    ) -> None:
        with capturedLogs() as logged:
            await published(brokers(), [message("1")])

        assert [] == [each for each in logged if "broker.floor" in each["log_format"]]

    @pytest.mark.parametrize(
        "server", [("--maxmemory-policy", "allkeys-lru", "--no-appendfsync-on-rewrite", "yes")], indirect=True
    )
    async def test_what_a_server_does_not_keep_is_said_once(self, server: Server, brokers: Callable[..., Any]) -> None:
        broker = brokers()

        with capturedLogs() as logged:
            await published(broker, [message("1")])
            await published(broker, [message("2")])

        found = [
            (each["name"], each["value"], each["consequence"])
            for each in logged
            if "broker.floor" in each["log_format"]
        ]
        values = ("no", "everysec", "yes", "allkeys-lru")
        assert [(name, value, lost) for (name, _, lost), value in zip(FLOOR, values, strict=True)] == found

    @pytest.mark.parametrize("server", [("--rename-command", "CONFIG", "")], indirect=True)
    async def test_a_server_that_does_not_say_what_it_keeps_is_used_and_that_is_said(
        self, server: Server, brokers: Callable[..., Any]
    ) -> None:
        with capturedLogs() as logged:
            await published(brokers(), [message("1")])

        assert ["broker.floor.unknown"] == [
            each["log_format"].partition(":")[0] for each in logged if "broker.floor" in each["log_format"]
        ]

    @pytest.mark.parametrize("server", [()], indirect=True)
    async def test_a_server_that_has_become_a_replica_is_left_for_whoever_answers_next(
        self, server: Server, brokers: Callable[..., Any], proxy: FaultProxy
    ) -> None:
        broker = brokers(await proxy.listen())
        await published(broker, [message("1")])
        made = proxy.statistics().accepted
        redis(server.port, "REPLICAOF", "127.0.0.1", "1")

        with pytest.raises(Unavailable, match="READONLY"):
            await broker.publish([message("2")])

        redis(server.port, "REPLICAOF", "NO", "ONE")
        await broker.publish([message("2")])
        assert made + 1 == proxy.statistics().accepted

    @pytest.mark.parametrize("server", [("--requirepass", "S3CRET")], indirect=True)
    @pytest.mark.usefixtures("impatient")
    async def test_a_password_is_given_and_never_shown(self, server: Server, brokers: Callable[..., Any]) -> None:
        from twisted.internet import reactor

        broker, stranger = (
            make(
                f"redis://:{password}@127.0.0.1:{server.port}/3",
                data=Path(),
                reactor=reactor,
                clock=reactor,
                now=None,
                random=Random(1),
            )
            for password in ("S3CRET", "wr0ng")
        )
        with capturedLogs() as logged:
            lost = await published(broker, [message("1")])
            with pytest.raises(Unavailable) as raised:
                await stranger.publish([message("1")])
        await broker.close()
        await stranger.close()

        assert ["1"] == lost
        assert (
            "no",
            f"redis://127.0.0.1:{server.port}/3 cannot be used: it answered WRONGPASS invalid username-password pair or user is disabled.",
        ) == (raised.value.ran, raised.value.detail)
        assert not any(word in f"{each}{broker!r}" for each in logged for word in ("S3CRET", "wr0ng"))


# -- what the configuration says


def test_the_adapter_is_declared_by_a_dropin() -> None:
    assert find_adapter("broker", "redis://127.0.0.1/0").load() is make


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ("redis", Where()),
        ("redis://", Where()),
        ("redis://cache", Where("cache")),
        (
            "redis://hotel:p%40ss@cache:6380/2?partitions=16&prefix=hotel",
            Where("cache", 6380, 2, "hotel", "p@ss", "hotel", 16),
        ),
        ("redis://:pw@[::1]/", Where("::1", password="pw")),
    ],
)
def test_what_the_url_leaves_out_is_filled_in(where: str, expected: Where) -> None:
    assert expected == parse(where)


@pytest.mark.parametrize(
    ("where", "what"),
    [
        ("redis://:S3CRET@db/0?partitions=0", "partitions is a number from 1 to 64; got '0'"),
        ("redis://:S3CRET@db/0?partitions=65", "partitions is a number from 1 to 64; got '65'"),
        ("redis://:S3CRET@db/0?partitions=many", "partitions is a number from 1 to 64; got 'many'"),
        ("redis://:S3CRET@db/0?partitions=1&partitions=2", "partitions is a number from 1 to 64; got '1', '2'"),
        ("redis://:S3CRET@db/0?prefix=a:b", "prefix is up to 100 letters, digits and '_.-'; got 'a:b'"),
        ("redis://:S3CRET@db/0?colour=red", "the query has partitions and prefix; got 'colour'"),
        ("redis://:S3CRET@db/zero", "the path is the number of a database; got 'zero'"),
        ("redis://:S3CRET@db:port/0", "got what is no URL"),
        ("redis:S3CRET", "got the scheme 'redis'"),
        ("redis+tls://:S3CRET@db/0", "got the scheme 'redis+tls'"),
    ],
)
def test_a_wrong_url_is_refused_with_what_is_expected_and_without_its_password(where: str, what: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        parse(where)

    assert str(raised.value) == (
        f"[adapters] broker: {what}. Expected redis, or a URL like redis://:password@127.0.0.1:6379/0?partitions=8."
    )


def test_a_key_lies_where_it_always_lay() -> None:
    assert [7, 3, 1, 5] == [partition_of(message("1", key=key), 8) for key in ("", "a", "b", "Ägypten")]


# -- what they stand on


def message(id: str, key: str = "k", topic: str = TOPIC) -> Message:
    return Message(id, topic, 1, key, "rooms", 1_777_626_000.0, msgspec.Raw(b"{}"))


async def published(
    broker: Any, messages: Sequence[Message], between: Callable[[], object] = lambda: None
) -> Sequence[str]:
    """As a publisher does: again, until it was."""
    while True:
        try:
            return await broker.publish(messages)  # type: ignore[no-any-return]
        except Unavailable:
            between()


async def subscribed(broker: Any, taker: Taker) -> Any:
    while True:
        try:
            return await broker.subscribe("g", [TOPIC], taker, 4)
        except Unavailable:
            pass


async def until(predicate: Callable[[], object]) -> None:
    while not predicate():
        await pause(0.005)


async def pause(seconds: float) -> None:
    from twisted.internet import reactor

    await deferLater(reactor, seconds)


def run(awaitable: Awaitable[Any]) -> Deferred[Any]:
    from ropewalk.driver import Driver

    return Driver.of().run(awaitable)


def has(subscription: Any) -> int:
    """How many partitions it has."""
    return len(subscription._partitions)


def redis(port: int, *command: str) -> list[str]:
    """What the server answers, line by line."""
    done = subprocess.run(["redis-cli", "-p", str(port), *command], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def delete(port: int, prefix: str) -> None:
    """All its keys."""
    keys = redis(port, "--scan", "--pattern", f"{prefix}:*")
    if keys:
        redis(port, "UNLINK", *keys)
