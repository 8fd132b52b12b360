"""The fault campaign: clients order while processes, connections, memory, disk and clocks fail (`make faults`).

`make mutants` shows that the campaign finds faults of Holdfast, and that a test fails if a safeguard of the partitions
is missing. `make faults` has a short form in `make test`.
"""
