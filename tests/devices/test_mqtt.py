"""The link against a real broker: acknowledgement, reconnection, bounds, takeover, back-pressure."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import uuid
from pathlib import Path

import pytest

from devices.link import Delivery, LinkError, Outgoing
from devices.mqtt import LinkConfig, MqttLink, Will
from devices.mqtt_packets import counted
from devices.topics import Up, filters_before, host_filters, topic_of
from runtime.broker import EmbeddedBroker
from runtime.broker_mosquitto import find_program
from tests.devices.support import REGION, Recorder, fresh, link_config, linked, until

EVENT, FACE = b"event " + os.urandom(32), b"\xff\xd8\xff" + os.urandom(4096)


def topic() -> str:
    return f"test/{uuid.uuid4().hex}"


async def test_a_publish_returns_at_the_brokers_puback_and_arrives_whole(shared_broker: EmbeddedBroker) -> None:
    where, recorder = topic(), Recorder()
    async with linked(link_config(shared_broker), where, recorder=recorder) as link:
        await link.publish(
            where,
            b"payload",
            expiry_s=60,
            correlation=b"c" * 36,
            response_topic="so/answer",
            content_type="image/jpeg",
            properties={"id": "é", "seq": "18"},
        )
        await until(lambda: len(recorder.deliveries) == 1)
    delivery = recorder.deliveries[0]
    assert (delivery.topic, delivery.payload, delivery.retained) == (where, b"payload", False)
    assert (delivery.correlation, delivery.response_topic) == (b"c" * 36, "so/answer")
    assert delivery.properties == {"id": "é", "seq": "18"}
    assert link.counts.publishes == link.counts.acks == 1


async def test_many_publishes_at_once_keep_their_order_within_the_brokers_bound(
    shared_broker: EmbeddedBroker,
) -> None:
    where, recorder = topic(), Recorder()
    config = link_config(shared_broker, receive_messages_max=10)
    async with linked(config, where, recorder=recorder) as link:
        await asyncio.gather(*(link.publish(where, str(n).encode()) for n in range(500)))
        await until(lambda: len(recorder.deliveries) == 500)
    assert [int(delivery.payload) for delivery in recorder.deliveries] == list(range(500))


async def test_the_wait_for_the_broker_is_bounded_and_loud(shared_broker: EmbeddedBroker) -> None:
    config = link_config(shared_broker, receive_messages_max=1, publish_waiting_max=3)
    async with linked(config) as link:
        results = await asyncio.gather(*(link.publish(topic(), b"") for _ in range(6)), return_exceptions=True)
    refusals = [result for result in results if isinstance(result, LinkError)]
    assert [refusal.code for refusal in refusals] == ["publish_queue_full"] * 2


async def test_what_was_not_acknowledged_comes_again_after_a_reconnect(shared_broker: EmbeddedBroker) -> None:
    where, recorder = topic(), Recorder(acks=False)
    async with linked(link_config(shared_broker), where, recorder=recorder) as link:
        async with linked(link_config(shared_broker)) as other:
            await other.publish(where, b"one")
            await other.publish(where, b"two")
        await until(lambda: len(recorder.deliveries) == 2)
        first = recorder.deliveries[0].receipt
        second = recorder.deliveries[1].receipt
        assert first is not None
        assert second is not None
        assert link.ack(first)
        await link.publish(topic(), b"x")  # answered in the order of the connection: the broker has the first ack
        link.drop()
        await until(lambda: not link.online)
        assert not link.ack(second), "an acknowledgement of an ended connection must go nowhere"
        link.restore()
        await until(lambda: len(recorder.deliveries) == 3)
        again = recorder.deliveries[2]
        assert again.payload == b"two"
        assert again.receipt is not None
        assert again.receipt.epoch == second.epoch + 1
        assert not link.ack(second), "nor one of an old connection on the new one"
        assert link.ack(again.receipt)
        await link.publish(topic(), b"x")
        assert recorder.connections == [(1, False), (2, True)]
        assert recorder.asked == [False]
        # Nothing is left: a third connection brings nothing.
        link.drop()
        await until(lambda: not link.online)
        link.restore()
        await until(lambda: len(recorder.connections) == 3)
        await link.publish(where, b"three")
        await until(lambda: recorder.deliveries[-1].payload == b"three")
        assert len(recorder.deliveries) == 4
        assert link.counts.acks_dropped == 2


async def test_a_lost_connection_fails_open_publishes_at_once_and_refuses_new_ones(
    broker: EmbeddedBroker,
) -> None:
    recorder = Recorder()
    async with linked(link_config(broker, receive_messages_max=1), recorder=recorder) as link:
        assert broker.pid is not None
        os.kill(broker.pid, signal.SIGSTOP)
        try:
            waiting = [asyncio.create_task(link.publish(topic(), b"x")) for _ in range(3)]
            await asyncio.sleep(0)
            link.drop()
            results = await asyncio.gather(*waiting, return_exceptions=True)
        finally:
            os.kill(broker.pid, signal.SIGCONT)
        assert [getattr(result, "code", result) for result in results] == ["not_connected"] * 3
        with pytest.raises(LinkError, match="no connection"):
            await link.publish(topic(), b"x")
        link.restore()
        await until(lambda: len(recorder.connections) == 2)
        await link.publish(topic(), b"works again, with its one place free")


async def test_a_silent_broker_is_a_timeout(broker: EmbeddedBroker) -> None:
    async with linked(link_config(broker)) as link:
        assert broker.pid is not None
        os.kill(broker.pid, signal.SIGSTOP)
        try:
            with pytest.raises(LinkError) as caught:
                await link.publish(topic(), b"x", timeout_s=0.1)
        finally:
            os.kill(broker.pid, signal.SIGCONT)
        assert caught.value.code == "publish_timeout"


async def test_a_killed_broker_is_found_again_and_subscribed_again(broker: EmbeddedBroker) -> None:
    where, recorder = topic(), Recorder()
    async with linked(link_config(broker), where, recorder=recorder) as link:
        pid, port = broker.pid, broker.info.port
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        await until(lambda: not link.online)
        await asyncio.to_thread(broker.stop)
        await asyncio.to_thread(broker.start)
        assert broker.info.port == port
        await until(lambda: len(recorder.connections) == 2)
        await link.publish(where, b"after")
        await until(lambda: any(delivery.payload == b"after" for delivery in recorder.deliveries))
    assert link.counts.connections == 2


async def test_a_taken_client_id_is_asked_about_before_reconnecting(shared_broker: EmbeddedBroker) -> None:
    config = link_config(shared_broker)
    loser = Recorder(reconnects=False)
    async with linked(config, recorder=loser), linked(config, topic()) as winner:
        await until(lambda: bool(loser.asked))
        assert len(loser.losses) == 1
        await winner.publish(topic(), b"still here")
        assert len(loser.connections) == 1


async def test_the_will_is_published_after_a_cut_and_not_after_a_goodbye(shared_broker: EmbeddedBroker) -> None:
    where, recorder = topic(), Recorder()
    async with linked(link_config(shared_broker), where, recorder=recorder):
        for polite in (True, False):
            link = MqttLink(link_config(shared_broker), will=lambda: Will(where, b"gone", delay_s=0))
            listener = Recorder()
            link.listen(listener, ())
            await link.start()
            await until(lambda heard=listener: bool(heard.connections))  # type: ignore[misc]
            if not polite:
                link.drop()
                await until(lambda: len(recorder.deliveries) == 1)
            await link.stop()
        assert [delivery.payload for delivery in recorder.deliveries] == [b"gone"]


async def test_paused_reading_leaves_messages_with_the_broker(shared_broker: EmbeddedBroker) -> None:
    where, recorder = topic(), Recorder()
    async with (
        linked(link_config(shared_broker), where, recorder=recorder) as link,
        linked(link_config(shared_broker)) as other,
    ):
        link.pause_reading()
        await asyncio.gather(*(other.publish(where, bytes(50_000)) for _ in range(40)))
        assert recorder.deliveries == []
        link.resume_reading()
        await until(lambda: len(recorder.deliveries) == 40)


async def test_a_pause_in_the_middle_of_what_was_read_holds_at_once(shared_broker: EmbeddedBroker) -> None:
    class OneAtATime(Recorder):
        def delivered(self, delivery: Delivery) -> None:
            super().delivered(delivery)
            assert self.link is not None
            self.link.pause_reading()

    where, recorder = topic(), OneAtATime()
    async with (
        linked(link_config(shared_broker), where, recorder=recorder) as link,
        linked(link_config(shared_broker)) as other,
    ):
        link.pause_reading()
        await asyncio.gather(*(other.publish(where, b"small") for _ in range(5)))
        # With publishes of its own under way, paho reads several packets in one go.
        own = [asyncio.create_task(link.publish(topic(), b"own")) for _ in range(10)]
        for n in range(1, 6):
            link.resume_reading()
            await until(lambda wanted=n: len(recorder.deliveries) == wanted)  # type: ignore[misc]
            await other.publish(topic(), b"a whole round trip later")
            assert len(recorder.deliveries) == n
        link.resume_reading()
        await asyncio.gather(*own)


async def test_a_refused_login_and_a_closed_port_are_retried_and_told(shared_broker: EmbeddedBroker) -> None:
    info = shared_broker.info
    wrong = LinkConfig(info.host, info.port, "x", "storeops-host", "wrong", reconnect_s_min=0.01, reconnect_s_max=0.05)
    closed = LinkConfig("127.0.0.1", 1, "x", reconnect_s_min=0.01, reconnect_s_max=0.05)
    for config, reason in ((wrong, "refused"), (closed, "ConnectionRefusedError")):
        recorder = Recorder()
        link = MqttLink(config)
        link.listen(recorder, ())
        await link.start()
        await until(lambda heard=recorder: len(heard.losses) >= 3)  # type: ignore[misc]
        await link.stop()
        assert reason in recorder.losses[0]
        assert recorder.connections == []


class RefusingBroker:
    """Says what mosquitto cannot be made to say: reason codes >= 0x80 in SUBACK and PUBACK, and DISCONNECT 0x8E.

    mosquitto 2.0.11 lets every SUBSCRIBE pass its access list, and only closes the socket of a taken-over client.
    """

    def __init__(self, suback: int = 0x01, puback: int | None = 0x00, takes_over: bool = False) -> None:
        """`puback` None: never acknowledges."""
        self.suback, self.puback, self.takes_over = suback, puback, takes_over
        self.publishes = 0
        self._writers: list[asyncio.StreamWriter] = []

    async def __aenter__(self) -> LinkConfig:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port = self._server.sockets[0].getsockname()[1]
        return LinkConfig("127.0.0.1", port, "c", reconnect_s_min=0.01, reconnect_s_max=0.05)

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        await self._server.wait_closed()
        for writer in self._writers:  # before Python 3.12 the server does not wait for them
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        try:
            while True:
                kind, length = await reader.readexactly(2)
                packet = await reader.readexactly(length)
                if kind >> 4 == 1:
                    writer.write(b"\x20\x03\x00\x00\x00")
                elif kind >> 4 == 8:
                    writer.write(b"\x90\x04" + packet[:2] + b"\x00" + bytes([self.suback]))
                    if self.takes_over:
                        writer.write(b"\xe0\x02\x8e\x00")
                elif kind >> 4 == 3:
                    self.publishes += 1
                    if self.puback is None:
                        continue
                    name = 2 + int.from_bytes(packet[:2], "big")
                    writer.write(b"\x40\x04" + packet[name : name + 2] + bytes([self.puback, 0]))
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()


async def test_a_refused_subscription_is_an_error_not_silence() -> None:
    async with RefusingBroker(suback=0x87) as config:
        recorder = Recorder()
        link = MqttLink(config)
        link.listen(recorder, ("so/1/#",))
        await link.start()
        await until(lambda: any("the broker refused: Not authorized" in loss for loss in recorder.losses))
        await link.stop()
        assert recorder.connections == []


async def test_a_refused_publish_is_an_error_not_silence() -> None:
    async with RefusingBroker(puback=0x87) as config, linked(config, "so/1/#") as link:
        with pytest.raises(LinkError) as caught:
            await link.publish("so/1/x", b"x")
        assert caught.value.code == "publish_refused"
        assert link.online


async def test_a_publish_that_failed_is_not_sent_behind_our_back() -> None:
    broker, recorder = RefusingBroker(puback=None), Recorder()
    async with broker as config, linked(config, "so/1/#", recorder=recorder) as link:
        publishing = asyncio.create_task(link.publish("so/1/x", b"x"))
        await until(lambda: broker.publishes == 1)
        link.drop()
        with pytest.raises(LinkError, match="connection ended"):
            await publishing
        link.restore()
        await until(lambda: len(recorder.connections) == 2)
        broker.puback = 0
        await link.publish("so/1/y", b"y")
        assert broker.publishes == 2


async def test_a_takeover_is_told_and_ends_a_link_that_may_not_reconnect() -> None:
    async with RefusingBroker(takes_over=True) as config:
        recorder = Recorder(reconnects=False)
        async with linked(config, "so/1/#", recorder=recorder) as link:
            await until(lambda: bool(recorder.asked))
            assert recorder.asked == [True]
            assert link.counts.takeovers == 1


async def test_who_cannot_know_whether_it_may_reconnect_is_asked_again(shared_broker: EmbeddedBroker) -> None:
    class Unsure(Recorder):
        async def may_reconnect(self, taken_over: bool) -> bool:
            await super().may_reconnect(taken_over)
            if len(self.asked) < 3:
                raise ConnectionError("the database is away")
            return True

    recorder = Unsure()
    async with linked(link_config(shared_broker), recorder=recorder) as link:
        link.drop()
        await until(lambda: not link.online)
        link.restore()
        await until(lambda: len(recorder.connections) == 2)
        assert len(recorder.asked) == 3


def test_a_filter_that_cannot_be_one_is_refused_before_connecting() -> None:
    async def make() -> None:
        MqttLink(LinkConfig("127.0.0.1", 1, "c")).listen(Recorder(), ("a/#/b",))

    with pytest.raises(ValueError, match="topic filter"):
        asyncio.run(make())


async def test_a_packet_above_the_brokers_size_is_never_sent(shared_broker: EmbeddedBroker) -> None:
    async with linked(link_config(shared_broker)) as link:
        with pytest.raises(LinkError) as caught:
            await link.publish(topic(), bytes(300 * 1024))
        assert caught.value.code == "packet_too_large"
        await link.publish(topic(), b"the connection lives")
        assert link.counts.connections == 1


async def test_a_batch_waits_for_the_brokers_window_and_counts_what_was_refused(
    shared_broker: EmbeddedBroker,
) -> None:
    where, recorder = topic(), Recorder()
    messages = [Outgoing(counted(where.encode()), str(n).encode(), 60) for n in range(50)]
    async with linked(link_config(shared_broker, receive_messages_max=4), where, recorder=recorder) as link:
        assert await link.publish_all(messages) == 0
        assert await link.publish_all([]) == 0
        await until(lambda: len(recorder.deliveries) == 50)
        link.drop()
        await until(lambda: not link.online)
        assert await link.publish_all(messages) == 50
    assert [int(delivery.payload) for delivery in recorder.deliveries] == list(range(50))


@pytest.mark.skipif(find_program() is None, reason="mosquitto alone writes what it holds to a disk")
def test_a_broker_that_persists_holds_an_event_for_a_host_that_is_away_and_no_face(data_dir: Path) -> None:
    """Also not for a host that came before with the subscription of an earlier version."""
    broker = EmbeddedBroker(data_dir, "mosquitto")
    broker.start()
    try:
        asyncio.run(_host_away(broker))
    finally:
        broker.stop()
    kept = b"".join(path.read_bytes() for path in data_dir.rglob("*") if path.is_file())
    assert EVENT in kept
    assert FACE[100:164] not in kept


async def _host_away(broker: EmbeddedBroker) -> None:
    terminal, host = fresh(), f"host-{uuid.uuid4().hex[:8]}"
    filters = host_filters(REGION, [terminal.shard])
    async with linked(link_config(broker, host, clean_start=False), *filters_before(filters)):
        pass
    async with linked(link_config(broker, host, clean_start=False), *filters):
        pass
    async with linked(link_config(broker)) as link:
        await link.publish(str(topic_of(terminal, Up.EVENT)), EVENT)
        await link.publish(str(topic_of(terminal, Up.FACE)), FACE)
