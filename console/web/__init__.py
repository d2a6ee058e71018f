"""The operator's page: whether it flows, what is stuck and why, and how it is put right.

Every page is made by the server and needs no script; `static/` holds small ones of our own that keep numbers
live and tell times in the reader's zone. One noun a page, filters in the URL, never a person: who is looked for by
an address posts it. Whatever changes something is a form with a token of its session, is written into the audit,
and is refused while CONSOLE_READ_ONLY is set.
"""
