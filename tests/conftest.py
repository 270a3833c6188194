"""For all tests: generated examples have no deadline, because a busy machine is no failure."""

from hypothesis import settings

settings.register_profile("lydite", deadline=None)
settings.load_profile("lydite")
