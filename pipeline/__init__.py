"""The flow, in words.

A sender posts a webhook. The **receiver** checks the token and the signature, and puts the request as it came,
one *delivery*, into the *inbox*; only when Redis has it, the sender gets its answer. Nothing is understood yet. While
Redis is away, deliveries wait on the receiver's disk, in the *spill*.

A **worker** takes the delivery apart (`unpack`): the delivery's *source* reads it and says what happened.
Each mail *event* goes to the stage `forward`, each sighting of a *visitor* to `enrich`, each change of scores
to `scores`, unless it was *seen* before. What cannot be read, and each wrong event alone, becomes a *dead
letter*.

`enrich` keeps who was seen (`visitors`), asks AudienceLab about those it told too little of (many of them by one
job, `bulk_jobs`), and hands their address to `subscribe`, which tells AudiencePoint to watch it, once. `forward`
seals events into *batches* of at most thirty and posts them. `scores` keeps what changed with the visitor, and
`notify` tells it to whoever wants to hear of it, a CRM. What the other side refuses for good is buried too;
everything else waits as long as it takes.

A **stage** keeps its work in *queues*, which are Redis streams; arq only wakes the workers (`wake`). Work leaves
a queue by a *move* (`moves`), which is one atomic step with everything that follows: the acknowledgement, the
seen mark, the appends, the numbers in the *books*. So, at every instant and for every stage,

    in = waiting + done + duplicate + ignored + dead + dropped

This package is what all processes agree on: nouns that keep things in Redis, and the pure `sources`. The verbs are
in `workers`, the HTTP side in `receiver`, the operator's side in `console`. `keys` lists every Redis key.
"""
