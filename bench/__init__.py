"""The measurements behind docs/performance.md, started by `scripts/bench`.

Absolute figures say more about a machine than about a program, and a shared machine changes from minute to
minute. So every figure that has a target is a ratio: both sides are measured in one run, in turns, and the
median of the rounds counts. Each measurement also checks that what it counted is right: a fast wrong answer
ends the run. Servers are started here, on 127.0.0.1 and free ports, and ended by their process ids.
"""
