"""Plans as text: summaries, pictures, and the configuration of routers that are not provisioned here."""
