"""Batches of plain messages: what the part in C does is what the one in Python does."""

from __future__ import annotations

import inspect
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from engineio_wsgi.http import lane_requests
from engineio_wsgi.protocol.websocket import batches
from engineio_wsgi.protocol.websocket.frames import FrameDecoder, apply_mask
from engineio_wsgi.session import plain_messages
from engineio_wsgi.session.plain_messages import QueueInPython

Decode = Callable[[bytes, int, list[Any]], int]
Encode = Callable[[list[Any]], bytes | None]
Receive = Callable[[int, int, list[Any], bytes], tuple[int, bytes]]
Send = Callable[[int, list[Any]], tuple[int, bytes] | None]

#: tox's `sanitize` asks for more than the usual
MANY = settings(max_examples=int(os.environ.get("HYPOTHESIS_EXAMPLES", "100")), deadline=None,
                suppress_health_check=[HealthCheck.too_slow])
#: what this installation uses, and the reference
DECODERS = [batches.decode_messages, batches.decode_in_python]
ENCODERS = [batches.encode_messages, batches.encode_in_python]
RECEIVERS = [batches.receive_messages, batches.receive_in_python]
SENDERS = [batches.send_messages, batches.send_in_python]


def client_frame(payload: bytes, first: int = 0x81, mask: bytes = b"\x37\xfa\x21\x3d") -> bytes:
    """A frame as a client sends it, whatever is in it."""
    size = len(payload)
    head = bytes((first, 0x80 | size)) if size < 126 else bytes((first, 0xFE)) + size.to_bytes(2, "big")
    return head + mask + apply_mask(payload, mask)


masks = st.binary(min_size=4, max_size=4)
payloads = st.one_of(
    st.text(max_size=300).map(lambda text: b"4" + text.encode("utf-8", "replace")),
    st.binary(max_size=300),
    st.sampled_from([b"", b"4", b"2", b"2probe", b"4\xff", b"4" + "äöü€😀".encode() * 40, b"4" + b"x" * 65_000]),
)
frames = st.builds(client_frame, payloads, st.sampled_from([0x81, 0x82, 0x82, 0x81, 0x01, 0x80, 0x88, 0x89, 0xC1]), masks)
streams = st.one_of(
    st.lists(frames, max_size=8).map(b"".join),
    st.tuples(st.lists(frames, max_size=4).map(b"".join), st.binary(max_size=12)).map(b"".join),
    st.binary(max_size=64),
)


@MANY
@given(streams, st.integers(0, 70_000))
@example(client_frame(b"4hello")[:-1], 100)
@example(client_frame(b"4" + b"x" * 200)[:7], 1000)
def test_decoding_is_that_of_the_reference(data: bytes, limit: int) -> None:
    expected: list[Any] = []
    found: list[Any] = []
    assert batches.decode_messages(data, limit, found) == batches.decode_in_python(data, limit, expected)
    assert found == expected
    assert list(map(type, found)) == list(map(type, expected))


@MANY
@given(streams)
def test_a_decoder_finds_the_same_messages(data: bytes) -> None:
    """What is taken is what the frames' decoder would have found first."""
    messages: list[Any] = []
    position = batches.decode_messages(data, 100_000, messages)
    items = FrameDecoder(100_000).feed(data)
    plain = [item[1:] if isinstance(item, str) else item for item in items[: len(messages)]]
    assert plain == messages
    assert FrameDecoder(100_000).feed(data[position:]) == items[len(messages):]


texts = st.text(st.characters(), max_size=300)
large = st.sampled_from(["x" * 70_000, b"y" * 66_000, "ä" * 40_000])
messages = st.lists(st.one_of(texts, st.binary(max_size=300), large), max_size=6)


@MANY
@given(messages)
def test_encoding_is_that_of_the_reference(given_messages: list[Any]) -> None:
    assert batches.encode_messages(given_messages) == batches.encode_in_python(given_messages)


@pytest.mark.parametrize("encode", ENCODERS)
@pytest.mark.parametrize("size", [0, 1, 124, 125, 126, 65_534, 65_535, 65_536])
def test_sizes_are_written_as_the_protocol_has_them(encode: Encode, size: int) -> None:
    text, binary = "x" * size, b"\x00" * size
    encoded = encode([text, binary])
    assert encoded is not None
    decoder = FrameDecoder(100_000, masked=False)
    assert decoder.feed(encoded) == ["4" + text, binary]


@pytest.mark.parametrize("encode", ENCODERS)
@pytest.mark.parametrize("odd", [None, 1, bytearray(b"x"), "\ud800", type("Text", (str,), {})("x")])
def test_what_is_not_plain_is_left_to_others(encode: Encode, odd: object) -> None:
    assert encode(["before", odd]) is None
    assert encode(["before", "after"]) == b"\x81\x074before\x81\x064after"


@pytest.mark.parametrize("decode", DECODERS)
@pytest.mark.parametrize(("payload", "limit", "taken"), [(b"4abc", 4, True), (b"4abc", 3, False), (b"2probe", 100, False)])
def test_a_frame_that_is_no_plain_message_ends_the_batch(decode: Decode, payload: bytes, limit: int, taken: bool) -> None:
    first, second = client_frame(b"4"), client_frame(payload)
    messages: list[Any] = []
    position = decode(first + second, limit, messages)
    assert messages == (["", "abc"] if taken else [""])
    assert position == (len(first + second) if taken else len(first))


# -- with one recv or one send


def received(receive: Receive, data: bytes, limit: int) -> tuple[int, bytes, list[Any]]:
    """What ``receive`` does with ``data``, which has arrived at once, as far as the kernel keeps it."""
    near, far = socket.socketpair()
    messages: list[Any] = []
    with near, far:
        far.send(data[: 2 * batches.RECV_SIZE], socket.MSG_DONTWAIT)
        if not data:
            far.close()
        return (*receive(near.fileno(), limit, messages, b""), messages)


@MANY
@given(streams, st.integers(0, 70_000))
@example(b"", 100)
@example(client_frame(b"4" + b"x" * 65_529) + b"\x81", 70_000)
def test_receiving_is_that_of_the_reference(data: bytes, limit: int) -> None:
    size, rest, messages = received(batches.receive_messages, data, limit)
    assert (size, rest, messages) == received(batches.receive_in_python, data, limit)
    assert size == min(len(data), batches.RECV_SIZE)


def test_receiving_decodes_as_decoding_does() -> None:
    data = client_frame(b"4one") + client_frame(b"two", 0x82) + client_frame(b"2") + client_frame(b"4three")
    for receive in RECEIVERS:
        assert received(receive, data, 100) == (len(data), client_frame(b"2") + client_frame(b"4three"), ["one", b"two"])


@MANY
@given(streams, st.integers(1, 60_000), st.integers(0, 70_000))
def test_what_has_begun_comes_first(data: bytes, begun: int, limit: int) -> None:
    """Bytes that are held until the next ones come are decoded as if all had come at once."""
    first, second = data[:begun], data[begun:][: batches.RECV_SIZE - begun]
    for receive in RECEIVERS:
        near, far = socket.socketpair()
        messages: list[Any] = []
        with near, far:
            far.send(second) if second else far.close()
            size, rest = receive(near.fileno(), limit, messages, first)
        expected: list[Any] = []
        position = batches.decode_in_python(first + second, limit, expected)
        assert (size, rest, messages) == (len(second), (first + second)[position:], expected)


def test_a_recv_takes_less_if_something_has_begun() -> None:
    for receive in RECEIVERS:
        near, far = socket.socketpair()
        with near, far:
            far.sendall(bytes(batches.RECV_SIZE))
            size, rest = receive(near.fileno(), 100, [], b"\x82\xfe\x10")
            assert (size, rest[:3], len(rest)) == (batches.RECV_SIZE - 3, b"\x82\xfe\x10", batches.RECV_SIZE)


@pytest.mark.parametrize("receive", RECEIVERS)
def test_receiving_does_not_wait_and_tells_of_errors(receive: Receive) -> None:
    near, far = socket.socketpair()
    with near, far, pytest.raises(BlockingIOError):
        receive(near.fileno(), 100, [], b"")
    with open(os.devnull) as no_socket, pytest.raises(OSError, match="non-socket"):
        receive(no_socket.fileno(), 100, [], b"")


def sent(send: Send, given_messages: list[Any]) -> tuple[int, bytes, bytes] | None:
    """What ``send`` returns, and what arrives."""
    near, far = socket.socketpair()
    with near, far:
        result = send(near.fileno(), given_messages)
        near.close()
        if result is None:
            assert far.recv(1) == b""
            return None
        arrived = b""
        while chunk := far.recv(1 << 20):
            arrived += chunk
        return (*result, arrived)


@MANY
@given(messages)
@example(["x" * 16_373])
@example(["x" * 16_374, b""])
@example([b"x" * 8_000, b"y" * 8_373])
@example([b"x" * 20_000, "", "y", b"z" * 20_000])
@example([b"x" * 1_000] * 33)
@example(["x" * 20_000, "ä"])
@example([])
def test_sending_is_that_of_the_reference(given_messages: list[Any]) -> None:
    frames = batches.encode_in_python(given_messages)
    result = sent(batches.send_messages, given_messages)
    assert result == sent(batches.send_in_python, given_messages)
    if frames is None:
        assert result is None
    else:
        size, rest, arrived = result or (0, b"", b"")
        assert size == len(frames)
        assert arrived + rest == frames


@pytest.mark.parametrize("send", SENDERS)
@pytest.mark.parametrize("odd", [None, bytearray(b"x"), "\ud800"])
def test_nothing_is_sent_if_one_message_is_not_plain(send: Send, odd: object) -> None:
    assert sent(send, ["before", odd]) is None


@pytest.mark.parametrize("send", SENDERS)
@pytest.mark.parametrize("message", ["x" * 5000, "ä" * 300_000, b"x" * 1_000_000], ids=["short", "text", "binary"])
def test_what_the_kernel_does_not_take_is_returned(send: Send, message: Any) -> None:
    near, far = socket.socketpair()
    with near, far:
        frame = batches.encode_in_python([message])
        assert frame is not None
        rest = b""
        sizes = 0
        while not rest:
            size, rest = send(near.fileno(), [message]) or (0, b"")
            assert size == len(frame)
            sizes += size
        assert send(near.fileno(), [message]) == (len(frame), frame)
        near.close()
        arrived = b""
        while chunk := far.recv(1 << 20):
            arrived += chunk
        assert len(arrived) + len(rest) == sizes
        assert (arrived + rest)[-len(frame):] == frame


@pytest.mark.parametrize("send", SENDERS)
def test_sending_tells_of_errors(send: Send) -> None:
    near, far = socket.socketpair()
    with near:
        far.close()
        with pytest.raises(BrokenPipeError):
            send(near.fileno(), ["x"])
    with open(os.devnull, "w") as no_socket, pytest.raises(OSError, match="non-socket"):
        send(no_socket.fileno(), ["x"])


@pytest.mark.skipif(not batches.accelerated, reason="it is about the part in C, which test_ci_has_the_part_in_c asks for")
def test_wrong_arguments_are_refused() -> None:
    for arguments in [(), (b"", 1), ("", 1, []), (b"", "1", []), (b"", 1, ())]:
        with pytest.raises(TypeError):
            batches.decode_messages(*arguments)
    for wrong in [(), ("0", 1, [], b""), (0, "1", [], b""), (0, 1, (), b""), (0, 1, [], ""), (0, 1, [], bytes(65_536))]:
        with pytest.raises((TypeError, ValueError, OSError)):
            batches.receive_messages(*wrong)
    for wrong in [(), ("0", []), (0, ())]:
        with pytest.raises(TypeError):
            batches.send_messages(*wrong)
    with pytest.raises(TypeError):
        batches.encode_messages(3)  # type: ignore[arg-type]


@pytest.mark.skipif(os.environ.get("ENGINEIO_PURE") == "1", reason="the environment asks for Python")
@pytest.mark.parametrize("used", [batches.decode_messages, plain_messages.MessageQueue, lane_requests.match])
def test_ci_has_the_part_in_c(used: object) -> None:
    assert not os.environ.get("CI") or (batches.accelerated and not inspect.isfunction(used) and used is not QueueInPython)


@pytest.mark.parametrize(("value", "pure"), [("1", True), ("0", False), ("", False)])
def test_the_environment_can_ask_for_python(value: str, pure: bool) -> None:
    program = "import engineio_wsgi; print(engineio_wsgi.accelerated)"
    result = subprocess.run([sys.executable, "-c", program], env={**os.environ, "ENGINEIO_PURE": value}, capture_output=True,
                            text=True, check=True)
    built = subprocess.run([sys.executable, "-c", "import engineio_wsgi.protocol.websocket.c_batches"], capture_output=True,
                           check=False).returncode == 0
    assert result.stdout.strip() == str(built and not pure)
