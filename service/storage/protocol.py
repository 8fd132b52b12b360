"""The protocol of Redis (RESP2 and RESP3): packs commands, and reads replies. The only importer of hiredis."""

from collections.abc import Callable
from typing import Final

import hiredis

from service.storage.sender import ErrorReply

INCOMPLETE: Final = object()
"""What a reader of replies returns until a whole reply has arrived."""

pack: Final[Callable[[tuple[bytes | str | int, ...]], bytes]] = hiredis.pack_command  # type: ignore[assignment]
"""Returns a command as it is sent. (The stub of hiredis knows only tuples with one part.)"""


PushNotification: Final = hiredis.PushNotification
"""The type of what Redis says without having been asked, after a change to RESP3."""


def reply_reader(protocol_error: type[Exception]) -> hiredis.Reader:
    """Return a reader of the replies of one connection: texts, integers, lists, None, and ErrorReply.

    `protocol_error`: raised for bytes that are not a reply.
    """
    return hiredis.Reader(
        protocolError=protocol_error,
        replyError=ErrorReply,
        encoding="utf-8",
        errors="replace",
        notEnoughData=INCOMPLETE,
    )
