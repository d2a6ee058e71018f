"""Stand-ins for both vendors, with their rules and their faults, and the sample deliveries.

It stands apart: it imports nothing of the relay, so that both sides agree on the vendors' rules
by having read them, and nothing of the relay that receives or works imports it.
"""
