"""Lints raw HTTP messages with httplint, the linter of REDbot (https://redbot.org)."""


def lint(request: bytes, response: bytes) -> dict[str, str]:
    """Return the warnings and errors that the linter has about a response: name and summary of each note."""
    from httplint import HttpRequestLinter, HttpResponseLinter, levels  # slow: not for each worker of pytest

    asked, answered = HttpRequestLinter(), HttpResponseLinter()
    topline, fields, body = _parts(request)
    asked.process_request_topline(*topline)
    asked.process_headers(fields)
    asked.feed_content(body)
    asked.finish_content(True)
    answered.request = asked
    answered.is_head_response = topline[0] == b"HEAD"
    topline, fields, body = _parts(response)
    answered.process_response_topline(*topline)
    answered.process_headers(fields)
    answered.feed_content(body)
    answered.finish_content(True)
    return {
        type(note).__name__: str(note.summary) for note in answered.notes if note.level in (levels.WARN, levels.BAD)
    }


def _parts(message: bytes) -> tuple[list[bytes], list[tuple[bytes, bytes]], bytes]:
    """Return the words of the first line, the header fields and the body of a message."""
    head, _, body = message.partition(b"\r\n\r\n")
    first, *lines = head.split(b"\r\n")
    fields = [line.split(b": ", 1) for line in lines]
    return first.split(b" ", 2), [(name, value) for name, value in fields], body
