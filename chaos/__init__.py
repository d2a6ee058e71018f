"""The proof that nothing is lost: a run of real processes, broken at random and at chosen points, and counted.

`scripts/chaos` starts two receivers, two workers, a Redis and the vendors' stand-ins, posts events with ids of their
own, and for as long as it is told kills, stops, pauses, fills and delays (`schedule`, drawn from a seed). Then all
faults end, the relay drains without help, and every id that was answered 2xx has to be somewhere: arrived, dead or
waiting (`judge`). What arrived twice has to be explained by a fault, and marked and counted in `maybe_duplicate` by the
worker that sent it again; the books have to balance. The product knows nothing of this: the processes are started
through `inside`, which lays traps around functions by their names.
"""
