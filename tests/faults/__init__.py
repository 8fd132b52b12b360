"""The fault campaign: clients order while processes, connections, memory, disk and clocks fail (`make faults`).

`make mutants` shows that the campaign finds faults of Holdfast, and that tests notice if a safeguard of the partitions
is gone. `make faults` has a short form in `make test`.
"""
