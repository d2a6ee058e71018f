"""The receiver: reads a webhook, checks its origin, stores it as it came, only then answers.

It knows no sender's meaning: `pipeline.sources` does. It makes no outgoing calls but to Redis.
Read `webhooks.py` first; `app.py` puts the pieces together.
"""
