"""Images, animations and videos: from bytes to pictures that a classifier can look at."""
