"""A model of a shop with several partitions, and the search through everything that can happen to it.

`steps` says what each script does to a partition. `shop` is a whole shop: its partitions, the workers, and the network
between them. `laws` are what must hold in each state, `search` visits every state that can be reached, and
`configurations` are the shops that are searched. `mutants` are shops without one of their safeguards: the search must
find what goes wrong then. `livelock` looks for orders that take units from each other for ever.
"""
