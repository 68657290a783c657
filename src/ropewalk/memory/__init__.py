"""The built-in provider of every port: in this process, or in one SQLite file. What runs with nothing installed."""
