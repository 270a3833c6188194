"""The parts of lm_eval_speed.py. `peer.py` runs in the peer's own environment and `ours.py` in Lydite's."""
