"""The HTTP contract: which calls there are, how a request is read, and how it is answered.

May import `service.storage`, `service.domain` and Starlette.

The way of a request:
    middleware.py    gives it an id, answers every exception, writes the access log
    router.py        finds the row of its path and method
    routes.py        the table of calls
    call.py          reads what the row declares, and calls the handler
    request.py       reading: id, Idempotency-Key, body, query
    products.py, orders.py, health.py, pages.py   the handlers
    coalescing.py    one load for all requests for the same page
    responses.py     answers, and how they are sent
    problems.py      from an error to an RFC 9457 problem
"""
