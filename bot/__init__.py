"""The bot to deploy, and the template for one's own: `python -m bot start`, and `python -m bot demo` to see it work."""
