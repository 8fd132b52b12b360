"""A response that is sent in several parts, as they come: chunks (RFC 9112, section 7.1)."""

from collections.abc import Awaitable, Callable


class ResponseStream:
    """Sends the parts of one response over its connection."""

    def __init__(self, write: Callable[[bytes], Awaitable[None]], head: bytes, *, in_chunks: bool) -> None:
        """Begin with the head of the response, which is sent together with the first part.

        `write` sends bytes, waits while the client leaves too much unread, and raises OSError if the client is gone.
        """
        self._write = write
        self._unsent_head = head
        self._in_chunks = in_chunks
        self.has_ended = False
        """Whether the response is complete. Otherwise the connection must break, so that the client can tell."""

    async def write(self, part: bytes) -> None:
        """Send a part. An empty part sends only the head, if it was not sent yet. Raise OSError."""
        head, self._unsent_head = self._unsent_head, b""
        if part and self._in_chunks:
            part = b"%x\r\n%b\r\n" % (len(part), part)
        if head or part:
            await self._write(head + part)

    async def end(self) -> None:
        """Send the end of the response. Raise OSError."""
        head, self._unsent_head = self._unsent_head, b""
        self.has_ended = True
        if head or self._in_chunks:
            await self._write(head + (b"0\r\n\r\n" if self._in_chunks else b""))
