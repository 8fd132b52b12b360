"""The shop in Redis: all commands, all key names, and the connection. The only package that knows Redis.

May import `service.domain` and `service.settings`.

Reaching Redis:
    dial.py          opens a connection
    redis_url.py     what the URL of a Redis means
    protocol.py      packs commands, reads replies; the only importer of hiredis
    connection.py    one connection per worker, shared by all its requests
    traced_sender.py a span of each command, if traces are on
    requirements.py  which Redis servers may be used: pure functions
    engine_check.py  runs these checks on a server
    opening.py       from settings to a Store

The shop, one class for each of products, stock, orders, holds, events and inspection:
    store.py         the Store: all these classes together
    products.py, stock.py, orders.py, holds.py, events.py, inspection.py
    board.py         what the live board shows
    diagnosis.py     what holdfast doctor reads
    engine_status.py how Redis and the shop are at this moment
    client.py        what these classes share: the shop, the clock, running scripts
    keys.py          key names
    scripts.py       the files of lua/
    records.py       turns hashes and replies into values, and values into fields
    refusals.py      turns replies into refusals
    idempotency.py   fingerprints of requests
    order_ids.py     order ids, reserved in blocks

In the background:
    sweeper.py       expires overdue orders
    backlog.py       refuses new pending orders while old ones expire too late
"""
