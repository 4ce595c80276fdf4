"""What an evaluation costs besides its engine, and how often its intervals hold the truth."""
