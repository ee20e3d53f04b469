"""Parameter sweeps: many points over one read of the ticks, kept as they finish, resumable."""
