"""A report of finished runs for people: a page of HTML, the same as Markdown, and as JSON."""
