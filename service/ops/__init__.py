"""What the commands do with a shop: audit, doctor, import, export, sales, and the rehearsal in `load`.

Imports only storage and domain; `load` imports neither, because it knows a shop only over HTTP. Prints nothing:
results are returned, progress goes to a callback.
"""
