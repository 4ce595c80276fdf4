"""Other projects' evaluation harnesses, with this project's classifier or records in them."""
