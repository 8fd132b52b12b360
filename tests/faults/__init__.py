"""The fault campaign: clients order while processes, connections, memory, disk and clocks fail (`make faults`).

`make mutants` shows that the campaign finds faults of Holdfast. Both have a short form in `make test`.
"""
