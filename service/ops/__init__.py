"""What the commands do with a shop: audit, import, export.

Imports only storage and domain. Prints nothing: results are returned, progress goes to a callback.
"""
