"""The shop in Redis: all commands, all key names, and the way to an engine. The only package that knows Redis.

May import `service.domain` and `service.settings`.

Reaching an engine:
    dial.py          opens a connection; the only importer of redis-py
    connection.py    one multiplexed connection per worker
    requirements.py  which engines may be used: pure checks
    engine_check.py  runs these checks
    opening.py       from settings to a Store

The shop, one class per subject:
    store.py         the Store: the subjects together
    products.py, stock.py, orders.py, holds.py, events.py, inspection.py
    client.py        what all subjects share: the shop, the clock, running scripts
    keys.py          key names
    scripts.py       the files of lua/
    records.py       from hashes and replies to values, and back
    refusals.py      from replies to refusals
    idempotency.py   fingerprints of requests
    order_ids.py     order ids, reserved in blocks

Beside it:
    sweeper.py       expires overdue orders
"""
