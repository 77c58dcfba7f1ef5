"""Other implementations beside ours: where each lives, how it is started and asked, and what a comparison says."""
