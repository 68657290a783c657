"""A hotel booking system in eight small services: the application Ropewalk is measured by."""
