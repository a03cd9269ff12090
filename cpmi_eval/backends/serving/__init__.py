"""What the ``server`` backend is made of: settings, client, pool, replies, alignment, dialects, probes."""
