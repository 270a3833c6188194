"""A model of ours behind the OpenAI protocol, for chat windows and other evaluation tools.

`protocol.py` says what may be asked and turns it into texts of the decoder, `replies.py` what is answered, `http.py` moves
both over a socket. Requests of all clients run in one batch (engine/live.py).

Contract: the same text and the same log-probabilities as the model gives directly; what cannot be done as asked is an
error of one line, never passed over.
"""
