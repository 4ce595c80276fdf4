"""What the gate lets through, what it costs, and what it stands."""
