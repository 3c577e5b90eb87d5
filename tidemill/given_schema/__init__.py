"""A schema that the user gives as a `schema.pbtxt`: parse it, refuse what is not checked, and read its fields."""
