"""Child processes as the HTTP process sees them: two pools, and what they do when a child dies or hangs."""
