"""Counts what this service does: numbers in memory that all its workers share. api/metrics.py shows them.

May import nothing of `service`.

prometheus_client's own counters took 2.1 us for one count and one duration with several workers, and a request needs
more of them. Here, a request only notes what happened, and the notes are added up in batches: about 1 us per order.

    families.py      what is counted
    counters.py      counts it, and adds up the numbers of all workers
    shared_rows.py   the memory that the workers share
"""
