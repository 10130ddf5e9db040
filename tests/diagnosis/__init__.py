"""Real runs with known faults, on which the diagnosis of learning curves is judged."""
