"""What a service has been asked, grouped, ranked and made into tasks."""
