"""Writes the corpus's first inputs: ordinary ones, from which the fuzzer finds the others."""

from __future__ import annotations

import zlib
from pathlib import Path

MASK = b"\x01\x02\x03\x04"


def masked(first: int, data: bytes) -> bytes:
    """One small frame of a client."""
    return bytes([first, 0x80 | len(data)]) + MASK + bytes(byte ^ MASK[index & 3] for index, byte in enumerate(data))


def deflated(data: bytes) -> bytes:
    """A message as permessage-deflate sends it."""
    compressor = zlib.compressobj(wbits=-15)
    return (compressor.compress(data) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]


SEEDS: dict[str, list[bytes]] = {
    "head": [
        b"GET /engine.io/?EIO=4&transport=polling HTTP/1.1\r\nHost: a.example\r\nConnection: keep-alive\r\n\r\n",
        b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Type: text/plain\r\nCookie: a=1\r\nCookie: b=2\r\n\r\n",
        b"POST http://a:1/x?y HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nX-Y: 1\r\nX-Y: 2\r\n\r\n",
        b"GET / HTTP/1.0\r\nConnection: Upgrade, close\r\nUpgrade: websocket\r\nX_Y: z\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n\r\n",
    ],
    "frames": [
        b"\0" + masked(0x81, b"4hello") + masked(0x82, b"\0\1") + masked(0x89, b"p") + masked(0x88, b"\x03\xe8bye"),
        b"\0" + masked(0x01, "ä".encode()[:1]) + masked(0x89, b"") + masked(0x80, "ä".encode()[1:]),
        b"\xff" + masked(0xC1, deflated(b"compressed compressed")) + masked(0x41, deflated(b"x")[:2]),
        b"\0\x81\xfe\x00\x80" + MASK + b"x" * 128,
    ],
    "payload": [b"4hello\x1ebAAEC\x1e2probe\x1e3\x1e1\x1e6", "4ü€😀".encode(), b"0{}", b""],
    "payload3": [b"\x006:4hello2:b4", b"\x0010:b4AAECAw==", b"\xff\x00\x06\xff4hello\x01\x04\xff\x04\x00\x01\x02",
                 b"\x00" + "3:4€x".encode()],
    "stream": [b"\x00\x010\x064hello\x83\0\1\2", b"\x03\x7e\x00\x804" + b"x" * 127, b"\xff\x80\x01b\xff\0\0\0\0\0\0\0\2ab"],
    "chunked": [b"5\r\nhello\r\n0\r\n\r\nGET", b"a;x=y\r\n0123456789\r\n00\r\n\r\n", b"5\r\nhello\r\n0\r\nTrailer: x\r\n\r\n"],
    "inflate": [b"\x05" + deflated(b"hello hello hello"), b"\x02" + deflated(b"x" * 2_000), b"\x01" + zlib.compress(b"x")],
    "websocket_handshake": [
        b"websocket\nUpgrade\n13\nAAAAAAAAAAAAAAAAAAAAAA==\nchat, superchat\n"
        b"permessage-deflate; client_max_window_bits=12; server_no_context_takeover, x; y=\"z\"",
        b"WebSocket, x\nkeep-alive, Upgrade\n13\ndGhlIHNhbXBsZSBub25jZQ==",
    ],
    "request": [
        b"EIO=4&transport=polling&sid=abc%2B&t=x+y\nhttps://a.example\na.example:443\ngzip;q=0.5, deflate, *;q=0\nX-A, x b",
        b"EIO=3&j=1&b64=1\nhttp://b.example:8000\nb.example:8000\nidentity",
        b"\nnull\n\n*",
    ],
    "jsonp_form": [b"d=4hello%5Cn%5C%5Cn+x&e=1", "d=</script>\u2028&\\n".encode()],
}


def main() -> None:
    """Write them to ``tests/fuzz/corpus``."""
    for name, inputs in SEEDS.items():
        folder = Path(__file__).parent / "corpus" / name
        folder.mkdir(parents=True, exist_ok=True)
        for number, data in enumerate(inputs):
            (folder / f"seed-{number}").write_bytes(data)


if __name__ == "__main__":
    main()
