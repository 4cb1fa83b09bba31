"""Plans as text: summaries, pictures, and the configuration of routers that l3hv does not provision."""
