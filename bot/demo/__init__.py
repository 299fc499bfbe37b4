"""The show-piece: real processes, a real lock backend, a simulated Telegram, and every fault in turn."""
