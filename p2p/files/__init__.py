"""Files at a url as tasks of a swarm: fetched, kept by version, seeded."""
