"""The only part of fxlab that knows the QuestDB server: fetch, start, query, write, migrate."""
