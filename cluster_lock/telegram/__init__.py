"""What is Telegram's, without aiogram: the name of a bot's lock, times, errors, and what a poller reports of itself.

The settings, the health page, the commands and the keeper need these and load no aiogram. Other rooms know of no
Telegram.
"""
