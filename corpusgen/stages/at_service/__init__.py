"""A run whose money and answers are a service's."""
