"""QuestDB: the only part of fxlab that knows the server (fetch, start, query, write, migrate)."""
