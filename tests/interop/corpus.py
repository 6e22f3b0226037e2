"""What every client has to get back once, in order and identical."""

from __future__ import annotations

import base64
from typing import Any

TEXTS = [
    "",
    "plain",
    "\U0001f600 \U0001f468\u200d\U0001f469\u200d\U0001f467 é ü \u4f60\u597d",
    "\u2028",
    "\u2029",
    "a\u2028b\u2029c",
    "\n",
    "\r",
    "\r\n",
    "line\nline\n",
    "\\",
    "\\n",
    "\\\\n",
    "\\\\\\",
    "\t\x00\x7f",
    "\"quotes\" 'and' </script>",
    "\ufeffbom",
    "4",
    "2probe",
    "b4AAAA",
    "1:4",
    "\x1e",
    "x" * 70_000,
]
BINARIES = [bytes(i * 31 & 0xFF for i in range(size)) for size in (0, 1, 125, 126, 65535, 65536, 900_000)]


def corpus(separator: bool = True) -> list[str | bytes]:
    """Texts and binaries by turns. ``separator=False`` leaves out what cannot travel in a revision 4 payload."""
    texts = [text for text in TEXTS if separator or "\x1e" not in text]
    mixed: list[str | bytes] = []
    for i, text in enumerate(texts):
        mixed.append(text)
        mixed += BINARIES[i : i + 1]
    return mixed


def described(data: str | bytes) -> dict[str, str]:
    """A message as a field of a JSON line."""
    return {"text": data} if isinstance(data, str) else {"base64": base64.b64encode(data).decode()}


def undescribed(fields: dict[str, Any]) -> str | bytes:
    """A message out of the fields of a JSON line."""
    return fields["text"] if "text" in fields else base64.b64decode(fields["base64"])


def shortened(data: list[str | bytes]) -> list[tuple[str, int, str | bytes]]:
    """Messages so that a difference can be read."""
    return [(type(item).__name__, len(item), item[:40]) for item in data]
