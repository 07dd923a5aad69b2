"""`taskheat doctor`: what would stop a run here, or on a cluster, and what to do about it.

    finding   one line: check, level (ok, warn, fail), what was found, the remedy
    machine   checks of the machine they run on: versions, imports, GPUs, memory, shared memory, limits, storage
    memory    memory that is free, within the container's limit
    access    the cluster's token and its file
    nodes     on a cluster: the machine's checks on every node, one storage for all, one clock
    examine   which checks are made where; the text and the JSON

It changes nothing, but for small files that it writes to the storage and removes. It cannot see how fast the network or
the storage is, nor whether NCCL finds its way between nodes.
"""
