"""The certificate of a server and its key, in files that are read again when they have changed: new connections get the new one.

Owns the configuration of connections. A connection keeps the certificate with which it began.
"""

from __future__ import annotations

import logging
import os

from aioquic.quic.configuration import QuicConfiguration

from engineio_wsgi.http3.connection import CONNECTION_WINDOW, FIRST_WINDOW
from engineio_wsgi.runtime.clock import monotonic

__all__ = ["DATAGRAM_SIZE", "ID_SIZE", "LOOK_PERIOD", "CertificateFiles"]

logger = logging.getLogger("engine.webtransport")

#: bytes of one ``recvfrom``; a datagram of the internet has less than 1,500
DATAGRAM_SIZE = 65_536
#: bytes of a connection id of ours
ID_SIZE = 8
#: seconds after which a silent connection has ended; a heartbeat comes more often
IDLE_TIMEOUT = 60.0
#: seconds between two looks at the files, as long as clients connect
LOOK_PERIOD = 10.0

#: what changes when a file is replaced: the number of the file, its time of modification in nanoseconds, its size
Stamp = tuple[int, int, int]


class CertificateFiles:
    """See the module.

    Args:
        certfile: the file of the certificate and its chain, in PEM.
        keyfile: the file of the key; ``None`` if ``certfile`` has it, too.

    Raises:
        OSError: a file cannot be read.
        ValueError: its content is no certificate or no key, or the key is not the certificate's.
    """

    def __init__(self, certfile: str, keyfile: str | None) -> None:
        self._files = [certfile] if keyfile is None else [certfile, keyfile]
        self._stamps = self._look()
        #: for new connections
        self.configuration = _read(*self._files)
        self._looked_at = monotonic()

    def _look(self) -> list[Stamp | None]:
        return [_stamp_of(path) for path in self._files]

    def current(self, now: float) -> QuicConfiguration:
        """The configuration of a connection that begins ``now``, on the monotonic clock.

        Files that have changed are read; if they cannot be used, this is logged, and the certificate stays.
        """
        if now - self._looked_at >= LOOK_PERIOD:
            self._looked_at = now
            if self._look() != self._stamps:
                self._renew()
        return self.configuration

    def _renew(self) -> None:
        try:
            self.reload()
        except (OSError, ValueError) as error:
            logger.warning("the certificate in %s has changed and cannot be used; the former one is kept: %s",
                           self._files[0], error)

    def reload(self) -> None:
        """Read the files. The former certificate is kept if they cannot be used.

        Raises:
            OSError: as for a new object.
            ValueError: as for a new object.
        """
        # before they are read: what changes meanwhile is noticed by the next look
        self._stamps = self._look()
        self.configuration = _read(*self._files)
        logger.info("the certificate in %s was read again", self._files[0])


def _stamp_of(path: str) -> Stamp | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size


def _read(certfile: str, keyfile: str | None = None) -> QuicConfiguration:
    configuration = QuicConfiguration(
        alpn_protocols=["h3"], is_client=False, max_data=CONNECTION_WINDOW, max_stream_data=FIRST_WINDOW,
        max_datagram_frame_size=DATAGRAM_SIZE, connection_id_length=ID_SIZE, idle_timeout=IDLE_TIMEOUT)
    try:
        configuration.load_cert_chain(certfile, keyfile)
    except (IndexError, TypeError) as error:
        # there is no certificate; the key has a password
        raise ValueError(str(error)) from error
    if configuration.private_key is None:
        raise ValueError(f"{certfile} has no private key, and there is no keyfile")
    if configuration.certificate.public_key() != configuration.private_key.public_key():
        raise ValueError(f"the key in {keyfile or certfile} is not that of the certificate in {certfile}")
    return configuration
