"""The rehearsal before a sale, `holdfast load`: it sends orders to a running service, and checks the result.

`plan` decides what is sent when, `target` whether it may be sent there. `client` sends one HTTP request, `shop` knows
the API calls, `open_loop` sends the whole plan. `outcomes` keeps what buyers were told, `measurements` the counts and
latencies. `readback` reads the result over HTTP, `verdict` judges it; `report` and `plot` show it.
"""
