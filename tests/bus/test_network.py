"""The bus over TCP: who is let in, what it does with bad ends, and how readers change nodes."""

import asyncio
import contextlib
import datetime
import ipaddress
import json
import logging
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from tests.bus.directory import Directory, Place
from tests.bus.test_bus import Followed, Serving, next_of, said

from treadle.bus import follower_connection, handshake, network, node_link
from treadle.bus.listener import NodeListener
from treadle.bus.network import NetworkBus
from treadle.bus.position import Position, position_of
from treadle.domain.envelope import Envelope
from treadle.errors import ConfigurationError

pytestmark = [pytest.mark.anyio, pytest.mark.real_clock]


@pytest.fixture
def anyio_backend() -> str:
    """Sockets live in real time."""
    return "asyncio"


class Cluster:
    """Nodes of one database, and processes that follow them."""

    def __init__(self) -> None:
        self.place = Place()
        self.buses: list[NetworkBus] = []

    async def node(self, listener: NodeListener | None = None) -> tuple[Serving, NetworkBus]:
        node, bus = Serving(), self.bus(listener)
        await bus.serve(node)
        return node, bus

    def bus(self, listener: NodeListener | None = None) -> NetworkBus:
        bus = NetworkBus(Directory(self.place, "t"), listener)
        self.buses.append(bus)
        return bus

    @property
    def address(self) -> str:
        return self.place.nodes[self.place.count]

    @property
    def port(self) -> int:
        port = urlsplit(self.address).port
        assert port is not None
        return port

    @property
    def secret(self) -> str:
        return urlsplit(self.address).password or ""


@pytest.fixture
async def cluster() -> AsyncIterator[Cluster]:
    cluster = Cluster()
    yield cluster
    for bus in reversed(cluster.buses):
        await bus.close()
        await asyncio.sleep(0.01)  # a connection that was just accepted ends as well


async def all_of(events: AsyncIterator[Envelope]) -> list[Envelope]:
    async with asyncio.timeout(10):
        return [one async for one in events]


# Who is let in


async def test_who_does_not_know_the_secret_is_not_let_in(
    cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    node, _ = await cluster.node()
    node.record()
    wrong = cluster.bus()
    cluster.place.nodes[1] = cluster.address.replace(cluster.secret, "00" * 32)
    with caplog.at_level(logging.DEBUG):
        assert await all_of(wrong.follow("t", Position(0))) == []
    assert "does not know the secret" in caplog.text
    assert "00" * 32 not in caplog.text


async def test_a_node_that_does_not_know_the_secret_is_told_nothing(cluster: Cluster) -> None:
    heard: list[bytes] = []

    async def pretend(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(json.dumps({"version": 1, "challenge": "ab" * 32}).encode() + b"\n")
        heard.append(await reader.readline())
        answer = json.loads(heard[0])
        writer.write(json.dumps({"proof": answer["proof"]}).encode() + b"\n")  # sent back
        heard.append(await reader.read())
        writer.close()

    server = await asyncio.start_server(pretend, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    cluster.place.nodes[1] = f"tcp://:{'11' * 32}@127.0.0.1:{port}"
    cluster.place.driven["t"] = 1
    bus = cluster.bus()
    assert await all_of(bus.follow("t", Position(0))) == []
    await bus.close()
    server.close()
    assert heard[1] == b""
    assert b"11" * 32 not in b"".join(heard)


async def test_the_secret_is_not_on_the_wire_nor_in_logs(
    cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    node, _ = await cluster.node()
    node.record()
    seen, inner_port = bytearray(), cluster.port

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", inner_port)

        async def copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
            with contextlib.suppress(OSError):
                while chunk := await source.read(1000):
                    seen.extend(chunk)
                    target.write(chunk)
            target.close()

        await asyncio.gather(copy(reader, inner_writer), copy(inner_reader, writer))

    server = await asyncio.start_server(relay, "127.0.0.1", 0)
    port, secret = server.sockets[0].getsockname()[1], cluster.secret
    cluster.place.nodes[1] = cluster.address.replace(str(inner_port), str(port))
    bus = cluster.bus()
    with caplog.at_level(logging.DEBUG):
        events = bus.follow("t", Position(0))
        await next_of(events, 1)
        await events.aclose()
        await bus.close()
    server.close()
    assert b"watch" in seen
    assert secret.encode() not in seen
    assert bytes.fromhex(secret) not in seen
    assert secret not in caplog.text


BAD = (
    b"\n",
    b"{}\n",
    b"\xff\xfe\n",
    b"x" * 100_000 + b"\n",
    b"[" * 3000 + b"\n",
    b'{"challenge":"","proof":""}\n',
    b'{"challenge":"\xc3\xa9","proof":"\xc3\xa9"}\n',
    b'{"type":"watch","id":1,"thread_id":"t","seq":0}\n',
    b"",
)


async def test_what_is_no_handshake_is_refused(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(network, "HANDSHAKE_SECONDS", 0.2)
    node, _ = await cluster.node()
    node.record()
    for bad in BAD:
        reader, writer = await asyncio.open_connection("127.0.0.1", cluster.port)
        writer.write(bad)  # one that says nothing is cut after a time
        async with asyncio.timeout(10):
            with contextlib.suppress(ConnectionError):
                assert b"line" not in await reader.read()
        writer.close()
    events = cluster.bus().follow("t", Position(0))
    await next_of(events, 1)
    await events.aclose()


async def test_connections_that_are_not_proven_are_bounded(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(network, "MAX_ADMITTING", 2)
    await cluster.node()
    kept = [await asyncio.open_connection("127.0.0.1", cluster.port) for _ in range(2)]
    for reader, _ in kept:
        await reader.readline()
    reader, writer = await asyncio.open_connection("127.0.0.1", cluster.port)
    with contextlib.suppress(ConnectionError):
        assert await reader.read() == b""
    for _, one in [*kept, (reader, writer)]:
        one.close()


@pytest.mark.parametrize(
    ("listener", "word"),
    [
        (NodeListener("0.0.0.0"), "TLS"),
        (NodeListener("10.0.0.1"), "TLS"),
        (NodeListener("example.com"), "TLS"),
        (
            NodeListener("127.0.0.1", server_tls=ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)),
            "client_tls",
        ),
        (
            NodeListener(
                "0.0.0.0",
                server_tls=ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER),
                client_tls=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
            ),
            "name",
        ),
    ],
)
def test_a_listener_that_would_not_be_safe(listener: NodeListener, word: str) -> None:
    with pytest.raises(ConfigurationError, match=word):
        NetworkBus(Directory(Place()), listener)


async def test_an_address_that_cannot_be_listened_on(cluster: Cluster) -> None:
    await cluster.node()
    with pytest.raises(ConfigurationError, match="another host or port"):
        await cluster.node(NodeListener(port=cluster.port))


async def test_an_address_without_tls_elsewhere_is_not_connected_to(
    cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    cluster.place.nodes[1] = f"tcp://:{'11' * 32}@192.0.2.1:1"
    cluster.place.nodes[2] = "tls://:zz@127.0.0.1:1"
    cluster.place.nodes[3] = "nonsense"
    for node in cluster.place.nodes:
        cluster.place.driven["t"] = node
        with caplog.at_level(logging.DEBUG):
            assert await all_of(cluster.bus().follow("t", Position(0))) == []
    assert "has no TLS" in caplog.text
    assert "11" * 32 not in caplog.text


def with_certificate(folder: Path) -> NodeListener:
    """Returns the listener of a node whose certificate is its own authority."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "node")])
    day = datetime.timedelta(days=1)
    now = datetime.datetime.now(datetime.UTC)
    names = [x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - day)
        .not_valid_after(now + day)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    chain = folder / "node.pem"
    chain.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    return NodeListener.with_certificate(chain, chain, chain)


async def test_nodes_with_certificates_reach_each_other(cluster: Cluster, tmp_path: Path) -> None:
    listener = with_certificate(tmp_path)
    node, _ = await cluster.node(listener)
    assert cluster.address.startswith("tls://")
    node.record()
    events = cluster.bus(listener).follow("t", Position(0))
    await next_of(events, 1)
    await events.aclose()
    assert await all_of(cluster.bus().follow("t", Position(0))) == []  # it has no certificate
    other = tmp_path / "other"
    other.mkdir()
    stranger = cluster.bus(with_certificate(other))
    assert await all_of(stranger.follow("t", Position(0))) == []


async def test_a_connection_that_does_not_begin_tls_is_ended(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(network, "HANDSHAKE_SECONDS", 0.2)
    await cluster.node(with_certificate(tmp_path))
    reader, writer = await asyncio.open_connection("127.0.0.1", cluster.port)
    async with asyncio.timeout(5):
        with contextlib.suppress(ConnectionError):
            assert await reader.read() == b""
    writer.close()


def test_certificates_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "empty.pem").write_text("")
    for name in ("missing.pem", "empty.pem"):
        with pytest.raises(ConfigurationError, match=name):
            NodeListener.with_certificate(*(tmp_path / name for _ in range(3)))


# Bad ends


async def test_a_reader_that_takes_nothing_is_dropped_and_comes_back(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(node_link, "MAX_WAITING", 5)
    monkeypatch.setattr(follower_connection, "TICK_SECONDS", 0.001)
    node, _ = await cluster.node()
    node.record()
    bus = cluster.bus()
    events = bus.follow("t", Position(0))
    await next_of(events, 1)
    for number in range(50):
        node.say(f"{number} ")
        node.record()
        await asyncio.sleep(0.001)
    await asyncio.sleep(0.05)
    taken = await all_of(events)
    assert 5 <= len(taken) < 90
    after = position_of(taken[-1])
    rest = await next_of(bus.follow("t", after), 1)
    assert (rest[0].seq, rest[0].n) > after


async def test_a_process_that_reads_nothing_is_disconnected(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follower_connection, "STALL_SECONDS", 2.0)
    node, _ = await cluster.node()
    node.record()
    reader, writer = await asyncio.open_connection("127.0.0.1", cluster.port, limit=1000)
    await handshake.introduce(bytes.fromhex(cluster.secret), reader, writer)
    writer.write(b'{"type":"watch","id":1,"thread_id":"t","seq":0,"n":null}\n')
    well = cluster.bus().follow("t", Position(0))
    await next_of(well, 1)
    node.say("x" * 16_000_000)
    async with asyncio.timeout(20):
        while node.topic.is_watched:
            node.say("y")
            assert (await next_of(well, 1))[0].seq == 1
            if len(node.topic._subscribers) == 1:
                break
            await asyncio.sleep(0.01)
    await well.aclose()
    writer.close()


async def test_requests_that_cannot_be_read_end_a_connection(cluster: Cluster) -> None:
    node, _ = await cluster.node()
    node.record()
    for bad in (b"{}\n", b'{"type":"leave"}\n', b"x" * 100_000, b"\xff\n"):
        reader, writer = await asyncio.open_connection("127.0.0.1", cluster.port)
        await handshake.introduce(bytes.fromhex(cluster.secret), reader, writer)
        writer.write(bad)
        async with asyncio.timeout(10):
            with contextlib.suppress(ConnectionError):
                assert await reader.read() == b""
        writer.close()


async def test_a_watch_with_a_number_that_is_in_use(cluster: Cluster) -> None:
    await cluster.node()
    reader, writer = await asyncio.open_connection("127.0.0.1", cluster.port)
    await handshake.introduce(bytes.fromhex(cluster.secret), reader, writer)
    writer.write(b'{"type":"watch","id":1,"thread_id":"t","seq":0}\n' * 2)
    async with asyncio.timeout(10):
        with contextlib.suppress(ConnectionError):
            assert await reader.read() == b""
    writer.close()


# Changes of nodes


async def test_a_thread_that_a_node_does_not_drive_ends_at_once(cluster: Cluster) -> None:
    await cluster.node()
    cluster.place.driven["other"] = 1
    assert await all_of(cluster.bus().follow("other", Position(0))) == []
    assert await all_of(cluster.bus().follow("unknown", Position(0))) == []


async def test_an_announcement_ends_what_is_read_from_a_node_that_stands_still(
    cluster: Cluster,
) -> None:
    first, _ = await cluster.node()
    first.record()
    bus, followed = cluster.bus(), Followed()
    bus.listen(followed)
    events = bus.follow("t", Position(0))
    await next_of(events, 1)
    second, taking = await cluster.node()  # which has taken over
    await bus._look()
    assert await next_of(bus.follow("t", Position(0)), 0) == []
    async with asyncio.timeout(10):
        while (link := bus._links[2][1])._writer is None:
            await link.connect()
        taking.announce("t")
        await followed.was_told.wait()
    assert await all_of(events) == []
    second.record()
    second.say("on")
    continued = bus.follow("t", Position(0))
    assert said(await next_of(continued, 2)) == "on"
    await continued.aclose()


async def test_a_missed_announcement_is_made_up_for(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(network, "LOOK_SECONDS", 0.01)

    class Waiting(Followed):
        def waiting(self) -> dict[str, int]:
            return {"t": 0}

    bus, followed = cluster.bus(), Waiting()
    bus.listen(followed)
    assert await all_of(bus.follow("t", Position(0))) == []
    await cluster.node()
    async with asyncio.timeout(10):
        await followed.was_told.wait()
    assert followed.threads[0] == "t"


async def test_readers_of_a_node_that_does_not_answer_wait_once(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(network, "HANDSHAKE_SECONDS", 0.3)
    asked = 0

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        asked += 1
        await reader.read()
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    cluster.place.nodes[1] = f"tcp://:{'11' * 32}@127.0.0.1:{port}"
    cluster.place.driven["t"] = 1
    bus = cluster.bus()
    async with asyncio.timeout(5):
        readers = (all_of(bus.follow("t", Position(0))) for _ in range(50))
        assert await asyncio.gather(*readers) == [[]] * 50
    assert asked == 1
    await bus.close()
    server.close()


async def test_nodes_that_are_gone_are_forgotten(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(network, "LOOK_SECONDS", 0.01)
    node, _ = await cluster.node()
    node.record()
    bus = cluster.bus()
    events = bus.follow("t", Position(0))
    await next_of(events, 1)
    del cluster.place.nodes[1]  # others have found that it stands still
    assert await all_of(events) == []
    assert bus._links == {}
