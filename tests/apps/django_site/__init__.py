"""A Django project that does what such projects do."""
