"""How a model meets a task."""
