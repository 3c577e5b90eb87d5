"""From sources to examples: reading tables, querying, splitting, and the examples' layout on disk."""
