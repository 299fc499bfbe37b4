"""The guarded aiogram poller: exactly one process polls a bot, and only while it provably holds the bot's lock."""
