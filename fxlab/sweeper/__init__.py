"""Parameter sweeps: many points over one read of the ticks, stored as they finish, resumable."""
