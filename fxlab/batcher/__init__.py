"""Work that nobody watches: notebooks run in a batch, sweeps repeated every night."""
